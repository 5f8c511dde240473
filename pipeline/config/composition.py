"""From overrides to dataclasses: the only place beside ``__main__`` that knows Hydra."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.evaluation import SuiteConfig
from pipeline.config.root import EVALUATE, INGEST, Config, with_evaluation
from pipeline.config.suggestions import explain_unknown_key, near_miss
from pipeline.config.tables import TableConfig, load_tables
from pipeline.config.validation import problems_in
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A configuration as stages see it, and what goes to logs."""

    config: Config
    suites: dict[str, SuiteConfig]  # by name, in the order of `evaluate.suites`
    tables: dict[str, TableConfig]  # that an annotation export may be read as, by name
    problems: list[str]  # what is wrong with the values, each naming its key
    resolved: dict[str, Any]  # plain containers with every interpolation resolved
    unresolved: dict[str, Any]  # the same with interpolations as written: what may be logged


def register_schema() -> None:
    """Offer the typed tree to Hydra under the name that the root files list first."""
    ConfigStore.instance().store(name="schema", node=Config)


def load(composed: DictConfig, search_path: list[Path]) -> Composed:
    """Turn a composed configuration into dataclasses and list everything that is wrong with it, missing values too.

    Args:
        composed: What Hydra composed.
        search_path: Folders that hold ``suite/<name>.yaml``, first match wins.

    Raises:
        ConfigError: a value has the wrong type or an interpolation leads nowhere.
    """
    unresolved = cast("dict[str, Any]", OmegaConf.to_container(composed, resolve=False))
    composed = cast("DictConfig", OmegaConf.merge(composed, {"stages": with_evaluation(list(composed.stages))}))
    missing = sorted(OmegaConf.missing_keys(composed))
    for key in missing:  # filled with something, so that the rest can be checked and told in the same report
        OmegaConf.update(composed, key, "demonstrations" if key.endswith(".table") else "")
    try:
        config = cast("Config", OmegaConf.to_object(composed))
        resolved = cast("dict[str, Any]", OmegaConf.to_container(composed, resolve=True, enum_to_str=True))
    except OmegaConfBaseException as error:
        raise ConfigError(readable(error)) from error
    problems = [f"{key}: has no value; add `{key}=…`" for key in missing]
    problems.extend(problem for problem in problems_in(config) if not problem.startswith(tuple(missing)))
    suites: dict[str, SuiteConfig] = {}
    if EVALUATE in config.stages:
        for name in config.evaluate.suites:
            try:
                suites[name] = load_suite(name, search_path)
            except ConfigError as error:
                problems.append(str(error))
    tables: dict[str, TableConfig] = {}
    if INGEST in config.stages:
        try:
            tables = load_tables(search_path)
        except ConfigError as error:
            problems.append(str(error))
    return Composed(
        config=config, suites=suites, tables=tables, problems=problems, resolved=resolved, unresolved=unresolved
    )


def load_suite(name: str, search_path: list[Path]) -> SuiteConfig:
    """Read ``suite/<name>.yaml`` strictly.

    Raises:
        ConfigError: there is no such suite, or its file has an unknown key or a wrong value.
    """
    folders = [folder / "suite" for folder in search_path]
    path = next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)
    if path is None:
        known = sorted({file.stem for folder in folders if folder.is_dir() for file in folder.glob("*.yaml")})
        raise ConfigError(
            f"evaluate.suites: there is no suite `{name}`.{near_miss(name, known)} Suites: {', '.join(known)}."
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(SuiteConfig), {"name": name}, OmegaConf.load(path))
        suite = cast("SuiteConfig", OmegaConf.to_object(merged))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {readable(error)}") from error
    problems = problems_in(suite)
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return suite


def readable(error: BaseException) -> str:
    """Return one clear message for what OmegaConf, Hydra or the YAML parser raised, with the nearest key."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}: not valid YAML: {error.problem}"
    causes: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = str(current).strip()
        if text and text not in causes:
            causes.append(text)
        current = current.__cause__ or current.__context__
    message = "\n".join(causes)
    return explain_unknown_key(message, Config) or message
