"""From overrides to dataclasses: the only place beside ``__main__`` that knows Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.data import SourceConfig, SourceSplit
from pipeline.config.endpoints import HTTP, EndpointConfig
from pipeline.config.evaluation import SuiteConfig, own_source
from pipeline.config.judges import JudgeConfig
from pipeline.config.root import CURATE, EVALUATE, INGEST, Config, settle_folds, with_evaluation, with_gold
from pipeline.config.schema import schema_of
from pipeline.config.suggestions import explain_unknown_key, near_miss
from pipeline.config.tables import TableConfig, load_tables
from pipeline.config.validation import problems_in
from pipeline.errors import ConfigError

Section = TypeVar("Section", SuiteConfig, JudgeConfig, EndpointConfig)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A configuration as stages see it, and what goes to logs."""

    config: Config
    suites: dict[str, SuiteConfig]  # by name, in the order of `evaluate.suites`
    judges: dict[str, JudgeConfig]  # by name: those that suites and `evaluate` name, and the members of panels
    endpoints: dict[str, EndpointConfig]  # by name: those that `inputs.evaluate.policy` names as `http:NAME`
    tables: dict[str, TableConfig]  # that an annotation export may be read as, by name
    problems: list[str]  # what is wrong with the values, each naming its key
    resolved: dict[str, Any]  # plain containers with every interpolation resolved
    unresolved: dict[str, Any]  # the same with interpolations as written: what may be logged


@cache
def register_schema() -> None:
    """Offer the typed tree to Hydra under the name that the root files list first."""
    ConfigStore.instance().store(name="schema", node=Config)


def load(composed: DictConfig, search_path: list[Path]) -> Composed:
    """Turn a composed configuration into dataclasses and list everything that is wrong with it, missing values too.

    Args:
        composed: What Hydra composed; its stages and missing values are filled in.
        search_path: Folders that hold ``suite/<name>.yaml``, first match wins.

    Raises:
        ConfigError: a value has the wrong type or an interpolation leads nowhere.
    """
    unresolved = cast("dict[str, Any]", OmegaConf.to_container(composed, resolve=False))
    composed.stages = with_evaluation(list(composed.stages))
    waiting = _waiting_sources(unresolved["data"])
    missing = {"data.path"} if waiting else set()
    try:
        for key in missing:  # filled with something, so that the rest can be checked and told in the same report
            OmegaConf.update(composed, key, "")
        for key in OmegaConf.missing_keys(composed):
            OmegaConf.update(composed, key, "demonstrations" if key.endswith(".table") else "")
            missing.add(key)
        config = cast("Config", OmegaConf.to_object(composed))
        config.stages = with_gold(config.stages, config.inputs)
        settle_folds(config)
        resolved = cast("dict[str, Any]", OmegaConf.to_container(composed, resolve=True, enum_to_str=True))
    except OmegaConfBaseException as error:
        raise ConfigError(readable(error)) from error
    problems = [f"{key}: has no value; add `{key}=…`" for key in sorted(missing)]
    problems.extend(problem for problem in problems_in(config) if not problem.startswith((*missing, *waiting)))
    suites: dict[str, SuiteConfig] = {}
    if EVALUATE in config.stages or CURATE in config.stages:
        for name in config.evaluate.suites:
            try:
                suites[name] = load_suite(name, search_path)
            except ConfigError as error:
                problems.append(str(error))
    # In `curate` alone too, so that what is trained on does not depend on which stages are named.
    config.data.sources += _guards(config.data.sources, suites)
    asked = [name for suite in suites.values() for name in suite.judges] + config.evaluate.judges
    judges = load_judges(asked, search_path, problems) if EVALUATE in config.stages else {}
    endpoints = load_endpoints(config.inputs.evaluate.policy, search_path, problems)
    tables: dict[str, TableConfig] = {}
    if INGEST in config.stages:
        try:
            tables = load_tables(search_path)
        except ConfigError as error:
            problems.append(str(error))
    return Composed(
        config=config, suites=suites, judges=judges, endpoints=endpoints, tables=tables, problems=problems,
        resolved=resolved, unresolved=unresolved,
    )  # fmt: skip


def _waiting_sources(data: dict[str, Any]) -> list[str]:
    """Return the keys of paths that are made of `${data.path}` where that has no value."""
    paths = [str(source.get("path")) for source in data["sources"] if data["path"] is None]
    return [f"data.sources[{number}].path" for number, path in enumerate(paths) if "${data.path}" in path]


def _guards(sources: list[SourceConfig], suites: dict[str, SuiteConfig]) -> list[SourceConfig]:
    """Return the suites' own prompts, each file once, as sources that `curate` keeps out of what is trained on."""
    own = (source for suite in suites.values() if (source := own_source(suite)) is not None)
    known = {source.path for source in sources if source.split is not SourceSplit.auto}
    return list({source.path: source for source in own if source.path not in known}.values())


def load_suite(name: str, search_path: list[Path]) -> SuiteConfig:
    """Read ``suite/<name>.yaml`` strictly.

    Raises:
        ConfigError: there is no such suite, or its file has an unknown key or a wrong value.
    """
    return _load_file(SuiteConfig, "suite", name, "evaluate.suites", search_path)


def load_judges(names: Sequence[str], search_path: list[Path], problems: list[str]) -> dict[str, JudgeConfig]:
    """Read ``judge/<name>.yaml`` of each, and of the members of panels before the panels; add what is wrong."""
    judges: dict[str, JudgeConfig] = {}
    for name in dict.fromkeys(names):
        try:
            judge = _load_file(JudgeConfig, "judge", name, "evaluate.judges", search_path)
            for member in judge.members:
                found = _load_file(JudgeConfig, "judge", member, f"judge `{name}`: members", search_path)
                if found.members:
                    problems.append(f"judge `{name}`: its member `{member}` is a panel itself. Name its members.")
                judges[member] = found
            judges[name] = judge
        except ConfigError as error:
            problems.append(str(error))
    return judges


def load_endpoints(policies: Sequence[str], search_path: list[Path], problems: list[str]) -> dict[str, EndpointConfig]:
    """Read ``endpoint/<name>.yaml`` of each policy that is a model behind HTTP; add what is wrong."""
    endpoints: dict[str, EndpointConfig] = {}
    for name in [value.removeprefix(HTTP) for value in policies if value.startswith(HTTP)]:
        try:
            endpoints[name] = _load_file(EndpointConfig, "endpoint", name, "inputs.evaluate.policy", search_path)
        except ConfigError as error:
            problems.append(str(error))
    return endpoints


def _load_file(schema: type[Section], group: str, name: str, key: str, search_path: list[Path]) -> Section:
    """Read a file of a folder of small files strictly, the first of that name."""
    folders = [folder / group for folder in search_path]
    path = next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)
    if path is None:
        known = sorted({file.stem for folder in folders if folder.is_dir() for file in folder.glob("*.yaml")})
        raise ConfigError(
            f"{key}: there is no {group} `{name}`.{near_miss(name, known)} {group.title()}s: {', '.join(known)}."
        )
    try:
        merged = OmegaConf.merge(schema_of(schema), {"name": name}, OmegaConf.load(path))
        section = cast("Section", OmegaConf.to_object(merged))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {readable(error)}") from error
    problems = problems_in(section)
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return section


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
