"""How judges rate the completions of each policy by the criteria of a suite, and the paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.evaluation import EvaluateConfig, SuiteConfig
from pipeline.evaluation.paired_tests import UNTESTED, Chance, exact_test
from pipeline.evaluation.verdicts import VerdictRow
from pipeline.statistics.intervals import Estimate, mean_interval, paired_difference

RATING = "rating"  # from 1, the worst, to 5


@dataclass(frozen=True, kw_only=True)
class RatedPolicy:
    """The ratings of one policy on one suite by one judge."""

    judge: str
    suite: str
    policy: str
    rows: Sequence[VerdictRow]


def rating_entries(
    rated: Sequence[RatedPolicy], suites: Mapping[str, SuiteConfig], evaluate: EvaluateConfig
) -> list[dict[str, Any]]:
    """Return metrics named ``<criterion>/<judge>``: means per policy, and differences from the baseline.

    They are over items that were rated for every policy. Where more than the permitted share of the items that were
    asked about is missing there is no estimate, as with win rates.
    """
    entries: list[dict[str, Any]] = []
    for suite, judge in dict.fromkeys((entry.suite, entry.judge) for entry in rated):
        own = [entry for entry in rated if (entry.suite, entry.judge) == (suite, judge)]
        own.sort(key=lambda entry: entry.policy != evaluate.baseline)  # stable: the others keep their order
        for criterion in suites[suite].rubric:
            by_policy = {entry.policy: _of(entry.rows, criterion.name) for entry in own}
            common = {"suite": suite, "metric": f"{criterion.name}/{judge}", "higher_is_better": True, "unit": RATING}
            for policy, baseline, value, chance in _estimates(by_policy, evaluate):
                numbers = {
                    name: getattr(value, name) for name in ("estimate", "low", "high", "n", "clusters", "method")
                }
                entries.append({**common, "policy": policy, "baseline": baseline, **numbers, **chance})
    return entries


def _of(rows: Sequence[VerdictRow], criterion: str) -> dict[str, VerdictRow]:
    return {row.id: row for row in rows if row.criterion == criterion}


def _estimates(
    by_policy: Mapping[str, Mapping[str, VerdictRow]], evaluate: EvaluateConfig
) -> list[tuple[str, str | None, Estimate, Chance]]:
    """Return (policy, baseline or None, value, test) of one criterion; the first policy is the baseline."""
    baseline, *others = by_policy
    asked = sorted(set.intersection(*(set(rows) for rows in by_policy.values())))
    items = [item for item in asked if all(rows[item].score is not None for rows in by_policy.values())]
    clusters = [by_policy[baseline][item].cluster for item in items]
    missing = len(asked) - len(items)
    if missing > evaluate.qualification.max_failure_rate * len(asked):
        reason = f"{missing} of {len(asked)} items have no rating of every policy"
        unknown = Estimate.unknown(None, len(items), len(set(clusters)), reason)
        compared: list[tuple[str, str | None]] = [(policy, None) for policy in by_policy]
        compared += [(policy, baseline) for policy in others]
        return [(policy, other, unknown, UNTESTED) for policy, other in compared]
    scores = {policy: [rows[item].score or 0.0 for item in items] for policy, rows in by_policy.items()}
    level = evaluate.confidence
    rows: list[tuple[str, str | None, Estimate, Chance]] = [
        (policy, None, mean_interval(scores[policy], clusters, level), UNTESTED) for policy in by_policy
    ]
    for policy in others:
        gaps = [own - base for own, base in zip(scores[policy], scores[baseline], strict=True)]
        value = paired_difference(scores[policy], scores[baseline], clusters, level)
        rows.append((policy, baseline, value, exact_test(gaps, clusters)))
    return rows
