"""What the values of one parameter do, the others being what they are: of a whole grid by item, of a search by rank."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.comparison.measuring import Metric
from pipeline.pages.numbers import WINS, counted
from pipeline.statistics.importance import MIN_TRIALS, importances
from pipeline.statistics.intervals import Estimate, bounded_mean, paired_difference, paired_ratio_difference

MAX_LEVELS = 5
Parameters = Mapping[str, Mapping[str, Any]]  # parameter -> candidate's key -> value


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """A trial that was stopped because it was behind."""

    parameters: Mapping[str, Any]
    behind: int  # how many of the trials with a score had done better when they were where it was stopped


def importance_of(
    parameters: Parameters,
    scores: Mapping[str, float],
    pruned: Sequence[Pruned] = (),
    *,
    higher_is_better: bool = True,
) -> dict[str, Any]:
    """Return how much each parameter decides over the trials that have a score, or why nothing is claimed.

    Args:
        parameters: Of every candidate.
        scores: Candidate's key -> what it is ranked by.
        pruned: Trials that were stopped because they were behind by the same measure. Left out, they would hide what
            made them bad; each takes the place that it had when it was stopped, behind those that did better by then.
        higher_is_better: Whether more of the score is better.
    """
    keys, count = list(scores), len(scores) + len(pruned)
    settings = {
        name: [*(values.get(key) for key in keys), *(trial.parameters.get(name) for trial in pruned)]
        for name, values in parameters.items()
    }
    sign = -1.0 if higher_is_better else 1.0  # only ranks are looked at, and the least is then the best
    ordered = sorted(sign * score for score in scores.values())
    places = [(bisect_left(ordered, sign * score) + bisect_right(ordered, sign * score) - 1) / 2
              for score in scores.values()]  # fmt: skip
    results = [*places, *(trial.behind - 0.5 for trial in pruned)]
    found = importances(settings, [sign * place for place in results])
    if found:
        entries = [
            {"parameter": entry.name, "share": entry.share, "p": entry.p, "p_holm": entry.p_holm,
             "groups": entry.groups, "trend": entry.trend}
            for entry in found
        ]  # fmt: skip
        return {"trials": _trials(count, len(pruned)), "entries": entries, "reason": None}
    few = f"{_trials(count, len(pruned))}, and at least {MIN_TRIALS} are needed"
    reason = few if count < MIN_TRIALS else "no parameter varies in a useful way"
    return {"trials": _trials(count, len(pruned)), "entries": [], "reason": reason}


def _trials(count: int, pruned: int) -> str:
    aside = f" ({pruned:,} of them pruned, each where it was when it was stopped)" if pruned else ""
    return f"{counted(count, 'trial')}{aside}"


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
