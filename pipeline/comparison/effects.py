"""What the values of one parameter do, the others being what they are: of a whole grid by item, of a search by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.comparison.measuring import Metric
from pipeline.pages.numbers import WINS
from pipeline.statistics.importance import MIN_TRIALS, importances
from pipeline.statistics.intervals import Estimate, bounded_mean, paired_difference, paired_ratio_difference

MAX_LEVELS = 5
Parameters = Mapping[str, Mapping[str, Any]]  # parameter -> candidate's key -> value


def importance_of(parameters: Parameters, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return how much each parameter decides over the trials that have a score, or why nothing is claimed."""
    keys = list(scores)
    found = importances(
        {name: [values.get(key) for key in keys] for name, values in parameters.items()}, [scores[key] for key in keys]
    )
    if found:
        entries = [
            {"parameter": entry.name, "share": entry.share, "p": entry.p, "p_holm": entry.p_holm,
             "groups": entry.groups, "trend": entry.trend}
            for entry in found
        ]  # fmt: skip
        return {"trials": len(keys), "entries": entries, "reason": None}
    few = len(keys) < MIN_TRIALS
    reason = (
        f"{len(keys)} trials, and at least {MIN_TRIALS} are needed" if few else "no parameter varies in a useful way"
    )
    return {"trials": len(keys), "entries": [], "reason": reason}


def level_effects(
    parameters: Parameters, keys: Sequence[str], metric: Metric, confidence: float
) -> list[dict[str, Any]]:
    """Return per parameter of a whole grid what each of its values does against the first, averaged over the others.

    The difference is taken item by item, so that the interval is about the items; how much the same training varies
    with its seed is no part of it. A parameter whose values did not all meet the same others is left out.
    """
    rows = []
    for name, values in parameters.items():
        others = [other for other in parameters if other != name]
        groups: dict[str, dict[tuple[str, ...], str]] = {}
        for key in keys:
            rest = tuple(repr(parameters[other].get(key)) for other in others)
            groups.setdefault(repr(values.get(key)), {})[rest] = key
        whole = sum(len(group) for group in groups.values()) == len(keys)
        met = {frozenset(group) for group in groups.values()}
        if not (whole and len(met) == 1 and 1 < len(groups) <= MAX_LEVELS):
            continue
        levels = [(values.get(next(iter(group.values()))), list(group.values())) for group in groups.values()]
        first, *later = sorted(levels, key=_order)
        for level, members in later:
            value = _difference(members, first[1], metric, confidence)
            rows.append(
                {
                    "parameter": name, "level": level, "against": first[0], "runs": [len(members), len(first[1])],
                    "suite": metric.suite, "metric": metric.name, "policy": f"{level} against {first[0]}",
                    "baseline": str(first[0]), "n": value.n, "clusters": value.clusters, "estimate": value.estimate,
                    "low": value.low, "high": value.high, "method": value.method,
                    "higher_is_better": metric.measure.higher_is_better, "unit": metric.measure.unit,
                }
            )  # fmt: skip
    return rows


def _difference(ours: Sequence[str], theirs: Sequence[str], metric: Metric, confidence: float) -> Estimate:
    """Return the paired difference of the means over two groups of candidates."""
    values, weights = metric.measure.values, metric.measure.denominator
    first, second = (np.mean([values[key] for key in group], axis=0) for group in (ours, theirs))
    if weights is not None:
        return paired_ratio_difference(list(first), list(second), weights, metric.clusters, confidence)
    if metric.measure.unit in ("share", WINS):
        return bounded_mean(first - second, metric.clusters, confidence)
    return paired_difference(list(first), list(second), metric.clusters, confidence)


def _order(level: tuple[Any, Sequence[str]]) -> tuple[bool, float, str]:
    """Order numbers by size and put everything else behind them by name."""
    number = isinstance(level[0], int | float) and not isinstance(level[0], bool)
    return (not number, float(level[0]) if number else 0.0, str(level[0]))
