"""Best first, and what the order is worth: how much of the best one's lead comes of choosing it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.comparison.alignment import Candidate
from pipeline.comparison.measuring import Metric
from pipeline.config.suggestions import near_miss
from pipeline.errors import ArtifactError, ConfigError
from pipeline.pages.numbers import compact, estimate_text, interval_text, metric_words
from pipeline.statistics.selection import chance_lead, max_t_quantile, possibly_best, widened
from pipeline.sweeps.record import SweepRecord

Objective = Mapping[str, str]  # name and direction, as a sweep records it

MIN_CLUSTERS = 2


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What the order goes by: a metric with values by item, else a number that a sweep recorded."""

    metric: Metric | None
    objective: Objective | None

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
    alone = len({candidate.run.place for candidate in found}) == len(found)  # else it says nothing of one policy
    objectives = {entry["name"]: entry for sweep in sweeps for entry in sweep.objectives} if alone else {}
    if asked is not None:
        if asked in by_name:
            if by_name[asked].measure.higher_is_better is None:
                raise ConfigError(f"--by {asked}: neither more nor less of it is better. Choose another metric.")
            return Criterion(metric=by_name[asked], objective=None)
        if asked in objectives:
            return _by_objective(objectives[asked], by_name, found)
        known = [*objectives, *by_name]
        raise ConfigError(
            f"--by {asked}: there is no such metric.{near_miss(asked, known)} It has: {', '.join(known)}."
        )
    if objectives:
        return _by_objective(next(iter(objectives.values())), by_name, found)
    primary = {metric.suite: metric for metric in reversed(metrics) if len(metric.measure.values) > 1}
    generation = [
        metric for metric in primary.values() if _kind(metric.suite, found) == "generation" and _is_directed(metric)
    ]
    directed = [*reversed(generation), *(metric for metric in reversed(primary.values()) if _is_directed(metric))]
    if not directed:
        raise ArtifactError("Nothing can be ranked: no metric has values for the same items in two policies.")
    return Criterion(metric=directed[0], objective=None)


def _by_objective(objective: Objective, metrics: Mapping[str, Metric], found: Sequence[Candidate]) -> Criterion:
    """Return the metric that an objective is, where it is one of this report and these policies."""
    name, _, policy = objective["name"].rpartition("/")
    if name in metrics and all(candidate.policy == policy for candidate in found):
        return Criterion(metric=metrics[name], objective=objective)
    return Criterion(metric=None, objective=objective)


def _kind(suite: str, found: Sequence[Candidate]) -> str:
    held = next((items for candidate in found if (items := candidate.suite(suite)) is not None), None)
    return str(held["definition"]["kind"]) if held else ""


def _is_directed(metric: Metric) -> bool:
    return metric.measure.higher_is_better is not None


def rank(
    found: Sequence[Candidate],
    baseline: Candidate,
    by: Criterion,
    rows: Sequence[Mapping[str, Any]],
    confidence: float,
) -> dict[str, Any]:
    """Return the order, the corrected intervals, and sentences that say what the order is worth."""
    values = _values(found, by)
    ranked = sorted(values, key=lambda key: (-values[key] if by.higher_is_better else values[key], int(key)))
    ranking: dict[str, Any] = {
        "by": by.name, "higher_is_better": by.higher_is_better, "order": ranked, "values": values, "corrected": {},
        "possibly_best": None, "chance_lead": None, "compared": None, "within_noise": None, "quantile": None,
    }  # fmt: skip
    if by.metric is None:
        ranking["sentences"] = _objective_sentences(ranking, by, found, {row["suite"] for row in rows})
        return ranking
    distinct = [key for key in ranked if found[int(key) - 1].twin_of is None]
    if len(distinct) < 2 or len(set(by.metric.clusters)) < MIN_CLUSTERS:
        ranking["sentences"] = ["There is nothing to choose between: one policy, or one cluster of items."]
        return ranking
    own = {
        row["policy"]: row
        for row in rows
        if (row["suite"], row["metric"]) == (by.metric.suite, by.metric.name) and row["baseline"] is not None
    }
    ranking |= _selection(distinct, baseline.key, by.metric, own, confidence)
    ranking["sentences"] = _sentences(ranking, distinct, baseline.key, by.metric, own, found)
    return ranking


def _values(found: Sequence[Candidate], by: Criterion) -> dict[str, float]:
    """Return the number of each candidate that can be ranked."""
    if by.metric is None:
        held = {candidate.key: candidate.run.objectives.get(by.name) for candidate in found}
        return {key: value for key, value in held.items() if value is not None}
    return {key: by.metric.value(key) for key in by.metric.measure.values}


def _selection(
    distinct: Sequence[str], baseline: str, metric: Metric, own: Mapping[str, Mapping[str, Any]], confidence: float
) -> dict[str, Any]:
    """Return what choosing among the policies costs, with the intervals that hold for all of them together."""
    errors = metric.errors(distinct)
    sign = -1.0 if metric.measure.higher_is_better is False else 1.0
    subset = possibly_best([sign * metric.value(key) for key in distinct], errors, confidence=confidence)
    told: dict[str, Any] = {
        "possibly_best": [key for key, kept in zip(distinct, subset, strict=True) if kept],
        "compared": len(distinct),
    }
    others = [index for index, key in enumerate(distinct) if key != baseline]
    if baseline not in distinct or not others:
        return told
    control = distinct.index(baseline)
    differences = errors[:, others] - errors[:, control : control + 1]
    quantile = max_t_quantile(differences, confidence=confidence)
    corrected = {
        key: widened(row["low"], row["high"], quantile, row["clusters"], confidence)
        for key in (distinct[index] for index in others)
        if (row := own[key])["low"] is not None
    }
    best = distinct[0]
    limits = corrected.get(best)
    unclear = best != baseline and (limits is None or limits[0] <= 0 <= limits[1])
    return told | {
        "quantile": quantile, "chance_lead": chance_lead(differences), "corrected": corrected, "within_noise": unclear,
    }  # fmt: skip


def _sentences(
    ranking: Mapping[str, Any],
    distinct: Sequence[str],
    baseline: str,
    metric: Metric,
    own: Mapping[str, Mapping[str, Any]],
    found: Sequence[Candidate],
) -> list[str]:
    """Say who leads, by how much, and how much of it choosing explains."""
    best, count = distinct[0], len(distinct)
    words = f"{metric_words(metric.name)} ({metric.suite})"
    subset = ranking["possibly_best"]
    if best == baseline:
        told = [f"None does better than the baseline, {_name(best, found)}, on {words}."]
    else:
        row = own[best]
        stated = f"{estimate_text(row)} {interval_text(row)}"
        told = [f"{_name(best, found)} does best on {words}: {stated} against {_name(baseline, found)}."]
        if count > 2 and best in ranking["corrected"]:
            low, high = ranking["corrected"][best]
            wide = {**row, "low": low, "high": high}
            lead = estimate_text({**row, "estimate": ranking["chance_lead"], "low": None, "high": None})
            told.append(
                f"It was chosen among {count}: if all were equal, the best would lead by {lead} on average. "
                f"The interval that allows for the choice is {interval_text(wide)}"
                + (", so its lead is within noise." if ranking["within_noise"] else ", so it leads beyond noise.")
            )
    if len(subset) == 1:
        # The subset asks on one side only, the interval on both: together they may say no more than this.
        level = ranking.get("within_noise", False)
        told.append("None is better than it; the baseline may be level." if level else "No other can be the best.")
    elif len(subset) == count:
        told.append(f"Any of the {count} may be the best: the items do not tell them apart.")
    else:
        told.append(f"{len(subset)} of the {count} policies may be the best.")
    return told


def _objective_sentences(
    ranking: Mapping[str, Any], by: Criterion, found: Sequence[Candidate], suites: Collection[str]
) -> list[str]:
    ranked = ranking["order"]
    if not ranked:
        return [f"No run has a value of {by.name}."]
    extreme = "highest" if by.higher_is_better else "lowest"
    value = compact(ranking["values"][ranked[0]])
    told = [f"{_name(ranked[0], found)} has the {extreme} {by.name}: {value}, without an interval."]
    if by.name.partition("/")[0] not in suites:
        told.append("The choice was made on other items than those of the suites, whose intervals need no correction.")
    return told


def _name(key: str, found: Sequence[Candidate]) -> str:
    candidate = found[int(key) - 1]
    return f"#{key} ({candidate.run.name}, {candidate.policy})"
