"""Preference losses: numbers worked out by hand, gradients from the analytic formulas, labels that may be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.config.preference import LOG_2_LOSSES, LOSSES, loss_problems, loss_terms, uses_reference
from pipeline.losses.pairs import Pairs
from pipeline.losses.preference import PAIRWISE, preference_loss


def pairs(
    chosen: list[float],
    rejected: list[float],
    reference_chosen: list[float],
    reference_rejected: list[float],
    lengths: tuple[list[int], list[int]],
) -> Pairs:
    """Pairs in fp64."""
    chosen_lengths, rejected_lengths = lengths
    tensor = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    return Pairs(
        chosen=tensor(chosen),
        rejected=tensor(rejected),
        chosen_lengths=torch.tensor(chosen_lengths),
        rejected_lengths=torch.tensor(rejected_lengths),
        reference_chosen=tensor(reference_chosen),
        reference_rejected=tensor(reference_rejected),
    )


# h_w = -10 + 12 = 2, h_l = -20 + 15 = -5, z = 7; over 4 and 10 tokens 0.5 and -0.5, so the mean log-ratio is 1.
ONE = pairs([-10.0], [-20.0], [-12.0], [-15.0], ([4], [10]))

HAND_WORKED = [
    ("sigmoid", 0.1, {}, 0.4031860),  # log(1 + e^-0.7)
    ("hinge", 0.1, {}, 0.3),  # 1 - 0.7
    ("hinge", 0.2, {}, 0.0),  # 1 - 1.4 is below zero
    ("ipo_sum", 0.1, {}, 4.0),  # (7 - 5)^2
    ("ipo_mean", 0.25, {}, 1.0),  # (1 - 2)^2
    ("sigmoid_norm", 5.0, {}, 0.0067153),  # log(1 + e^-5)
    ("cdpo", 0.1, {"label_smoothing": 0.1}, 0.4731860),  # 0.9 x 0.4031860 + 0.1 x 1.1031860
    ("robust", 0.1, {"label_smoothing": 0.1}, 0.3156860),  # (0.9 x 0.4031860 - 0.1 x 1.1031860) / 0.8
    ("apo_zero", 0.1, {}, 0.8277067),  # 1 - sigmoid(0.2) + sigmoid(-0.5) = 1 - 0.5498340 + 0.3775407
    ("apo_down", 0.1, {}, 0.8816462),  # sigmoid(0.2) + 1 - sigmoid(0.7) = 0.5498340 + 1 - 0.6681878
    ("sppo_hard", 0.1, {}, 9.0),  # (2 - 5)^2 + (-5 + 5)^2
    # 0.6681878 (-0.4031860 + 0.1053605) + 0.3318122 (-1.1031860 + 2.3025851)
    ("exo_pair", 0.1, {"label_smoothing": 0.1}, 0.1989719),
    ("nca_pair", 0.1, {}, 1.2342469),  # 0.5981389 + (0.7981389 + 0.4740770) / 2
    ("bco_pair", 0.1, {}, 1.0722159),  # 0.5981389 + 0.4740770
    ("simpo", 2.0, {"target_margin": 1.0}, 2.1269280),  # -log sigmoid(2 (-2.5 + 2.0) - 1)
    # Log odds -2.5 + 0.0856505 and -2.0 + 0.1454135, so 2.5 + 0.1 log(1 + e^0.5597631)
    ("orpo", 0.1, {}, 2.6011695),
    ("rao_kupper", 0.1, {"tie_threshold": 0.5}, 0.5981389),  # -log sigmoid(0.7 - 0.5)
    ("sft", None, {}, 2.5),  # 10 / 4
]


@pytest.mark.parametrize(("name", "beta", "settings", "expected"), HAND_WORKED)
def test_every_loss_is_what_was_worked_out_by_hand(
    name: str, beta: float | None, settings: dict[str, float], expected: float
) -> None:
    loss = preference_loss(ONE, {name: 1.0}, beta=beta, settings=settings)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(expected, abs=2e-7)


def test_every_loss_that_can_be_named_was_worked_out_by_hand() -> None:
    assert {name for name, *_ in HAND_WORKED} == set(LOSSES)
    assert set(PAIRWISE) | {"rao_kupper", "orpo", "sft"} == set(LOSSES)


@pytest.mark.parametrize(("name", "beta", "settings", "expected"), HAND_WORKED)
def test_a_swapped_pair_and_a_dropped_reference_are_caught(
    name: str, beta: float | None, settings: dict[str, float], expected: float
) -> None:
    swapped = preference_loss(ONE.swapped(), {name: 1.0}, beta=beta, settings=settings).item()
    assert abs(swapped - expected) > 1e-2
    without = replace(ONE, reference_chosen=None, reference_rejected=None)
    if LOSSES[name].uses_reference:
        with pytest.raises(ValueError, match="no reference"):
            preference_loss(without, {name: 1.0}, beta=beta, settings=settings)
        zero = replace(ONE, reference_chosen=torch.zeros(1), reference_rejected=torch.zeros(1))
        dropped = preference_loss(zero, {name: 1.0}, beta=beta, settings=settings).item()
        # z is 10 instead of 7, and 0.1 x 10 is enough for the hinge at either beta
        assert abs(dropped - expected) > 1e-3 or (name == "hinge" and expected == 0)
    else:
        assert preference_loss(without, {name: 1.0}, beta=beta, settings=settings).item() == pytest.approx(expected)


# --- gradients -----------------------------------------------------------------------------------------------------


def sig(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# d loss / d log pi(y_w) and d loss / d log pi(y_l); w and v are log-ratios, n and m lengths, b is beta, e a smoothing.
GRADIENTS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "sigmoid": lambda w, v, n, m, b, e: (-b * sig(-b * (w - v)), b * sig(-b * (w - v))),
    "cdpo": lambda w, v, n, m, b, e: (
        -b * (1 - e - sig(b * (w - v))),
        b * (1 - e - sig(b * (w - v))),
    ),
    "robust": lambda w, v, n, m, b, e: (
        -b * ((1 - e) * sig(-b * (w - v)) + e * sig(b * (w - v))) / (1 - 2 * e),
        b * ((1 - e) * sig(-b * (w - v)) + e * sig(b * (w - v))) / (1 - 2 * e),
    ),
    "hinge": lambda w, v, n, m, b, e: (-b * (b * (w - v) < 1), b * (b * (w - v) < 1)),
    "ipo_sum": lambda w, v, n, m, b, e: (2 * (w - v - 0.5 / b), -2 * (w - v - 0.5 / b)),
    "ipo_mean": lambda w, v, n, m, b, e: (
        2 * (w / n - v / m - 0.5 / b) / n,
        -2 * (w / n - v / m - 0.5 / b) / m,
    ),
    "sigmoid_norm": lambda w, v, n, m, b, e: (
        -b / n * sig(-b * (w / n - v / m)),
        b / m * sig(-b * (w / n - v / m)),
    ),
    "apo_zero": lambda w, v, n, m, b, e: (
        -b * sig(b * w) * sig(-b * w),
        b * sig(b * v) * sig(-b * v),
    ),
    "apo_down": lambda w, v, n, m, b, e: (
        b * sig(b * w) * sig(-b * w) - b * sig(b * (w - v)) * sig(-b * (w - v)),
        b * sig(b * (w - v)) * sig(-b * (w - v)),
    ),
    "sppo_hard": lambda w, v, n, m, b, e: (2 * (w - 0.5 / b), 2 * (v + 0.5 / b)),
    # With q = sigmoid(b z): d/dz [q log(q / (1 - e)) + (1 - q) log((1 - q) / e)] = b q (1 - q) (b z - logit(1 - e))
    "exo_pair": lambda w, v, n, m, b, e: (
        b * sig(b * (w - v)) * sig(-b * (w - v)) * (b * (w - v) - math.log((1 - e) / e)),
        -b * sig(b * (w - v)) * sig(-b * (w - v)) * (b * (w - v) - math.log((1 - e) / e)),
    ),
    "nca_pair": lambda w, v, n, m, b, e: (-b * sig(-b * w) + b / 2 * sig(b * w), b / 2 * sig(b * v)),
    "bco_pair": lambda w, v, n, m, b, e: (-b * sig(-b * w), b * sig(b * v)),
}


@pytest.fixture(scope="module")
def random_pairs() -> Pairs:
    generator = np.random.default_rng(3)
    draw = lambda: (-30 + 8 * generator.standard_normal(64)).tolist()  # noqa: E731
    lengths = (generator.integers(1, 40, 64).tolist(), generator.integers(1, 40, 64).tolist())
    return pairs(draw(), draw(), draw(), draw(), lengths)


def gradients(given: Pairs, name: str, **kwargs: object) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of the sum of losses by the policy's two log-probabilities."""
    chosen, rejected = given.chosen.clone().requires_grad_(), given.rejected.clone().requires_grad_()
    preference_loss(replace(given, chosen=chosen, rejected=rejected), {name: 1.0}, **kwargs).sum().backward()  # type: ignore[arg-type]
    zero = torch.zeros_like(chosen)
    return tuple((zero if each.grad is None else each.grad).numpy() for each in (chosen, rejected))  # type: ignore[return-value]


@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_gradients_are_the_analytic_ones(name: str, random_pairs: Pairs) -> None:
    beta, smoothing = LOSSES[name].beta, LOSSES[name].settings.get("label_smoothing", 0.0)
    assert beta is not None
    ratios = [random_pairs.chosen_log_ratio.numpy(), random_pairs.rejected_log_ratio.numpy()]
    counts = [random_pairs.chosen_lengths.numpy(), random_pairs.rejected_lengths.numpy()]
    expected = GRADIENTS[name](*ratios, *counts, beta, smoothing)
    found = gradients(random_pairs, name)
    for side in (0, 1):
        np.testing.assert_allclose(found[side], expected[side], rtol=1e-9, atol=1e-12)
    assert np.abs(found[0] + expected[0]).max() > 1e-3, "a wrong sign would pass"


@pytest.mark.parametrize("name", ["simpo", "orpo", "rao_kupper", "sft"])
def test_the_other_gradients_agree_with_finite_differences(name: str, random_pairs: Pairs) -> None:
    few = pairs(
        *([values.tolist()[:4] for values in (
            random_pairs.chosen, random_pairs.rejected, random_pairs.reference_chosen, random_pairs.reference_rejected
        ) if values is not None]),
        ([30, 12, 9, 25], [11, 40, 28, 7]),
    )  # fmt: skip
    confidence, tie = torch.tensor([1.0, 0.8, 0.6, 0.55]), torch.tensor([0.0, 0.2, 0.5, 0.9])
    kwargs = {"confidence": confidence.double(), "tie": tie.double()}
    found = gradients(few, name, **kwargs)
    for side, key in enumerate(("chosen", "rejected")):
        step = 1e-5
        ends = [
            preference_loss(replace(few, **{key: getattr(few, key) + sign * step}), {name: 1.0}, **kwargs)
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(found[side], ((ends[0] - ends[1]) / (2 * step)).numpy(), rtol=1e-6, atol=1e-9)


# --- labels that may be wrong --------------------------------------------------------------------------------------


def test_confidence_is_a_label_smoothing_of_its_own_for_every_pair(random_pairs: Pairs) -> None:
    confidence = torch.full((64,), 0.9, dtype=torch.float64)
    soft = preference_loss(random_pairs, {"sigmoid": 1.0}, confidence=confidence)
    torch.testing.assert_close(soft, preference_loss(random_pairs, {"cdpo": 1.0}, settings={"label_smoothing": 0.1}))
    assert not torch.allclose(soft, preference_loss(random_pairs, {"sigmoid": 1.0}))


@pytest.mark.parametrize("name", [name for name in PAIRWISE if name not in {"apo_zero", "apo_down", "sppo_hard"}])
def test_a_coin_flip_prefers_neither(name: str) -> None:
    """With confidence one half the loss of a pair is that of the swapped pair."""
    half = torch.tensor([0.5], dtype=torch.float64)
    there = preference_loss(ONE, {name: 1.0}, confidence=half)
    back = preference_loss(ONE.swapped(), {name: 1.0}, confidence=half)
    torch.testing.assert_close(there, back)


def test_a_tie_is_an_outcome_with_a_probability_of_its_own() -> None:
    """beta z = 0.7, threshold 0.5: the three outcomes have 0.5498340, 0.2314752 and 0.2186908, which add up to 1."""
    logs = {}
    for outcome, (confidence, tie) in {"won": (1.0, 0.0), "lost": (0.0, 0.0), "tied": (0.5, 1.0)}.items():
        given = {"confidence": torch.tensor([confidence]).double(), "tie": torch.tensor([tie]).double()}
        logs[outcome] = preference_loss(ONE, {"rao_kupper": 1.0}, **given).item()
    probabilities = {outcome: math.exp(-value) for outcome, value in logs.items()}
    assert probabilities == pytest.approx({"won": 0.5498340, "lost": 0.2314752, "tied": 0.2186908}, abs=1e-7)


def test_a_mix_is_the_weighted_sum_and_the_likelihood_is_of_the_chosen_alone() -> None:
    confidence = torch.tensor([0.7], dtype=torch.float64)
    mixed = preference_loss(ONE, {"sigmoid": 0.8, "sft": 0.2}, confidence=confidence).item()
    # 0.8 (0.7 x 0.4031860 + 0.3 x 1.1031860) + 0.2 x 2.5
    assert mixed == pytest.approx(0.8 * (0.7 * 0.4031860 + 0.3 * 1.1031860) + 0.5, abs=2e-7)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_where_the_policy_is_the_reference_the_loss_is_known(name: str) -> None:
    same = pairs([-12.0], [-15.0], [-12.0], [-15.0], ([4], [10]))
    loss = preference_loss(same, {name: 1.0}, confidence=torch.tensor([0.8], dtype=torch.float64)).item()
    assert (loss == pytest.approx(math.log(2), abs=1e-12)) == (name in LOG_2_LOSSES)


def test_extreme_log_ratios_stay_finite() -> None:
    far = pairs([-1.0, -3000.0], [-3000.0, -1.0], [-3000.0, -1.0], [-1.0, -3000.0], ([4, 10], [10, 4]))
    for name in LOSSES:
        assert torch.isfinite(preference_loss(far, {name: 1.0})).all(), name
        assert all(np.isfinite(side).all() for side in gradients(far, name)), name


# --- the configuration's view --------------------------------------------------------------------------------------


def test_one_key_names_a_loss_or_a_mix() -> None:
    assert loss_terms("ipo_sum") == {"ipo_sum": 1.0}
    assert loss_terms({"sigmoid": 1, "sft": 0.2}) == {"sigmoid": 1.0, "sft": 0.2}
    assert not uses_reference({"simpo": 1, "sft": 0.1})
    assert uses_reference({"simpo": 1, "sigmoid": 0.1})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sigmoidd", "there is no loss `sigmoidd`. Did you mean `sigmoid`"),
        ("ipo", "there is no loss `ipo`. Did you mean `simpo` or `ipo_sum`"),  # summed or averaged: it has to be said
        ({"sigmoid": 0}, "dpo.loss.sigmoid=0: the weight"),
        ({"sigmoid": float("nan")}, "the weight"),
        ({"sigmoid": "much"}, "the weight"),
        ({"sft": 1.0}, "nothing in it compares"),
        ({}, "write a loss, or a mix"),
        (None, "write a loss, or a mix"),
    ],
)
def test_a_loss_that_makes_no_sense_is_one_clear_line(value: object, message: str) -> None:
    (problem,) = loss_problems(value, "dpo.loss")
    assert problem.startswith("dpo.loss")
    assert message in problem


def test_every_loss_has_a_sensible_default() -> None:
    for name, facts in LOSSES.items():
        assert not loss_problems(name, "dpo.loss") or not facts.is_pairwise, name
        assert facts.beta is None or facts.beta > 0
