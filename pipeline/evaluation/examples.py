"""Which items a report shows side by side: the worst regressions, the largest improvements and some unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pipeline.config.evaluation import EvaluateConfig
from pipeline.evaluation.joining import JoinedSuite
from pipeline.evaluation.judged import JudgedWins
from pipeline.evaluation.measures import Measure
from pipeline.evaluation.metric_names import ALL_CHECKS, COMPLETION_TOKENS, FINISHED
from pipeline.evaluation.samples import GenerationSample, LikelihoodSample

IMPROVED, REGRESSED, UNCHANGED = "improved", "regressed", "unchanged"


def choose_examples(
    suite: JoinedSuite, measures: Sequence[Measure], evaluate: EvaluateConfig, wins: Sequence[JudgedWins] = ()
) -> list[dict[str, Any]]:
    """Return the worst regressions, then improvements and unchanged items in turn.

    The change of an item is that of the newest policy, the last one: the number of checks passed more than the
    baseline's of a generation suite, the bits per byte saved of a likelihood suite. On a suite without checks it is
    what a judge says, a win of the newest policy over the baseline less one half: the first judge that has qualified,
    else the first one; an item without a verdict has not changed. Equal changes are ordered by a hash of the id, so
    that the choice is the same every time and prefers no topic.
    """
    judged = None if _checks(measures) else _judge(suite, wins)
    changes = _changes(suite, measures) if judged is None else _judged_changes(suite, judged)
    ids = [row.id for row in suite.rows[suite.policies[0]]]
    order = sorted(range(len(ids)), key=lambda index: (-abs(changes[index]), _hash(ids[index])))
    others = {
        IMPROVED: [index for index in order if changes[index] > 0],
        UNCHANGED: [index for index in order if changes[index] == 0],
    }
    regressed = [index for index in order if changes[index] < 0][: evaluate.num_regressions]
    chosen = {REGRESSED: regressed, **_spread(others, evaluate.num_examples)}
    return [
        {**_item(suite, measures, index), "change": change, "change_size": changes[index]}
        for change, indices in chosen.items()
        for index in indices
    ]


def _spread(groups: dict[str, list[int]], total: int) -> dict[str, list[int]]:
    """Take from the groups in turn until enough items are chosen or none is left."""
    chosen: dict[str, list[int]] = {name: [] for name in groups}
    remaining = {name: list(indices) for name, indices in groups.items()}
    while total > 0 and any(remaining.values()):
        for name, indices in remaining.items():
            if indices and total > 0:
                chosen[name].append(indices.pop(0))
                total -= 1
    return chosen


def _changes(suite: JoinedSuite, measures: Sequence[Measure]) -> list[float]:
    """Return the change of each item by the newest policy; above zero is better."""
    baseline, newest = suite.policies[0], suite.policies[-1]
    changes = [0.0] * len(suite.rows[baseline])
    for measure in _compared(measures):
        sign = 1.0 if measure.higher_is_better else -1.0
        for index, (value, base) in enumerate(zip(measure.values[newest], measure.values[baseline], strict=True)):
            weight = measure.denominator[index] if measure.denominator else 1.0
            changes[index] += sign * (value - base) / weight
    return changes


def _judge(suite: JoinedSuite, wins: Sequence[JudgedWins]) -> JudgedWins | None:
    """Return who tells a better answer of the newest policy from a worse one; None where nobody was asked."""
    own = [entry for entry in wins if entry.suite == suite.name and suite.policies[-1] in entry.wins]
    return min(own, key=lambda entry: not entry.qualified, default=None)  # the first of equals


def _judged_changes(suite: JoinedSuite, judged: JudgedWins) -> list[float]:
    newest = suite.policies[-1]
    return [judged.wins[newest].get(row.id, 0.5) - 0.5 for row in suite.rows[newest]]


def _compared(measures: Sequence[Measure]) -> list[Measure]:
    """Return what the change of an item is counted in: its checks, else whether it finished; or bits per byte."""
    checks = _checks(measures)
    if checks:
        return checks
    return [measure for measure in measures if measure.name == FINISHED] or [measures[0]]


def _checks(measures: Sequence[Measure]) -> list[Measure]:
    return [entry for entry in measures if entry.name not in (ALL_CHECKS, FINISHED, COMPLETION_TOKENS)
            and entry.unit == "share" and entry.denominator is None]  # fmt: skip


def _item(suite: JoinedSuite, measures: Sequence[Measure], index: int) -> dict[str, Any]:
    first = suite.rows[suite.policies[0]][index]
    likelihood = isinstance(first, LikelihoodSample)
    return {
        "suite": suite.name,
        "id": first.id,
        "topic": first.topic,
        "prompt": first.prompt,
        "reference": None if likelihood else first.reference,
        "target": first.completion if likelihood else None,
        "answers": [
            _scored(suite, measures, policy, index) if likelihood else _generated(suite, measures, policy, index)
            for policy in suite.policies
        ],
    }


def _generated(suite: JoinedSuite, measures: Sequence[Measure], policy: str, index: int) -> dict[str, Any]:
    row = suite.rows[policy][index]
    generated = row if isinstance(row, GenerationSample) else None
    return {
        "policy": policy,
        "completion": row.completion,
        "finish_reason": generated.finish_reason if generated else None,
        "num_tokens": generated.num_tokens if generated else None,
        "checks": [{"name": entry.name, "passed": entry.values[policy][index] == 1} for entry in _checks(measures)],
    }


def _scored(suite: JoinedSuite, measures: Sequence[Measure], policy: str, index: int) -> dict[str, Any]:
    scores = {
        entry.name: entry.values[policy][index] / entry.denominator[index] for entry in measures if entry.denominator
    }
    return {"policy": policy, **scores}


def _hash(identifier: str) -> str:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()
