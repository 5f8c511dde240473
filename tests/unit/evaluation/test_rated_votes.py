"""Ratings of both completions of voted pairs, counted by hand: agreement with most people, and how many are 1 or 5."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from judging import judged_world
from simulated_judge import draw, quality

from pipeline.config.evaluation import CriterionConfig
from pipeline.config.judges import QualificationConfig
from pipeline.evaluation.judges.protocol import Answer, Question, Status
from pipeline.evaluation.probes import Probe, attacks, vote_probes
from pipeline.evaluation.rated_votes import (
    questions_of_ratings,
    rating_entries_of,
    rating_measures,
    rating_shortcomings,
)
from pipeline.evaluation.scorecards import Card
from pipeline.labels.pair_votes import PairVotes
from pipeline.labels.verdicts import Pair

CLEAR = CriterionConfig(name="clear", description="Is it clear?")
KIND = CriterionConfig(name="kind", description="Is it kind?")
ASKED = QualificationConfig()
Scores = Mapping[str, float | None]


def pair(name: str, majority: float) -> Probe:
    """A pair whose completions are called `name 1` and `name 2`."""
    votes = PairVotes(pair=Pair(name, f"{name} 1", f"{name} 2"), scores=[majority], annotators=["p"])
    return Probe(
        id=f"votes/{name}", group="votes", kind="votes", cluster=name, prompt=[{"role": "user", "content": "?"}],
        first=f"{name} 1", second=f"{name} 2", votes=votes,
    )  # fmt: skip


def answered(questions: list[Question], scores: Scores) -> dict[str, Answer]:
    return {
        question.key: Answer(score=None, status=Status.parse_fail) if (score := scores[question.shown[0]]) is None
        else Answer(score=score)
        for question in questions
    }  # fmt: skip


def test_agreement_and_ends_are_counted_by_hand() -> None:
    probes = [pair("a", 1.0), pair("b", 0.0), pair("c", 1.0), pair("d", 1.0), pair("even", 0.5), pair("gone", 1.0)]
    scores: Scores = {
        "a 1": 4.6, "a 2": 2.0,  # as people say; 4.6 is nearer to 5 than to 4
        "b 1": 5.0, "b 2": 1.0,  # the other way round
        "c 1": 3.0, "c 2": 3.0,  # alike: half
        "d 1": 4.0, "d 2": 3.9,
        "even 1": 4.0, "even 2": 2.0,  # nobody to agree with
        "gone 1": None, "gone 2": 2.0,
    }  # fmt: skip
    questions = questions_of_ratings(probes, [CLEAR])
    assert len({question.key for question in questions}) == 12
    card = rating_measures(probes, [CLEAR], answered(questions, scores))
    agreement, ends = card["rating_agreement/clear"], card["rating_end_share/clear"]
    assert (agreement["estimate"], agreement["n"]) == (pytest.approx((1 + 0 + 0.5 + 1) / 4), 4)
    assert agreement["low"] < 0.5 < agreement["high"]
    assert (ends["estimate"], ends["n"]) == (pytest.approx(3 / 11), 11)  # a 1, b 1 and b 2 of what was rated


def measured(kind_of_judge: str) -> Card:
    """Two hundred voted pairs, of which the better completion has quality 7 and the other one 3."""
    items, votes = judged_world(200)
    pairs = vote_probes(items, votes, 1000)
    probes = [*pairs, *attacks(pairs, 3)]  # only pairs that people judged are rated
    questions = questions_of_ratings(probes, [CLEAR, KIND])
    assert len(questions) == 2 * 2 * 200
    rated = {
        "sees it": lambda text: 1 + 0.4 * quality(text),
        "throws dice": lambda text: 1 + 4 * draw("dice", text),
        "says five": lambda text: 5.0,
        "says one or five": lambda text: 5.0 if quality(text) == 7 else 1.0,
    }[kind_of_judge]
    return rating_measures(probes, [CLEAR, KIND], {q.key: Answer(score=rated(q.shown[0])) for q in questions})


@pytest.mark.parametrize(
    ("kind_of_judge", "told"),
    [
        ("sees it", []),
        ("throws dice", ["rated higher, lower bound"]),
        ("says five", ["rated higher, lower bound", "ratings of 1 or 5: 1, and at most 0.9 is asked for"]),
        ("says one or five", ["ratings of 1 or 5"]),
    ],
)
def test_ratings_qualify_where_they_go_with_votes_and_use_the_scale(kind_of_judge: str, told: list[str]) -> None:
    card = measured(kind_of_judge)
    entries = rating_entries_of(card, ASKED)
    assert [(entry["criterion"], entry["qualified"]) for entry in entries] == [("clear", not told), ("kind", not told)]
    reasons = rating_shortcomings(card, "clear", ASKED)
    assert len(reasons) == len(told)
    assert all(words in reason for words, reason in zip(told, reasons, strict=True))


def test_few_pairs_and_what_was_not_measured_do_not_qualify() -> None:
    probes = [pair(name, 1.0) for name in "abc"]
    scores = {f"{name} {side}": 4.0 - side for name in "abc" for side in (1, 2)}
    card = rating_measures(probes, [CLEAR], answered(questions_of_ratings(probes, [CLEAR]), scores))
    assert rating_shortcomings(card, "clear", ASKED)[0] == (
        "3 pairs on which most people prefer one side, fewer than 30"
    )
    assert rating_shortcomings(card, "kind", ASKED) == ["its ratings were not compared with people's votes"]
    assert rating_entries_of({}, ASKED) == []
    nothing = rating_measures([], [CLEAR], {})
    assert nothing["rating_agreement/clear"]["n"] == 0
    assert len(rating_shortcomings(nothing, "clear", ASKED)) == 2
