"""What runs are ranked by: a metric with values by item, or a number that a sweep recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.comparison.alignment import Candidate
from pipeline.comparison.measuring import Metric
from pipeline.config.suggestions import near_miss
from pipeline.errors import ArtifactError, ConfigError
from pipeline.sweeps.record import SweepRecord

Objective = Mapping[str, str]  # name and direction, as a sweep records it


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What the order goes by: a metric with values by item, else a number that a sweep recorded."""

    metric: Metric | None
    objective: Objective | None
    beside: Metric | None = None  # where it is such a number: the metric that says what the choice is worth

    @property
    def name(self) -> str:
        """Return it as `--by` takes it."""
        if self.metric is not None:
            return f"{self.metric.suite}/{self.metric.name}"
        return self.objective["name"] if self.objective else ""

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""
        if self.metric is not None:
            return self.metric.measure.higher_is_better is not False
        return self.objective is not None and self.objective["direction"] == "maximize"


def criterion(
    metrics: Sequence[Metric], sweeps: Sequence[SweepRecord], found: Sequence[Candidate], asked: str | None
) -> Criterion:
    """Return what to rank by: what was asked for, else the sweep's first objective, else the first primary metric.

    Completions come before likelihoods: a suite of the kind generation has the say where there is one.

    Raises:
        ConfigError: There is no such metric, or neither direction of it is better.
        ArtifactError: There is nothing to rank by.
    """
    by_name = {f"{metric.suite}/{metric.name}": metric for metric in metrics}
    objectives = {entry["name"]: entry for entry in objectives_of(sweeps, found)}
    primary = _primary(metrics, found)
    if asked is not None:
        if asked in by_name:
            if by_name[asked].measure.higher_is_better is None:
                raise ConfigError(f"--by {asked}: neither more nor less of it is better. Choose another metric.")
            return Criterion(metric=by_name[asked], objective=None)
        if asked in objectives:
            return _by_objective(objectives[asked], by_name, found, primary)
        known = [*objectives, *by_name]
        raise ConfigError(
            f"--by {asked}: there is no such metric.{near_miss(asked, known)} It has: {', '.join(known)}."
        )
    if objectives:
        return _by_objective(next(iter(objectives.values())), by_name, found, primary)
    if primary is None:
        raise ArtifactError("Nothing can be ranked: no metric has values for the same items in two policies.")
    return Criterion(metric=primary, objective=None)


def objectives_of(sweeps: Sequence[SweepRecord], found: Sequence[Candidate]) -> list[Objective]:
    """Return what the sweeps were after; nothing where a run has several policies, of none of which it tells."""
    alone = len({candidate.run.place for candidate in found}) == len(found)
    return list({entry["name"]: entry for sweep in sweeps for entry in sweep.objectives}.values()) if alone else []


def _primary(metrics: Sequence[Metric], found: Sequence[Candidate]) -> Metric | None:
    primary = {metric.suite: metric for metric in reversed(metrics) if len(metric.measure.values) > 1}
    directed = [metric for metric in reversed(primary.values()) if metric.measure.higher_is_better is not None]
    generation = [metric for metric in directed if _kind(metric.suite, found) == "generation"]
    return next(iter([*generation, *directed]), None)


def _by_objective(
    objective: Objective, metrics: Mapping[str, Metric], found: Sequence[Candidate], primary: Metric | None
) -> Criterion:
    """Return the metric that an objective is, where it is one of this report and these policies."""
    name, _, policy = objective["name"].rpartition("/")
    if name in metrics and all(candidate.policy == policy for candidate in found):
        return Criterion(metric=metrics[name], objective=objective)
    return Criterion(metric=None, objective=objective, beside=primary)


def _kind(suite: str, found: Sequence[Candidate]) -> str:
    held = next((items for candidate in found if (items := candidate.suite(suite)) is not None), None)
    return str(held["definition"]["kind"]) if held else ""
