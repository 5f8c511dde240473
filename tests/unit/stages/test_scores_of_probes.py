"""What two scores of a pair come to, and what a thousand questions take, by hand."""

from __future__ import annotations

import pytest

from pipeline.evaluation.judges.protocol import Answer, Question, Status
from pipeline.evaluation.probes import Probe
from pipeline.stages.scorecard import price_per_thousand, probe_rows

PROBE = Probe(id="p", group="votes", kind="votes", cluster="c", prompt=[], first="a", second="b")
QUESTIONS = [Question(id=f"p/{side}", prompt=[], shown=(side,), order=None) for side in "ab"]
BROKEN = Answer(score=None, status=next(status for status in Status if status is not Status.ok), detail="why")


@pytest.mark.parametrize(
    ("first", "second", "score"), [(0.7, 0.2, 1.0), (0.2, 0.7, 0.0), (0.4, 0.4, 0.5), (0.0, 0.0, 0.5)]
)
def test_the_better_score_wins_and_equal_ones_tie(first: float, second: float, score: float) -> None:
    answers = {question.key: Answer(score=value) for question, value in zip(QUESTIONS, (first, second), strict=True)}
    (row,) = probe_rows(PROBE, QUESTIONS, answers)
    assert (row.id, row.cluster, row.order, row.score, row.status) == ("p", "c", "ab", score, "ok")


@pytest.mark.parametrize("broken", [0, 1])
def test_a_side_without_a_score_is_no_loss(broken: int) -> None:
    given = [Answer(score=0.5), Answer(score=0.5)]
    given[broken] = BROKEN
    (row,) = probe_rows(PROBE, QUESTIONS, {q.key: answer for q, answer in zip(QUESTIONS, given, strict=True)})
    assert (row.score, row.status, row.detail) == (None, BROKEN.status, "why")


def test_the_price_is_that_of_a_thousand_questions() -> None:
    answers = [Answer(score=1.0, tokens=10, cost=0.5), Answer(score=0.0, tokens=30), BROKEN, BROKEN]
    assert price_per_thousand(answers) == {
        "tokens_per_thousand": {"estimate": 10_000.0, "low": None, "high": None, "n": 4},
        "cost_per_thousand": {"estimate": 125.0, "low": None, "high": None, "n": 4},
    }
    assert price_per_thousand([BROKEN]) == {}
