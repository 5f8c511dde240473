"""The audit card of a reward model against pairs whose answers are known, and gates that can fail."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipeline.config.reward import AuditConfig
from pipeline.evaluation.reward_card import (
    Card,
    Comparison,
    Findings,
    ScoredPair,
    length_rule,
    make_card,
    rank_correlation,
)


def pair(number: int, difference: float, **values: Any) -> ScoredPair:
    given: dict[str, Any] = {
        "id": f"p{number}", "source": "a", "cluster": f"c{number}", "confidence": 1.0, "chosen": difference,
        "rejected": 0.0, "chosen_length": 10, "rejected_length": 20, "prompt_length": 5,
    }  # fmt: skip
    return ScoredPair(**(given | values))


def findings(held_out: list[ScoredPair], **changes: Any) -> Findings:
    usual = Comparison(usual=[1.0, 1.2, 0.9, 1.1], scores=[0.1, 0.0, -0.1, 0.05], clusters=list("abcd"))
    given: dict[str, Any] = {
        "held_out": held_out, "held_out_split": "test", "validation": held_out, "length_rule": "longer",
        "unwanted": {"empty": usual}, "differences": {"padding": 1e-6, "reload": 0.0},
        "tolerances": {"padding": 1e-3, "reload": 0.0}, "samples": {"n": 4},
    }  # fmt: skip
    return Findings(**(given | changes))


def outcomes(card: Card) -> dict[str, str]:
    return {gate["name"]: gate["outcome"] for gate in card.gates}


def planted(count: int, temperature: float, seed: int = 0) -> list[ScoredPair]:
    """Pairs in which the first is better with probability s(difference / temperature)."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        difference = float(generator.normal(0, 3))
        first_is_better = generator.random() < 1 / (1 + math.exp(-difference / temperature))
        rows.append(pair(number, difference if first_is_better else -difference))
    return rows


def test_accuracy_counts_what_is_counted_by_hand() -> None:
    rows = [
        pair(0, 1.0), pair(1, 2.0, source="b"), pair(2, -1.0, confidence=0.7), pair(3, 0.5, confidence=0.6),
        pair(4, 3.0, confidence=0.5),  # a tie: nobody can be right about it
    ]  # fmt: skip
    card = make_card(findings(rows), AuditConfig()).values
    assert card["held_out"] == {"split": "test", "pairs": 5, "ties": 1}
    assert card["accuracy"]["estimate"] == 0.75
    assert {name: group["estimate"] for name, group in card["by_source"].items()} == {"a": 2 / 3, "b": 1.0}
    assert {name: group["estimate"] for name, group in card["by_confidence"].items()} == {
        "0.5 to 0.65": 1.0, "0.65 to 0.8": 0.0, "0.95 to 1": 1.0,
    }  # fmt: skip
    # A drawn label is met with probability 1, 1, 0.3, 0.6 and 0.5; at best it would be 1, 1, 0.7, 0.6 and 0.5.
    assert card["agreement_with_drawn_labels"]["expected"]["estimate"] == pytest.approx(3.4 / 5)
    assert card["agreement_with_drawn_labels"]["at_best"] == pytest.approx(3.8 / 5)


def test_a_calibrated_model_gets_its_temperature_back() -> None:
    card = make_card(findings(planted(2000, 2.0), validation=planted(2000, 2.0, seed=1)), AuditConfig())
    assert card.temperature == pytest.approx(2.0, rel=0.15)
    assert card.values["calibration"]["ece"]["estimate"] < 0.05
    assert outcomes(card)["calibration"] == "PASS"
    # Without the temperature the same scores claim far too much.
    raw = make_card(findings(planted(2000, 5.0), validation=[]), AuditConfig())
    assert raw.temperature == 1.0
    assert outcomes(raw)["calibration"] == "FAIL"


def test_gates_pass_fail_and_say_when_they_cannot_tell() -> None:
    good = make_card(findings(planted(400, 0.5)), AuditConfig())
    assert {"accuracy": "PASS", "length_rule": "PASS", "empty_text": "PASS", "padding": "PASS"}.items() <= outcomes(
        good
    ).items()
    bad = make_card(findings([replace(row, chosen=-row.chosen) for row in planted(400, 0.5)]), AuditConfig())
    assert outcomes(bad)["accuracy"] == "FAIL"
    few = make_card(findings([pair(0, 1.0), pair(1, -1.0), pair(2, 1.0)]), AuditConfig())
    assert outcomes(few)["accuracy"] == "INCONCLUSIVE"
    nothing = make_card(findings([], unwanted={}), AuditConfig())
    assert outcomes(nothing)["accuracy"] == "INCONCLUSIVE"
    assert all({"name", "outcome", "reason", "estimate", "low", "high", "n"} <= gate.keys() for gate in few.gates)


def test_a_model_that_only_counts_tokens_does_not_beat_the_rule() -> None:
    """Chosen is the longer one in two of three pairs, and the score is the length."""
    rows = [pair(n, 1.0 if n % 3 else -1.0, chosen_length=20 if n % 3 else 10, rejected_length=15) for n in range(300)]
    card = make_card(findings(rows), AuditConfig())
    assert card.values["length_rule"]["accuracy"]["estimate"] == pytest.approx(2 / 3)
    assert card.values["length_rule"]["difference"]["estimate"] == 0.0
    assert outcomes(card)["length_rule"] == "INCONCLUSIVE"
    assert outcomes(card)["accuracy"] == "PASS"
    assert card.values["correlation"]["differences_of_score_and_length"]["estimate"] > 0.9


def test_text_that_nobody_wants_and_scores_high_fails() -> None:
    loved = Comparison(usual=[0.0, 0.1, -0.1, 0.05], scores=[1.0, 1.2, 0.9, 1.1], clusters=list("abcd"))
    card = make_card(findings(planted(50, 0.5), unwanted={"empty": loved}), AuditConfig())
    assert outcomes(card)["empty_text"] == "FAIL"


@pytest.mark.parametrize("loved", ["empty", "truncated", "repeated"])
def test_each_unwanted_text_has_a_gate_of_its_own(loved: str) -> None:
    low = Comparison(usual=[1.0, 1.2, 0.9, 1.1], scores=[0.1, 0.0, -0.1, 0.05], clusters=list("abcd"))
    unwanted = dict.fromkeys(("empty", "truncated", "repeated"), low)
    unwanted[loved] = Comparison(usual=low.scores, scores=low.usual, clusters=low.clusters)
    card = make_card(findings(planted(50, 0.5), unwanted=unwanted), AuditConfig())
    expected = {f"{name}_text": "FAIL" if name == loved else "PASS" for name in unwanted}
    assert {name: outcome for name, outcome in outcomes(card).items() if name.endswith("_text")} == expected
    (gate,) = (gate for gate in card.gates if gate["outcome"] == "FAIL" and gate["name"].endswith("_text"))
    assert gate["name"] == f"{loved}_text"
    assert f"score of usual text less that of {loved} text" in gate["reason"]
    assert gate["estimate"] == pytest.approx(-(4.2 - 0.05) / 4)


def test_pairs_of_like_length_are_those_within_a_tenth_of_the_longer_side() -> None:
    rows = [
        pair(0, 1.0, chosen_length=10, rejected_length=9),  # a tenth is no difference
        pair(1, -1.0, chosen_length=90, rejected_length=100),
        pair(2, -1.0, chosen_length=7, rejected_length=7),
        pair(3, 1.0, chosen_length=100, rejected_length=89),  # 11 of 100
        pair(4, 1.0, chosen_length=8, rejected_length=9),  # 1 of 9
        pair(5, 1.0, chosen_length=10, rejected_length=20),
    ]
    matched = make_card(findings(rows), AuditConfig(length_matched=0.1)).values["length_matched"]
    assert (matched["n"], matched["estimate"]) == (3, pytest.approx(1 / 3))
    exact = make_card(findings(rows), AuditConfig(length_matched=0.0)).values["length_matched"]
    assert (exact["n"], exact["estimate"]) == (1, 0.0)


def test_position_is_the_length_of_the_prompt_and_length_that_of_the_reply() -> None:
    """Scores rise with the prompt and fall with the reply; the longer side of a pair has the lower score."""
    rows = [
        pair(n, 0.0, chosen=n + 0.5, rejected=float(n), prompt_length=n + 1, chosen_length=58 - 2 * n,
             rejected_length=59 - 2 * n + n % 2)
        for n in range(20)
    ]  # fmt: skip
    correlation = make_card(findings(rows), AuditConfig()).values["correlation"]
    assert correlation["score_and_position"]["estimate"] > 0.99
    assert correlation["score_and_length"]["estimate"] < -0.99
    flat = [replace(row, prompt_length=5) for row in rows]
    assert make_card(findings(flat), AuditConfig()).values["correlation"]["score_and_position"]["estimate"] is None


def test_a_score_that_moves_with_its_padding_fails() -> None:
    card = make_card(findings(planted(50, 0.5), differences={"padding": 0.2, "reload": 0.0}), AuditConfig())
    assert outcomes(card) | {"padding": "FAIL"} == outcomes(card)


def test_a_coin_over_the_labels_leaves_nothing_to_be_right_about() -> None:
    card = make_card(findings([pair(n, 1.0) for n in range(2000)]), AuditConfig())
    shuffled = card.values["shuffled_labels"]
    assert card.values["accuracy"]["estimate"] == 1.0
    assert shuffled["low"] < 0.5 < shuffled["high"]
    assert shuffled["estimate"] == pytest.approx(0.5, abs=0.04)


def test_the_length_rule_is_the_better_one_of_the_train_pairs() -> None:
    assert length_rule([(20, 10, 1.0), (20, 10, 1.0), (10, 20, 1.0)]) == "longer"
    assert length_rule([(20, 10, 1.0), (10, 20, 1.0), (10, 20, 0.9), (30, 1, 0.5)]) == "shorter"


def test_the_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=200)
    second = first + generator.normal(size=200)
    estimate = rank_correlation(first.tolist(), second.tolist(), [str(n) for n in range(200)])
    assert estimate.estimate == pytest.approx(float(spearmanr(first, second).statistic), abs=1e-12)
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < estimate.estimate < estimate.high
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], list("abc")).estimate is None
