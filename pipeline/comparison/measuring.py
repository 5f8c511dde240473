"""Every metric of every policy, and its paired difference from one of them, on items that all of them have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.comparison.alignment import Candidate
from pipeline.evaluation.measures import Array, Measure, metric_row
from pipeline.evaluation.metric_names import COMPLETION_TOKENS


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of one suite on the items that all compared candidates have a value for."""

    suite: str
    measure: Measure  # candidate's key -> one value per item
    clusters: list[int]
    left_out: int  # items of the suite on which some candidate has no value
    notes: list[str]  # of candidates that have no part in it, and why

    @property
    def name(self) -> str:
        """Return the metric's name."""
        return self.measure.name

    def errors(self, keys: Sequence[str]) -> Array:
        """Return [C, k] influences of the clusters on each candidate's value, turned so that more is better."""
        return self.measure.errors(keys, self.clusters)

    def value(self, key: str) -> float:
        """Return a candidate's value."""
        return self.measure.value(key)


def metrics_of(suite: str, found: Sequence[Candidate], baseline: Candidate) -> list[Metric]:
    """Return the metrics of a suite, the primary one first, over the candidates that are not refused on it."""
    kept = [candidate for candidate in found if suite not in candidate.refused]
    reference = baseline.suite(suite)
    assert reference is not None
    by_name = {
        candidate.key: {entry["name"]: entry for entry in (candidate.suite(suite) or {})["metrics"]}
        for candidate in kept
    }
    made = []
    for entry in reference["metrics"]:
        able: list[Candidate] = []
        notes = [] if entry.get("qualified", True) else [f"{suite}/{entry['name']}: the judge has not qualified"]
        for candidate in kept:
            problem = _problem(entry, by_name[candidate.key].get(entry["name"]), candidate, baseline)
            if problem:
                notes.append(f"{candidate.key} has no part in {suite}/{entry['name']}: {problem}")
            else:
                able.append(candidate)
        table = [by_name[candidate.key][entry["name"]]["values"][candidate.policy] for candidate in able]
        places = [place for place, values in enumerate(zip(*table, strict=True)) if None not in values]
        if places:
            made.append(_metric(suite, entry, able, table, places, reference["clusters"], notes))
    return made


def _metric(
    suite: str,
    entry: dict[str, Any],
    able: Sequence[Candidate],
    table: Sequence[Sequence[Any]],
    places: Sequence[int],
    clusters: Sequence[int],
    notes: list[str],
) -> Metric:
    values = {
        candidate.key: [float(row[place]) for place in places] for candidate, row in zip(able, table, strict=True)
    }
    weights = entry["denominator"]
    measure = Measure(
        name=entry["name"], unit=entry["unit"], higher_is_better=entry["higher_is_better"], values=values,
        denominator=None if weights is None else [float(weights[place]) for place in places],
    )  # fmt: skip
    own = [clusters[place] for place in places]
    return Metric(suite=suite, measure=measure, clusters=own, left_out=len(clusters) - len(places), notes=notes)


def _problem(
    ours: dict[str, Any], theirs: dict[str, Any] | None, candidate: Candidate, baseline: Candidate
) -> str | None:
    """Return why a candidate's values of a metric cannot stand beside the baseline's, or None."""
    if theirs is None:
        return "its report does not have it"
    if ours.get("against") != theirs.get("against"):
        return "another judge, or one that compared it with other completions"
    if ours["denominator"] != theirs["denominator"] and _shared(ours, theirs):
        return "it counts the items' parts otherwise, as another tokenizer does"
    bases = [(entry.run.report or {})["provenance"]["base"] for entry in (candidate, baseline)]
    if ours["name"] == COMPLETION_TOKENS and bases[0] != bases[1]:
        return "another base model, whose tokens are not the same"
    return None


def _shared(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether denominators differ where both have one."""
    if ours["denominator"] is None or theirs["denominator"] is None:
        return True
    pairs = zip(ours["denominator"], theirs["denominator"], strict=True)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def rows_of(metric: Metric, baseline: Candidate, confidence: float) -> list[dict[str, Any]]:
    """Return the metric as rows like those of a report: every value, then every difference from the baseline."""
    keys, measure, suite = list(metric.measure.values), metric.measure, metric.suite
    rows = [metric_row(suite, measure, key, None, measure.absolute(key, metric.clusters, confidence)) for key in keys]
    if baseline.key in keys:
        rows += [
            metric_row(
                suite, measure, key, baseline.key,
                measure.difference(key, baseline.key, metric.clusters, confidence),
            )
            for key in keys
            if key != baseline.key
        ]  # fmt: skip
    return rows
