"""What a sweep varies, how it searches, and what it looks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline.config.fields import MISSING, option
from pipeline.config.launching import Launcher, SubmititConfig, launcher_problems
from pipeline.config.suggestions import near_miss

if TYPE_CHECKING:
    from pipeline.config.root import Config

PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # of a database address


class Direction(StrEnum):
    """Which end of an objective is good."""

    minimize = "minimize"
    maximize = "maximize"


@dataclass(kw_only=True)
class ObjectiveConfig:
    """One number of a run that is wanted small or large.

    `validation_loss` is a metric of the last training stage, `sft/validation_loss` of a named one, and
    `house_style/all_checks` one of a suite, for the newest policy; `house_style/all_checks/dpo` names the policy.
    """

    metric: str = MISSING
    direction: Direction = option(Direction.minimize, affects_results=False)


class SweepMethod(StrEnum):
    """How the values of the trials are chosen."""

    grid = "grid"  # every combination
    random = "random"
    tpe = "tpe"  # tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna


class Pruner(StrEnum):
    """When a trial is stopped before its end."""

    none = "none"
    median = "median"  # worse at a validation than the median of the trials before it (Golovin et al. 2017, 3.2.1)


@dataclass(kw_only=True)
class SweepConfig:
    """What `-m` does. A sweep trains nothing itself, so nothing here changes a fingerprint."""

    # Key -> values, in the words of the command line: `1e-4,2e-4`, `range(1,4)`, `tag(log,interval(1e-5,1e-3))`; or
    # `{by: KEY, VALUE: values, default: values}`, which depends on what another key is set to.
    space: dict[str, Any] = option(factory=dict, affects_results=False)
    method: SweepMethod = option(SweepMethod.grid, affects_results=False)
    trials: int = option(20, ge=1, affects_results=False)  # of a search; more of them go on with the same search
    seed: int = option(17, ge=0, affects_results=False)  # of the search
    startup_trials: int = option(5, ge=1, affects_results=False)  # at random before TPE models, and before any pruning
    pruner: Pruner = option(Pruner.none, affects_results=False)
    pruner_warmup: int = option(
        1, ge=0, affects_results=False
    )  # validations, that before training included, that prune nothing
    parallel: int = option(1, ge=1, affects_results=False)  # trials that run at the same time
    launcher: Launcher = option(Launcher.process, affects_results=False)
    submitit: SubmititConfig = option(factory=SubmititConfig, affects_results=False)  # what a submitted trial asks for
    # Words put before each trial's command, such as [srun,"--gpus=1"] or [taskset,-c,0-7].
    launch: list[str] = option(factory=list, affects_results=False)
    # Where Optuna keeps the search, such as postgresql+psycopg://HOST/NAME; null is a file in the folder of the sweep.
    storage: str | None = option(None, affects_results=False)
    wandb_file: str | None = option(None, affects_results=False)  # written for `wandb sweep`, instead of running


def objective_place(metric: str, stages: list[str]) -> tuple[str | None, str]:
    """Split the name of a metric into the stage that trains, or None where it is a suite's, and the rest."""
    head, _, rest = metric.partition("/")
    if rest and head not in stages:
        return None, metric
    trained = [stage for stage in stages if stage not in {"ingest", "curate", "gold", "evaluate"}]
    return (head, rest) if rest else (trained[-1] if trained else "", metric)


def sweep_problems(config: Config) -> Iterator[str]:
    """Yield what is wrong with the objectives and the sweep, one line each that begins with the key."""
    for number, objective in enumerate(config.objective):
        key = f"objective[{number}].metric={objective.metric}"
        stage, rest = objective_place(objective.metric, config.stages)
        suite = rest.partition("/")[0]
        if stage == "":
            yield f"{key}: no stage of this experiment trains; name a suite's metric, as in SUITE/METRIC."
        elif stage is None and suite not in config.evaluate.suites:
            known = [*config.stages, *config.evaluate.suites]
            yield f"{key}: `{suite}` is no stage and no suite.{near_miss(suite, known)} There are: {', '.join(known)}."
    if config.sweep.pruner is not Pruner.none:
        yield from _pruning_problems(config)
    yield from launcher_problems(config.sweep)
    if config.sweep.storage and PASSWORD.search(config.sweep.storage):
        yield "sweep.storage: holds a password. Leave it out and set PGPASSWORD, or use ~/.pgpass."


def _pruning_problems(config: Config) -> Iterator[str]:
    key = f"sweep.pruner={config.sweep.pruner}"
    if config.sweep.method is SweepMethod.grid:
        yield f"{key}: a grid runs every combination to its end. Search with sweep.method=tpe."
    if len(config.objective) > 1:
        yield f"{key}: pruning follows one objective, and {len(config.objective)} are named."
    elif config.objective and objective_place(config.objective[0].metric, config.stages)[0] is None:
        yield f"{key}: {config.objective[0].metric} is known at the end only. Name a metric of training."
