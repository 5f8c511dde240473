"""Which of three or more policies is the best, by how much over the second, and whether that is decided.

The best of several looks better than it is, and so does its lead. The intervals here hold for the differences of all
pairs and all metrics together (`statistics.selection`), so that they hold for the pair that was picked. A policy may
still be the best where the interval of its distance from the leader holds zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pipeline.evaluation.joining import JoinedSuite
from pipeline.evaluation.measures import Measure, metric_row
from pipeline.pages.numbers import counted, metric_subject, metric_text
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.selection import max_t_quantile, widened

MIN_POLICIES = 3  # of two the comparison with the baseline says it all
MIN_CLUSTERS = 2
BEST, MIXED, UNDECIDED = "best", "mixed", "undecided"


def standing(asked: Sequence[tuple[JoinedSuite, Measure]], confidence: float) -> dict[str, Any] | None:
    """Return who leads on each metric, and what that comes to; None with two policies or nothing to go by.

    Args:
        asked: What the policies are ordered by; each metric has a direction.
        confidence: With which all intervals hold together.
    """
    number = len(asked[0][0].policies) if asked else 0
    if number < MIN_POLICIES:
        return None
    leads = [_lead(suite, measure, confidence, len(asked)) for suite, measure in asked]
    sure = [lead for lead in leads if len(lead["may_be_best"]) == 1]
    decided = {lead["policy"] for lead in sure}
    possible = set.intersection(*(set(lead["may_be_best"]) for lead in leads))
    leaders = list(dict.fromkeys(lead["policy"] for lead in leads))
    if len(sure) == len(leads) and len(leaders) == 1:
        verdict, text = BEST, f"{leaders[0]} is the best of {number} policies"
    elif not possible:
        verdict, text = MIXED, f"no policy of {number} can be the best on every metric"
    elif decided:
        (first,) = decided
        told = f"{first} is the best of {number} policies on {len(sure)} of {len(leads)} metrics"
        verdict, text = UNDECIDED, f"{told}, and may be the best on the others"
    elif len(leaders) == 1:
        rivals = [policy for policy in leads[0]["order"] if policy in possible - {leaders[0]}]
        doubt = f"{_listed(rivals)} may be the best as well" if rivals else "on each metric another one may be better"
        verdict, text = UNDECIDED, f"{leaders[0]} leads {number} policies, but {doubt}"
    else:
        verdict, text = UNDECIDED, f"which of {number} policies is the best is not decided"
    return {
        "verdict": verdict,
        "policy": leaders[0] if verdict == BEST else None,
        "text": text,
        "sentences": [_sentence(lead) for lead in leads],
        "leads": leads,
    }


def _lead(suite: JoinedSuite, measure: Measure, confidence: float, num_metrics: int) -> dict[str, Any]:
    """Return the leader's difference from the second as a metric's row, the order, and who may be the best."""
    clusters, sign = suite.clusters, -1.0 if measure.higher_is_better is False else 1.0
    order = sorted(measure.values, key=lambda policy: -sign * measure.value(policy))  # stable: the baseline comes first
    best, *others = order
    quantile = None
    if len(set(clusters)) >= MIN_CLUSTERS:
        errors = measure.errors(order, clusters)
        first, second = (list(side) for side in zip(*combinations(range(len(order)), 2), strict=True))
        together = 1 - (1 - confidence) / num_metrics
        quantile = max_t_quantile(errors[:, first] - errors[:, second], confidence=together)
    distances = {
        policy: _corrected(measure.difference(best, policy, clusters, confidence), quantile, confidence)
        for policy in others
    }
    behind = [
        policy
        for policy, (low, high, _) in distances.items()
        if low is not None and high is not None and not low <= 0 <= high
    ]
    low, high, value = distances[others[0]]
    method = f"{value.method}; of all pairs of {len(order)} policies"
    method += f" and {num_metrics} metrics together" if num_metrics > 1 else " together"
    return {
        **metric_row(suite.name, measure, best, others[0], value),
        "low": low,
        "high": high,
        "method": method,
        "order": order,
        "may_be_best": [policy for policy in order if policy not in behind],
    }


def _corrected(
    value: Estimate, quantile: float | None, confidence: float
) -> tuple[float, float, Estimate] | tuple[None, None, Estimate]:
    if quantile is None or value.low is None or value.high is None:
        return None, None, value
    return *widened(value.low, value.high, quantile, value.clusters, confidence), value


def _sentence(lead: Mapping[str, Any]) -> str:
    """Write one metric's lead with the interval that allows for the choice."""
    possible = lead["may_be_best"]
    left = "no other may be the best" if len(possible) == 1 else f"{_listed(possible)} may be the best"
    where = f"on {metric_subject(lead)}, {counted(lead['n'], 'item')}"
    if lead["estimate"] == 0:
        return f"{lead['policy']} and {lead['baseline']} are level {where}: {left}."
    return (
        f"{lead['policy']} leads {lead['baseline']}, the second, by {metric_text(lead)} {where}, "
        f"allowing for the choice: {left}."
    )


def _listed(names: Sequence[str]) -> str:
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
