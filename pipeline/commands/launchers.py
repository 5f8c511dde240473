"""Hydra's own words for launchers, put into the keys of `sweep`: the only place that knows them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from pipeline.commands.composing import overrides_in
from pipeline.config.launching import Launcher, SubmititConfig
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

GROUP, SECTION = "hydra/launcher", "hydra.launcher."
SWEEPERS = ("hydra/sweeper", "hydra.sweeper.")
BASIC, JOBLIB = "basic", "joblib"
LAUNCHERS = (BASIC, JOBLIB, str(Launcher.submitit_local), str(Launcher.submitit_slurm))
PARALLEL = {JOBLIB: "n_jobs", str(Launcher.submitit_slurm): "array_parallelism"}  # the key that is `sweep.parallel`
# Keys of the submitit launchers that can have one value here.
ONE_VALUE = {"nodes": 1, "tasks_per_node": 1, "stderr_to_stdout": False, "wait_for_completion": True}


def refuse_outside_a_sweep(arguments: Sequence[str]) -> None:
    """Raise where a launcher is named for a single run.

    Raises:
        ConfigError: It would start nothing.
    """
    for text, override in _parsed(arguments):
        if _is_launching(override):
            raise ConfigError(f"`{text}`: launchers start the trials of a sweep. Add -m, or leave it away.")


def canonical(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `hydra/launcher=…` and `hydra.launcher.KEY=…` as keys of `sweep`.

    Raises:
        ConfigError: A launcher or a key that there is not, one that would have no effect, or a sweeper of Hydra's.
    """
    found = dict(_parsed(arguments))
    for text, override in found.items():
        if override.key_or_group.startswith(SWEEPERS):
            raise ConfigError(
                f"`{text}`: Hydra's sweepers hear of a trial when it has ended and cannot stop one. sweep.method=tpe "
                "searches with Optuna, sweep.pruner=median prunes. docs/sweeps.md says more."
            )
    launching = {text: override for text, override in found.items() if _is_launching(override)}
    if not launching:
        return list(arguments)
    launcher = _launcher(launching)
    words = [f"sweep.launcher={Launcher.process if launcher in (BASIC, JOBLIB) else launcher}"]
    keys = {text: override for text, override in launching.items() if override.key_or_group != GROUP}
    if launcher == JOBLIB and not keys:
        words.append(f"sweep.parallel={_num_jobs(-1)}")  # joblib's own default
    for text, override in keys.items():
        words += _translated(launcher, text, override)
    rest = [argument for argument in arguments if argument not in launching]
    _refuse_both(words, rest, launcher)
    return [*rest, *words]


def _parsed(arguments: Sequence[str]) -> Iterator[tuple[str, Override]]:
    """Yield the overrides that parse; of the others `check_overrides` tells."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides_in(list(arguments)):
        if "hydra" in text:
            try:
                yield text, parser.parse_override(text)
            except HydraException:
                continue


def _is_launching(override: Override) -> bool:
    return override.key_or_group == GROUP or override.key_or_group.startswith(SECTION)


def _launcher(launching: Mapping[str, Override]) -> str:
    named = {text: override for text, override in launching.items() if override.key_or_group == GROUP}
    for text, override in launching.items():
        if override.is_sweep_override() or override.is_delete():
            raise ConfigError(f"`{text}`: a launcher is for the whole sweep. Name one value.")
    if len(named) != 1:
        what = "no launcher is named, whose key it is" if not named else "another launcher is named as well"
        raise ConfigError(f"`{next(iter(named or launching))}`: {what}. Name one: {GROUP}={' or '.join(LAUNCHERS)}.")
    ((text, override),) = named.items()
    value = str(override.value())
    if value not in LAUNCHERS:
        raise ConfigError(
            f"`{text}`: there is no launcher `{value}` here.{near_miss(value, LAUNCHERS)} There are: "
            f"{', '.join(LAUNCHERS)}. sweep.launch puts any words before a trial's command."
        )
    return value


def _translated(launcher: str, text: str, override: Override) -> list[str]:
    """Return what a key of a launcher is called here; nothing where it says what is so anyway."""
    path = override.key_or_group.removeprefix(SECTION)
    key, _, below = path.partition(".")
    value = text.partition("=")[2]
    if path == PARALLEL.get(launcher):
        return [f"sweep.parallel={_num_jobs(_whole(text, override)) if launcher == JOBLIB else value}"]
    if launcher in (BASIC, JOBLIB):
        known = {BASIC: "basic has no keys", JOBLIB: "of joblib's keys only n_jobs has a meaning"}[launcher]
        hint = near_miss(path, [PARALLEL[JOBLIB]]) if launcher == JOBLIB else ""
        raise ConfigError(
            f"`{text}`: {known} here: a trial is a process of its own, and sweep.parallel says how many run at the "
            f"same time.{hint}"
        )
    if key in ONE_VALUE and not below:
        if override.value() != ONE_VALUE[key]:
            raise ConfigError(f"`{text}`: {key} is {ONE_VALUE[key]}: a trial is one process that the sweep waits for.")
        return []
    known_keys = [entry.name for entry in fields(SubmititConfig)]
    if key not in known_keys or (below and key != "additional_parameters"):
        options = [*known_keys, *([PARALLEL[launcher]] if launcher in PARALLEL else []), *ONE_VALUE]
        raise ConfigError(
            f"`{text}`: {launcher} has no key `{path}` here.{near_miss(path, options)} It has: {', '.join(options)}. "
            "A job is named after its trial and has its files in the sweep's folder."
        )
    prefix = "++" if below else ""  # options of sbatch are added to a dict
    return [f"{prefix}sweep.submitit.{path}={value}"]


def _whole(text: str, override: Override) -> int:
    value = override.value()
    if not isinstance(value, int) or isinstance(value, bool) or value == 0:
        raise ConfigError(f"`{text}`: must be a whole number other than 0; -1 is every core.")
    return value


def _num_jobs(value: int) -> int:
    """Return how many trials run at the same time, as joblib counts: -1 is every core, -2 all but one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return value if value > 0 else max(1, cores + 1 + value)


def _refuse_both(words: Sequence[str], rest: Sequence[str], launcher: str) -> None:
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    for text in overrides_in(list(rest)):
        key = text.lstrip("+~").partition("=")[0]
        if key in keys:
            raise ConfigError(f"`{text}`: {GROUP}={launcher} and its keys set {key} as well. Write one of the two.")
