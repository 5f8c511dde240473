"""What the votes say about each annotator, and who falls below a floor.

An annotator is set aside only where a confidence bound, not the estimate, lies beyond the floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from pipeline.config.ingest import IngestConfig, QualityConfig
from pipeline.labels.measures import (
    agreement_with_others,
    interval_dict,
    matches_gold,
    preferred_sides,
    share,
    shares_by_annotator,
    two_sided,
)
from pipeline.labels.verdicts import Codes, Verdicts, read_verdicts
from pipeline.labels.votes import Item, Status, Vote
from pipeline.statistics.intervals import Estimate, wilson


@dataclass(kw_only=True, slots=True)
class Scorecard:
    """One annotator. A share is None where there was nothing to measure."""

    annotator: str
    num_votes: int = 0  # submitted, known answers left out
    num_ties: int = 0
    num_skipped: int = 0
    agreement: Estimate | None = None  # with the majority of the others, ties left out
    gold: Estimate | None = None  # verdicts that are the known answer, a tie being an answer
    first_share: Estimate | None = None  # preferences for what was shown first
    longer_share: Estimate | None = None  # preferences for the longer completion
    seconds: list[float] = field(default_factory=list)  # per vote, where the file says
    num_repeats: int = 0  # judgements of completions that the annotator judged again
    num_same: int = 0  # of those the ones that came out the same
    reasons: list[str] = field(default_factory=list)  # floors that were missed, and what the configuration says
    set_aside: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers under their names in `quality.json`."""
        return {
            "annotator": self.annotator,
            "num_votes": self.num_votes,
            "num_ties": self.num_ties,
            "agreement": interval_dict(self.agreement),
            "gold": interval_dict(self.gold),
            "first_share": interval_dict(self.first_share),
            "longer_share": interval_dict(self.longer_share),
            "median_seconds": median(self.seconds) if self.seconds else None,
            "repeats": {"n": self.num_repeats, "same": self.num_same},
            "skipped": self.num_skipped,
            "set_aside": self.set_aside,
            "reasons": list(self.reasons),
        }


def make_scorecards(
    items: Mapping[str, Item], selected: Sequence[Vote], verdicts: Verdicts, config: IngestConfig
) -> tuple[list[Scorecard], dict[str, Any]]:
    """Measure everyone who voted.

    Args:
        items: What was judged, by id.
        selected: Votes of every status, on the chosen questions.
        verdicts: What those of them say that count.
        config: How votes are read, and the confidence of the bounds.

    Returns:
        A card for each annotator with a name, in order of it, and the position and length bias of all votes together.
    """
    level = config.quality.confidence
    people = sorted({vote.annotator for vote in selected if vote.annotator is not None and _is_of_a_person(vote)})
    annotators = verdicts.of_votes(numbered((vote.annotator for vote in verdicts.votes), people))
    questions = verdicts.of_votes(
        numbered((vote.question for vote in verdicts.votes), sorted({vote.question for vote in verdicts.votes}))
    )
    item_numbers: dict[str, int] = {}
    by_pair = [item_numbers.setdefault(pair.item, len(item_numbers)) for pair in verdicts.pairs]
    item_codes = np.array(by_pair, dtype=np.intp)[verdicts.pair]
    gold = read_verdicts(
        [vote for vote in selected if vote.gold and vote.status is Status.submitted],
        min_rating_gap=config.min_rating_gap,
    )
    position, length = preferred_sides(verdicts, items)
    measures = {
        "agreement": agreement_with_others(verdicts, annotators, questions),
        "gold": matches_gold(verdicts, gold),
        "first_share": (position > 0, position != 0),
        "longer_share": (length > 0, length != 0),
    }
    shares = {
        name: shares_by_annotator(passed, measured, annotators, item_codes, level)
        for name, (passed, measured) in measures.items()
    }
    cards = {
        name: Scorecard(
            annotator=name,
            agreement=shares["agreement"].get(number),
            gold=shares["gold"].get(number),
            first_share=shares["first_share"].get(number),
            longer_share=shares["longer_share"].get(number),
        )
        for number, name in enumerate(people)
    }
    _count_votes(selected, cards)
    biases = {}
    for name, measure in (("position_bias", "first_share"), ("length_bias", "longer_share")):
        passed, measured = measures[measure]
        biases[name] = interval_dict(share(passed[measured], item_codes[measured], level))
    return list(cards.values()), biases


def _count_votes(selected: Sequence[Vote], cards: Mapping[str, Scorecard]) -> None:
    """Fill in what is counted vote by vote."""
    current = {_judged(vote): vote for vote in selected if vote.status is Status.submitted and not vote.gold}
    for vote in selected:
        if vote.annotator is None or not _is_of_a_person(vote):
            continue
        card = cards[vote.annotator]
        if vote.status is Status.submitted:
            card.num_votes += 1
            card.num_ties += vote.is_tie and len(vote.candidates) > 1
            if vote.seconds is not None:
                card.seconds.append(vote.seconds)
        elif vote.status is Status.skipped:
            card.num_skipped += 1
        elif vote.status is Status.superseded and (later := current.get(_judged(vote))) is not None:
            card.num_repeats += 1
            card.num_same += (vote.ranks, vote.ratings) == (later.ranks, later.ratings)


def _judged(vote: Vote) -> tuple[Any, ...]:
    """Return what makes two votes of one annotator the same judgement, made again."""
    return (vote.annotator, vote.item, vote.question, vote.scale, vote.candidates)


def numbered(values: Iterable[Any], known: Sequence[Any]) -> Codes:
    """Number values by their place in ``known``; -1 is what is not there."""
    numbers = {value: number for number, value in enumerate(known)}
    return np.array([numbers.get(value, -1) for value in values], dtype=np.intp)


def _is_of_a_person(vote: Vote) -> bool:
    return vote.status is not Status.prediction and not vote.gold


def judge(cards: Sequence[Scorecard], config: QualityConfig) -> None:
    """Write on every card whether the annotator is set aside, and why."""
    for card in cards:
        card.reasons = _missed_floors(card, config) if card.num_votes >= config.min_votes else []
        if card.annotator in config.set_aside:
            card.reasons.append("named in ingest.quality.set_aside")
        card.set_aside = bool(card.reasons) and card.annotator not in config.keep
        if card.reasons and not card.set_aside:
            card.reasons.append("stays, because ingest.quality.keep names it")


def _missed_floors(card: Scorecard, config: QualityConfig) -> list[str]:
    missed = []
    for name, estimate, floor in (
        ("accuracy on known answers", card.gold, config.min_gold_accuracy),
        ("agreement with the others", card.agreement, config.min_agreement),
    ):
        if floor is not None and estimate is not None and estimate.high is not None and estimate.high < floor:
            missed.append(f"{name} is {_words(estimate)}: at most {estimate.high:.3f}, and the floor is {floor:g}")
    if (limit := config.max_side_share) is not None and card.first_share is not None:
        low, high = card.first_share.low, card.first_share.high
        if low is not None and low > limit:
            missed.append(f"votes for what is shown first: {_words(card.first_share)}, more than {limit:g}")
        if high is not None and high < 1 - limit:
            missed.append(f"votes for what is shown first: {_words(card.first_share)}, less than {1 - limit:g}")
    if (floor := config.min_median_seconds) is not None and card.seconds:
        # The median lies below the floor where more than half of all votes are faster: a sign test.
        faster = sum(seconds < floor for seconds in card.seconds)
        low = wilson(faster, len(card.seconds), two_sided(config.confidence)).low
        if low is not None and low > 0.5:
            missed.append(f"the median vote takes {median(card.seconds):.2f} s, and the floor is {floor:g} s")
    return missed


def _words(estimate: Estimate) -> str:
    return f"{estimate.estimate:.3f} of {estimate.n}"
