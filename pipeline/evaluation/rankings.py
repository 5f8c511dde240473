"""One scale for several policies: Bradley and Terry's ratings from all pairs of a judge, with style taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.checks.layout import count_markup
from pipeline.config.evaluation import EvaluateConfig
from pipeline.evaluation.judged import ComparedPair, is_qualified
from pipeline.evaluation.samples import GenerationSample
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.ratings import policy_ratings, style_differences

MIN_POLICIES = 3  # of two the win rate says it all
DRAWS = 400  # each fits all comparisons; the third digit of an interval is not what policies are ranked by
STYLES = ("length", "headings", "list items", "highlights")


def policy_rankings(
    pairs: Sequence[ComparedPair], judges: Sequence[Mapping[str, Any]], evaluate: EvaluateConfig
) -> list[dict[str, Any]]:
    """Return, per suite and judge, the rating of each policy and what style counts with the judge.

    A judge whose verdicts are too often missing ranks nobody, as it has no win rates either. Features of style that
    never differ are left out.

    Args:
        pairs: What judges said of every two policies.
        judges: Entries of `judge_entries`.
        evaluate: The confidence of the intervals, and how many verdicts may be missing.
    """
    found = []
    for suite, judge in dict.fromkeys((pair.suite, pair.judge) for pair in pairs):
        own = [pair for pair in pairs if (pair.suite, pair.judge) == (suite, judge)]
        policies = list(dict.fromkeys(name for pair in own for name in (pair.opponent, pair.policy)))
        outcomes = [outcome for pair in own for outcome in pair.outcomes]
        missing = sum(outcome.win is None for outcome in outcomes)
        if len(policies) < MIN_POLICIES or missing > evaluate.qualification.max_failure_rate * len(outcomes):
            continue
        found.append(
            {
                "suite": suite,
                "judge": judge,
                "qualified": is_qualified(judges, judge, suite),
                **_ranking(own, policies, evaluate.confidence),
            }
        )
    return found


def _ranking(pairs: Sequence[ComparedPair], policies: Sequence[str], confidence: float) -> dict[str, Any]:
    """Fit all comparisons of one judge on one suite at once; items are drawn whole, with all their pairs."""
    first, second, wins, clusters = [], [], [], []
    looks: tuple[list[list[float]], list[list[float]]] = ([], [])
    for pair in pairs:
        own, others = _looks(pair.own), _looks(pair.others)
        for outcome in pair.outcomes:
            if outcome.win is None:
                continue
            first.append(policies.index(pair.policy))
            second.append(policies.index(pair.opponent))
            wins.append(outcome.win)
            clusters.append(outcome.cluster)
            looks[0].append(own[outcome.id])
            looks[1].append(others[outcome.id])
    shape = (len(wins), len(STYLES))
    styles = style_differences(*(np.array(side, dtype=np.float64).reshape(shape) for side in looks))
    kept = [column for column in range(len(STYLES)) if styles[:, column].any()]
    ratings = policy_ratings(
        first, second, wins, clusters,
        num_policies=len(policies), styles=styles[:, kept], confidence=confidence, draws=DRAWS,
    )  # fmt: skip
    rated = [{"policy": name, **_entry(value)} for name, value in zip(policies, ratings.policies, strict=True)]
    return {
        "n": len(wins),
        "clusters": len(set(clusters)),
        "method": ratings.policies[0].method,
        "policies": sorted(rated, key=lambda entry: -(entry["estimate"] or 0.0)),
        "styles": [
            {"style": STYLES[column], **_entry(value)} for column, value in zip(kept, ratings.styles, strict=True)
        ],
    }


def _looks(rows: Sequence[GenerationSample]) -> dict[str, list[float]]:
    """Return the features of style of each completion, in the order of `STYLES`."""
    return {row.id: [float(len(row.completion)), *map(float, count_markup(row.completion))] for row in rows}


def _entry(value: Estimate) -> dict[str, float | None]:
    return {"estimate": value.estimate, "low": value.low, "high": value.high}
