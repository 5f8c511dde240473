"""A judge with planted mistakes: they are measured as large as they are, and the judge is refused because of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from judging import judged_world
from simulated_judge import simulated_answer

from pipeline.config.judges import JudgeConfig, QualificationConfig
from pipeline.evaluation.judges.protocol import Answer, Order, Question
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.outcomes import Outcome, outcomes_of
from pipeline.evaluation.probes import INJECTIONS, attacks, probe_questions, vote_probes
from pipeline.evaluation.scorecards import Scorecard, score_judge, shortcomings
from pipeline.evaluation.verdicts import VerdictRow, verdict_row
from pipeline.evaluation.win_rates import order_measures, prefers_longer
from pipeline.statistics.intervals import Estimate

HONEST = {"seed": 1, "accuracy": 0.99, "first_slot": 0.0, "longer": 0.0, "failure_rate": 0.0, "obeys": 0.0}
ASKED = QualificationConfig()


def measured(num_items: int = 120, **planted: float) -> tuple[Scorecard, list[str]]:
    judge = build_judge(JudgeConfig(name="planted", kind="simulated", params={**HONEST, **planted}))
    items, votes = judged_world(num_items)
    pairs = vote_probes(items, votes, 1000)
    probes = [*pairs, *attacks(pairs, 10)]
    questions = probe_questions(probes, judge)
    rows: list[VerdictRow] = []
    for probe in probes:
        for question in questions[probe.id]:
            answer = simulated_answer(question, **{**HONEST, **planted})  # type: ignore[arg-type]
            rows.append(verdict_row(question, answer, probe.cluster))
    outcomes = {outcome.id: outcome for outcome in outcomes_of([([], rows)], [])}
    scorecard = score_judge(judge, probes, outcomes)
    return scorecard, shortcomings(judge, scorecard.card, ASKED)


def test_an_honest_judge_qualifies() -> None:
    scorecard, reasons = measured()
    assert reasons == []
    card = scorecard.card
    # Three people who slip one time in ten: two of them agree with probability 0.9^2 + 0.1^2 = 0.82.
    assert card["human_agreement"]["low"] < 0.82 < card["human_agreement"]["high"]
    # The judge is right in both orders with 0.99^2, wrong in both with 0.01^2, and else it is a tie.
    assert card["consistency"]["low"] < 0.99**2 + 0.01**2 < card["consistency"]["high"]
    assert card["first_slot_bias"]["low"] < 0 < card["first_slot_bias"]["high"]
    assert card["kappa"]["n"] == 120
    assert len(INJECTIONS) >= 20
    assert {kind["tried"] for kind in scorecard.kinds["injection"].values()} <= set(range(1, 11))


# By hand. An item is decided where both orders say the same, and each order is drawn for itself.
SAYS_CHOOSE = 4  # of the payloads: system_tag, markdown_comment, html_comment and threat


@pytest.mark.parametrize(
    ("planted", "measure", "value", "reason"),
    [
        ({"first_slot": 0.5}, "first_slot_bias", 0.25, "bias to the first shown"),
        # In one order the longer wins with 0.9 + 0.1 * 0.99 where it is the better one (half of the items), and with
        # 0.9 + 0.1 * 0.01 where it is not.
        (
            {"longer": 0.9},
            "prefers_longer",
            (0.999**2 + 0.901**2) / (0.999**2 + 0.001**2 + 0.901**2 + 0.099**2),
            "kappa",
        ),
        ({"failure_rate": 0.1}, "failure_rate", 1 - 0.9**2, "questions without a verdict"),
        ({"obeys": 1.0}, "injection_flip_rate", SAYS_CHOOSE / 24, "verdicts turned by injected text"),
        # The padded one is worse: in one order it wins with 0.9 + 0.1 * 0.01.
        ({"longer": 0.9}, "padding_flip_rate", 0.901**2, "verdicts turned by padding"),
        # Both orders right, and most people as well (0.9^3 + 3 * 0.9^2 * 0.1), or both wrong.
        ({"accuracy": 0.5}, "agreement", 0.25, "kappa with the majority"),
    ],
)
def test_planted_mistakes_are_measured_and_refused(
    planted: Mapping[str, float], measure: str, value: float, reason: str
) -> None:
    scorecard, reasons = measured(400, **planted)
    entry = scorecard.card[measure]
    assert any(reason in text for text in reasons), reasons
    assert entry["low"] < value < entry["high"], entry
    honest, _ = measured(400)
    control = honest.card[measure]["estimate"]
    assert not entry["low"] <= control <= entry["high"], "the interval would not tell this from an honest judge"


def simulate(seed: int, num_items: int, **planted: Any) -> list[Outcome]:
    rows = []
    for number in range(num_items):
        texts = [f"quality 7, item {number}", f"quality 3, item {number}, longer"]
        texts = texts[:: 1 if number % 3 else -1]
        for order in Order:
            shown = tuple(texts if order is Order.ab else texts[::-1])
            question = Question(id=str(number), prompt=[], shown=shown, order=order)
            answer = simulated_answer(question, **{**HONEST, "seed": seed, **planted})
            rows.append(verdict_row(question, answer, str(number)))
    return outcomes_of([([], rows)], [])


def covers(interval: Estimate, value: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= value <= interval.high


@pytest.mark.slow
def test_intervals_of_order_effects_cover_what_was_planted() -> None:
    covered = {"bias": 0, "consistency": 0, "unplanted": 0}
    for seed in range(200):
        effects = order_measures(simulate(seed, 100, first_slot=0.3, accuracy=1.0), 0.95)
        bias, consistency = effects["first_slot_bias"], effects["consistency"]
        # The better one always wins where it is shown first; where it is second, the planted 30 % take the first.
        covered["bias"] += covers(bias, 0.15)
        covered["consistency"] += covers(consistency, 0.7)
        covered["unplanted"] += covers(bias, 0.0)
    # Of 200 intervals of 95 %, fewer than 180 would cover with a probability below 1 in 300.
    assert covered["bias"] >= 180
    assert covered["consistency"] >= 180
    assert covered["unplanted"] == 0


def test_length_preference_counts_decided_pairs_of_different_length_only() -> None:
    def outcome(name: str, win: float) -> Outcome:
        return Outcome(id=name, cluster=name, win=win, status="ok")

    outcomes = [outcome("a", 1.0), outcome("b", 0.0), outcome("c", 0.5), outcome("d", 1.0), outcome("e", 0.75)]
    value = prefers_longer(outcomes, [5, 5, 9, 4, 1], [3, 9, 1, 4, 7], 0.95)
    # a: longer wins; b: longer wins; c: a tie; d: equal length; e: the shorter wins.
    assert (value.n, value.estimate) == (3, pytest.approx(2 / 3))


def test_an_answer_cannot_be_scored_and_failed_at_once() -> None:
    with pytest.raises(ValueError, match="status"):
        Answer(score=None)
