"""Hydra behind one function: overrides are checked first, and every mistyped one is told at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

# Flags of Hydra that take a value in the next argument.
VALUE_FLAGS = frozenset(
    {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c"}
)

# Groups that the root files do not list, so that Hydra wants a `+`.
ADDED_GROUPS = {"experiment": "an experiment", "sweep": "a space to sweep over"}


def overrides_in(arguments: list[str]) -> list[str]:
    """Return the arguments that are overrides: neither flags nor the values of flags."""
    overrides, value = [], False
    for argument in arguments:
        if not value and not argument.startswith("-"):
            overrides.append(argument)
        value = not value and argument in VALUE_FLAGS
    return overrides


def flags_in(arguments: list[str]) -> list[str]:
    """Return the flags, each followed by its value where it takes one."""
    flags, value = [], False
    for argument in arguments:
        if value or argument.startswith("-"):
            flags.append(argument)
        value = not value and argument in VALUE_FLAGS
    return flags


def check_overrides(arguments: list[str]) -> None:
    """Raise one ConfigError for every override that does not parse or names an unknown key or choice.

    Group choices (``model=…``, ``+experiment=…``) are checked against the folders of ``configs/``.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from pipeline.config.root import Config
    from pipeline.config.suggestions import near_miss, unknown_key

    groups = config_groups(arguments)
    parser, problems = OverridesParser.create(), []
    for text in overrides_in(arguments):
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            problems.append(f"`{text}` is not an override: {str(error).splitlines()[0]} Write key=value.")
            continue
        key = override.key_or_group
        if key.split(".")[0] == "hydra" or key.startswith("hydra/"):
            continue
        if key in groups:
            choices = groups[key]
            value = override.value()
            if isinstance(value, str) and value not in choices:
                problems.append(
                    f"`{text}`: {key} has no choice `{value}`.{near_miss(value, choices)} It has: {', '.join(choices)}."
                )
            elif key in ADDED_GROUPS and not text.startswith(("+", "~")):
                problems.append(f"`{text}`: {ADDED_GROUPS[key]} is added, so write `+{text}`.")
            continue
        problem = unknown_key(key, Config) or wrong_type(key, override, Config)
        if problem and "." not in key:
            problem += f" Groups: {', '.join(sorted(groups))}." if near_miss(key, groups) else ""
        if problem:
            problems.append(f"`{text}`: {problem}")
    if problems:
        raise ConfigError("\n".join(problems))


def wrong_type(key: str, override: Override, schema: type) -> str | None:
    """Return why a value does not fit its key, or None; the values of sweeps are checked in their jobs."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if override.is_sweep_override() or override.is_delete():
        return None
    value = override.value()
    if isinstance(value, str) and "${" in value:
        return None
    first, *parts = key.split(".")
    for part in reversed(parts):
        value = {part: value}
    section = get_type_hints(schema)[first]  # the section alone: the whole tree takes ten times as long to build
    tree = OmegaConf.create({first: section}) if is_dataclass(section) else OmegaConf.structured(schema)
    try:
        OmegaConf.merge(tree, {first: value})  # `update` refuses a section below a dict of sections
    except OmegaConfBaseException as error:
        return str(error).splitlines()[0] + "."
    return None


def config_groups(arguments: list[str]) -> dict[str, list[str]]:
    """Return the folders of choices, of the project and of ``--config-dir``, with the names of their files."""
    from pipeline.config.paths import configs_folder

    files = [file for base in (configs_folder(), *_config_dirs(arguments)) for file in base.glob("*/*.yaml")]
    groups: dict[str, list[str]] = {}
    for file in sorted(files, key=lambda file: file.stem):
        groups.setdefault(file.parent.name, []).append(file.stem)
    return groups


def _config_dirs(arguments: list[str]) -> list[Path]:
    named = [value for flag, value in zip(arguments, arguments[1:], strict=False) if flag in {"--config-dir", "-cd"}]
    named += [argument.split("=", 1)[1] for argument in arguments if argument.startswith("--config-dir=")]
    return [Path(folder) for folder in named]


def compose(command: str, arguments: list[str], task: Callable[[DictConfig], None]) -> None:
    """Let Hydra compose ``configs/<command>.yaml`` with the overrides and call ``task`` with the result.

    Raises:
        ConfigError: an override, a file or a value is wrong; Hydra's own words where ours do not fit better.
    """
    check_overrides(arguments)
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from pipeline.config.composition import readable, register_schema
    from pipeline.config.paths import configs_folder

    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions to us instead of printing them and ending the process
    register_schema()
    overrides = overrides_in(arguments)
    sys.argv = [f"pipeline {command}", *flags_in(arguments), *overrides]  # Hydra wants them apart
    start = hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name=command)
    failures: list[PipelineError] = []

    def guarded(composed: DictConfig) -> None:
        try:
            task(composed)
        except PipelineError as error:  # Hydra would print a line of its own for what passes through it
            failures.append(error)

    try:
        start(guarded)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(readable(error)) from error
    if failures:
        raise failures[0]
