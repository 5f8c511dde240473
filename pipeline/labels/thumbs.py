"""From judgements of single completions to completions that are good or bad, each with a confidence.

A thumb is a judgement on the scale `thumbs`, or a rating where `ingest.min_good_rating` and `ingest.max_bad_rating` say
from when on a rating is good and bad; what lies between is neither. A vote on several completions is one judgement of
each. The same vote may also say which of two completions is better: what it says of pairs and what it says of each by
itself are two accounts, and each adds up.

`confidence` is the probability of the likelier label plus half that of neither, by `majority` or `dawid_skene` as for
pairs; `bradley_terry` compares, and nothing is compared here, so that it counts votes. At exactly one half the
completion is undecided. Ties are dropped or count half; a single completion has no third label.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.config.ingest import Aggregation, IngestConfig, Ties
from pipeline.data.rows import Reason, Unpaired
from pipeline.labels.probabilities import UNDECIDED
from pipeline.labels.verdicts import Vector
from pipeline.labels.votes import Item, Scale, Vote, says_nothing
from pipeline.statistics.dawid_skene import dawid_skene

GOOD, NEITHER, BAD = 1, 0, -1


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregatedThumb:
    """A completion and its label, and whether its prompt is protected, so that it may only be tested on."""

    row: Unpaired
    protected: bool


@dataclass(kw_only=True)
class Thumbs:
    """What the votes say of completions by themselves.

    ``votes`` and ``completions`` each have a first entry that the others add up to; both are empty without a thumb.
    """

    rows: list[AggregatedThumb] = field(default_factory=list)
    votes: dict[str, int] = field(default_factory=dict)
    completions: dict[str, int] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


class _Judgement(NamedTuple):
    """What one vote says of one completion."""

    completion: tuple[str, str]  # item, candidate
    vote: int
    label: int


def aggregate_thumbs(items: Mapping[str, Item], votes: Sequence[Vote], config: IngestConfig) -> Thumbs:
    """Return the labelled completions that votes amount to.

    Args:
        items: What was judged, by id.
        votes: Those that count; the others were left out before.
        config: How they are aggregated.
    """
    judgements, fates = _read(votes, config)
    if not judgements and not fates["no_verdict"]:
        return Thumbs()
    counted = [found for found in judgements if found.label != NEITHER or config.ties is not Ties.drop]
    kept, read = {found.vote for found in counted}, {found.vote for found in judgements}
    thumbs = Thumbs(votes={"given": len(votes), "counted": len(kept), "neither_dropped": len(read - kept), **fates})
    places: dict[tuple[str, str], int] = {}
    for found in judgements:
        places.setdefault(found.completion, len(places))
    good, num_votes = _good(counted, places, votes, config.aggregation)
    fate: Counter[str] = Counter(dict.fromkeys(("empty", "too_few_votes", "undecided", "unpaired"), 0))
    for (item, candidate), place in places.items():
        if says_nothing(items[item].candidates[candidate].messages):
            fate["empty"] += 1
            thumbs.problems.append(_empty_problem(item, candidate))
        elif num_votes[place] < config.min_votes:
            fate["too_few_votes"] += 1
        elif abs(good[place] - 0.5) <= UNDECIDED:
            fate["undecided"] += 1
        else:
            fate["unpaired"] += 1
            row = _row(items[item], candidate, float(good[place]), int(num_votes[place]))
            thumbs.rows.append(AggregatedThumb(row=row, protected=items[item].protected))
    thumbs.completions = {"judged": len(places), **fate}
    return thumbs


def _read(votes: Sequence[Vote], config: IngestConfig) -> tuple[list[_Judgement], dict[str, int]]:
    """Return the judgements of single completions, and how many votes hold none."""
    fates = {"other_scale": 0, "no_verdict": 0}
    judgements = []
    for number, vote in enumerate(votes):
        if vote.scale is not Scale.thumbs and (vote.scale is not Scale.rating or config.min_good_rating is None):
            fates["other_scale"] += 1
            continue
        given = [
            _Judgement((vote.item, candidate), number, _label(vote.scale, rating, config))
            for candidate, rating in zip(vote.candidates, vote.ratings or (), strict=False)
            if rating is not None
        ]
        fates["no_verdict"] += not given
        judgements += given
    return judgements, fates


def _label(scale: Scale, rating: float, config: IngestConfig) -> int:
    if scale is Scale.thumbs:
        return GOOD if rating == 1 else BAD
    if config.min_good_rating is not None and rating >= config.min_good_rating:
        return GOOD
    return BAD if config.max_bad_rating is not None and rating <= config.max_bad_rating else NEITHER


def _good(
    judgements: Sequence[_Judgement], places: Mapping[tuple[str, str], int], votes: Sequence[Vote], method: Aggregation
) -> tuple[Vector, Vector]:
    """Return each completion's probability to be good, neither counting half, and its number of votes."""
    units = np.array([places[found.completion] for found in judgements], dtype=np.intp)
    labels = np.array([found.label for found in judgements], dtype=np.intp)
    num_votes = np.bincount(units, minlength=len(places)).astype(np.float64)
    if method is not Aggregation.dawid_skene or not len(units):
        sums = np.bincount(units, weights=(labels + 1) / 2, minlength=len(places))
        return np.divide(sums, num_votes, out=np.full(len(places), 0.5), where=num_votes > 0), num_votes
    names = {votes[found.vote].annotator or "" for found in judgements}
    numbers = {name: number for number, name in enumerate(sorted(names))}
    people = np.array([numbers[votes[found.vote].annotator or ""] for found in judgements], dtype=np.intp)
    judged, own = np.unique(units, return_inverse=True)
    with_neither = bool((labels == NEITHER).any())
    fit = dawid_skene(
        own, people, 1 - labels if with_neither else (1 - labels) // 2, num_classes=3 if with_neither else 2
    )
    good = np.full(len(places), 0.5)
    good[judged] = fit.posterior[:, 0] + (fit.posterior[:, 1] / 2 if with_neither else 0)
    return good, num_votes


def _row(item: Item, candidate: str, good: float, num_votes: int) -> Unpaired:
    return Unpaired(
        id=hashlib.sha256(f"{item.id}\n{candidate}".encode()).hexdigest()[:16],
        source=item.source,
        licence=item.licence,
        prompt=item.prompt,
        completion=item.candidates[candidate].messages,
        label=good > 0.5,
        confidence=min(1.0, max(good, 1 - good)),
        num_votes=num_votes,
        topic=item.topic,
    )


def _empty_problem(item: str, candidate: str) -> dict[str, Any]:
    return {
        "reason": str(Reason.empty),
        "item": item,
        "candidates": [candidate],
        "detail": "the completion has no visible text; its votes still count for the annotators",
    }
