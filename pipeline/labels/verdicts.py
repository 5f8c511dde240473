"""What votes of any scale say about pairs: which of two completions is better, or neither.

A pairwise vote is one pair. An order or ratings of n completions are the pairs of those that were placed, which weigh
one together, so that one judgement counts once. Ratings that one annotator gave to completions of a prompt one at a
time are read together; nobody compared completions that different annotators rated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.config.ingest import IngestConfig
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError
from pipeline.labels.votes import Scale, Vote

ROUNDING = 1e-9  # ratings such as 4.1 and 4.0 differ by slightly less than a tenth

Codes = npt.NDArray[np.intp]
Vector = npt.NDArray[np.float64]


class Fate(StrEnum):
    """What became of a vote in terms of pairs."""

    counted = "counted"
    single_candidate = "single_candidate"  # one completion alone: it says nothing of pairs (see `thumbs`)
    no_verdict = "no_verdict"  # fewer than two completions were placed or rated
    same_pair = "same_pair"  # completions that say the same


class Pair(NamedTuple):
    """Two candidates of an item, in order of id."""

    item: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """What votes say about pairs, in columns: one entry for each pair of each vote."""

    votes: Sequence[Vote]
    fates: list[Fate]  # of each vote
    read_as: Codes  # of each vote the index under which it was read: its own, or of ratings read together the first
    pairs: list[Pair]
    same_pairs: dict[Pair, list[str]]  # pairs of a candidate with itself, and the ids of the votes on them
    pair: Codes  # [V] index into `pairs`
    vote: Codes  # [V] index into `votes`
    outcome: Codes  # [V] 1: the pair's first candidate is better, -1: its second, 0: neither
    weight: Vector  # [V] those of one judgement sum to one
    gap: Vector  # [V] by how much the first is better, in the unit of the vote; NaN where nobody said
    shown: Codes  # [V] 1: the pair's first candidate was shown first, -1: its second, 0: unknown

    def of_votes(self, codes: Codes) -> Codes:
        """Return what stands for the vote of each entry in ``codes``, which has one number per vote."""
        return codes[self.vote]


class _Ballot(NamedTuple):
    """One judgement on several candidates."""

    vote: int
    candidates: tuple[str, ...]
    places: tuple[float | None, ...]  # the higher the better; None is not placed
    has_units: bool  # whether the difference of two places is an amount
    strength: float | None
    positions: tuple[int, ...] | None


class _Entry(NamedTuple):
    """What one vote says about one pair; the fields are those of ``Verdicts``."""

    pair: int
    vote: int
    outcome: int
    weight: float
    gap: float
    shown: int


def select_questions(votes: Sequence[Vote], config: IngestConfig) -> list[Vote]:
    """Return the votes on the questions that the configuration names, or all of them where it names none.

    Raises:
        ConfigError: A named question was never asked.
    """
    asked = {vote.question for vote in votes}
    for question in config.questions:
        if question not in asked:
            known = ", ".join(f"`{name}`" for name in sorted(asked)) or "none, because there are no votes"
            raise ConfigError(
                f"ingest.questions: no vote answers `{question}`.{near_miss(question, asked)} Questions: {known}."
            )
    return [vote for vote in votes if not config.questions or vote.question in config.questions]


def read_verdicts(votes: Sequence[Vote], *, min_rating_gap: float) -> Verdicts:
    """Return what ``votes`` say about pairs.

    Args:
        votes: Judgements; whether they count was decided before.
        min_rating_gap: Two ratings that differ by less are a tie, as equal ones always are.
    """
    fates = [Fate.counted] * len(votes)
    read_as = np.arange(len(votes))
    numbers: dict[Pair, int] = {}
    same_pairs: dict[Pair, list[str]] = {}
    entries: list[_Entry] = []
    for ballot in _ballots(votes, fates, read_as):
        item = votes[ballot.vote].item
        found: list[tuple[int, int, Pair]] = []
        for i, j in combinations(range(len(ballot.candidates)), 2):
            if ballot.places[i] is None or ballot.places[j] is None:
                continue
            first, second = (i, j) if ballot.candidates[i] <= ballot.candidates[j] else (j, i)
            pair = Pair(item, ballot.candidates[first], ballot.candidates[second])
            if pair.first == pair.second:
                same_pairs.setdefault(pair, []).append(votes[ballot.vote].id)
                fates[ballot.vote] = Fate.same_pair
            else:
                found.append((first, second, pair))
        for first, second, pair in found:
            number = numbers.setdefault(pair, len(numbers))
            outcome, gap = _compare(ballot, first, second, min_rating_gap)
            shown = _sign(ballot.positions[second] - ballot.positions[first]) if ballot.positions else 0
            entries.append(_Entry(number, ballot.vote, outcome, 1 / len(found), gap, shown))
        if found:
            fates[ballot.vote] = Fate.counted
        elif fates[ballot.vote] is not Fate.same_pair:
            fates[ballot.vote] = Fate.no_verdict
    columns = _Entry(*zip(*entries, strict=True)) if entries else _Entry(*((),) * 6)  # type: ignore[arg-type]
    return Verdicts(
        votes=votes,
        fates=fates,
        read_as=read_as,
        pairs=list(numbers),
        same_pairs=same_pairs,
        pair=np.asarray(columns.pair, dtype=np.intp),
        vote=np.asarray(columns.vote, dtype=np.intp),
        outcome=np.asarray(columns.outcome, dtype=np.intp),
        weight=np.asarray(columns.weight, dtype=np.float64),
        gap=np.asarray(columns.gap, dtype=np.float64),
        shown=np.asarray(columns.shown, dtype=np.intp),
    )


def _ballots(votes: Sequence[Vote], fates: list[Fate], read_as: Codes) -> Iterator[_Ballot]:
    """Yield the judgements on several candidates, and write down which votes are none or read under another."""
    alone: dict[tuple[str, str, str, Scale], list[int]] = {}  # ratings of one candidate, by who gave them to which item
    for index, vote in enumerate(votes):
        if len(vote.candidates) == 1:
            fates[index] = Fate.single_candidate
            if vote.annotator is not None and vote.ratings is not None and vote.ratings[0] is not None:
                alone.setdefault((vote.annotator, vote.item, vote.question, vote.scale), []).append(index)
        elif vote.scale in (Scale.rating, Scale.thumbs) and vote.ratings is not None:
            has_units = vote.scale is Scale.rating
            yield _Ballot(index, vote.candidates, vote.ratings, has_units, None, vote.positions)
        elif vote.ranks is not None:
            places = tuple([None if rank is None else -rank for rank in vote.ranks])
            strength = vote.strength if len(places) == 2 else None
            yield _Ballot(index, vote.candidates, places, False, strength, vote.positions)
        else:
            fates[index] = Fate.no_verdict
    for (_, _, _, scale), indices in alone.items():
        ratings = {votes[index].candidates[0]: votes[index].ratings[0] for index in indices}  # type: ignore[index]
        if len(ratings) >= 2:
            for index in indices:
                fates[index], read_as[index] = Fate.counted, indices[0]
            yield _Ballot(indices[0], tuple(ratings), tuple(ratings.values()), scale is Scale.rating, None, None)


def _compare(ballot: _Ballot, first: int, second: int, min_rating_gap: float) -> tuple[int, float]:
    """Return which of two placed candidates is better, and by how much where somebody said."""
    gap = float(ballot.places[first]) - float(ballot.places[second])  # type: ignore[arg-type]
    if ballot.has_units:
        return (0 if abs(gap) < min_rating_gap - ROUNDING else _sign(gap)), gap
    return _sign(gap), math.nan if ballot.strength is None else _sign(gap) * ballot.strength


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
