"""Shares that tell whether votes can be trusted: agreement, known answers, and preferences for a place or for length.

Every share has an interval whose bounds each hold with the given confidence, clustered by item, since the pairs of one
ranking and the completions of one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.labels.verdicts import Codes, Verdicts
from pipeline.labels.votes import Item
from pipeline.statistics.intervals import Estimate, proportion_interval

Flags = npt.NDArray[np.bool_]


def interval_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    """Return an estimate with its bounds, or None where nothing was measured."""
    if estimate is None:
        return None
    return {"estimate": estimate.estimate, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def two_sided(confidence: float) -> float:
    """Return the confidence of an interval each of whose bounds alone holds with ``confidence``."""
    return 2 * confidence - 1


def share(passed: Flags, items: Codes, confidence: float) -> Estimate | None:
    """Return the share of entries that pass, clustered by item, or None where there are none."""
    if not len(passed):
        return None
    return proportion_interval(passed.tolist(), items.tolist(), two_sided(confidence))


def shares_by_annotator(
    passed: Flags, measured: Flags, annotators: Codes, items: Codes, confidence: float
) -> dict[int, Estimate]:
    """Return each annotator's share of the measured entries that pass; entries without an annotator have -1."""
    entries = np.flatnonzero(measured & (annotators >= 0))
    entries = entries[np.argsort(annotators[entries], kind="stable")]
    numbers, starts = np.unique(annotators[entries], return_index=True)
    found = {}
    for number, part in zip(numbers.tolist(), np.split(entries, starts[1:]), strict=True) if len(numbers) else ():
        estimate = share(passed[part], items[part], confidence)
        if estimate is not None:
            found[number] = estimate
    return found


def agreement_with_others(verdicts: Verdicts, annotators: Codes, questions: Codes) -> tuple[Flags, Flags]:
    """Return which entries agree with the majority of everybody else on the pair and question, and which have one.

    Ties are left out on both sides. An annotator who judged the pair twice is nobody else.
    """
    if not len(verdicts.pair):
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    pair = verdicts.pair * (int(questions.max()) + 1) + questions
    # Nobody without a name is anybody else's double, so each is an annotator of its own.
    who = np.where(annotators >= 0, annotators, int(annotators.max(initial=-1)) + 1 + verdicts.vote)
    _, group = np.unique(pair, return_inverse=True)
    _, own = np.unique(np.stack([group, who]), axis=1, return_inverse=True)
    others = np.bincount(group, weights=verdicts.outcome)[group] - np.bincount(own, weights=verdicts.outcome)[own]
    measured = (verdicts.outcome != 0) & (others != 0)
    return np.sign(others) == verdicts.outcome, measured


def matches_gold(verdicts: Verdicts, gold: Verdicts) -> tuple[Flags, Flags]:
    """Return which entries are the known answer to the pair and question, and which have one.

    Known answers that contradict each other are none.
    """
    answers: dict[tuple[str, str, str, str], set[int]] = {}
    for number, vote, outcome in zip(gold.pair.tolist(), gold.vote.tolist(), gold.outcome.tolist(), strict=True):
        answers.setdefault((*gold.pairs[number], gold.votes[vote].question), set()).add(outcome)
    passed, measured = np.zeros(len(verdicts.pair), dtype=bool), np.zeros(len(verdicts.pair), dtype=bool)
    if not answers:
        return passed, measured
    for entry, (number, vote) in enumerate(zip(verdicts.pair.tolist(), verdicts.vote.tolist(), strict=True)):
        answer = answers.get((*verdicts.pairs[number], verdicts.votes[vote].question), set())
        if len(answer) == 1:
            measured[entry], passed[entry] = True, int(verdicts.outcome[entry]) in answer
    return passed, measured


def preferred_sides(verdicts: Verdicts, items: Mapping[str, Item]) -> tuple[Codes, Codes]:
    """Return by position and by length of each entry's sides which was preferred.

    1 is the side shown first, or the longer one; -1 is the other; 0 where there is no such side, or a tie.
    """
    lengths: dict[tuple[str, str], int] = {}

    def length(item: str, candidate: str) -> int:
        if (item, candidate) not in lengths:
            turns = items[item].candidates[candidate].messages
            lengths[item, candidate] = sum(len(turn["content"]) for turn in turns)
        return lengths[item, candidate]

    longer = [length(pair.item, pair.first) - length(pair.item, pair.second) for pair in verdicts.pairs]
    sides = np.sign(np.array(longer, dtype=np.intp))
    return verdicts.shown * verdicts.outcome, sides[verdicts.pair] * verdicts.outcome
