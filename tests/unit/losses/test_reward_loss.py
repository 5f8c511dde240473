"""Losses of a reward model against numbers worked out by hand and against the closed forms they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from pipeline.losses.reward import (
    bradley_terry_loss,
    centring_loss,
    davidson_loss,
    rao_kupper_loss,
    smoothed,
)


def test_bradley_terry_by_hand() -> None:
    # s(1) = 0.7310586, s(-1) = 0.2689414.
    loss = bradley_terry_loss(tensor([0.0, 1.0, -1.0, 1.0]), tensor([1.0, 1.0, 1.0, 0.8]))
    expected = [math.log(2), 0.3132617, 1.3132617, 0.8 * 0.3132617 + 0.2 * 1.3132617]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)
    # Swapping both sides and the label changes nothing; swapping the sides alone does.
    assert bradley_terry_loss(tensor([1.0]), tensor([0.8])).item() == pytest.approx(
        bradley_terry_loss(tensor([-1.0]), tensor([0.2])).item()
    )
    assert bradley_terry_loss(tensor([-1.0]), tensor([0.8])).item() != pytest.approx(loss[3].item(), abs=0.1)


def test_the_least_soft_loss_is_at_the_log_odds_of_the_label() -> None:
    difference = torch.linspace(-4, 4, 8001)
    for confidence in (0.5, 0.7, 0.95):
        loss = bradley_terry_loss(difference, torch.full_like(difference, confidence))
        assert difference[loss.argmin()].item() == pytest.approx(math.log(confidence / (1 - confidence)), abs=2e-3)


def test_its_gradient_is_the_error_of_the_probability() -> None:
    difference = tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    confidence = tensor([0.9, 0.6], dtype=torch.float64)
    bradley_terry_loss(difference, confidence).sum().backward()
    expected = [1 / (1 + math.exp(-0.3)) - 0.9, 1 / (1 + math.exp(2.0)) - 0.6]
    assert difference.grad is not None
    assert difference.grad.tolist() == pytest.approx(expected, abs=1e-12)


def test_davidson_by_hand_and_without_ties() -> None:
    # Strengths 4 and 1, nu = 1: win 4, loss 1, tie sqrt(4) = 2, of 7.
    difference, log_tie = tensor([math.log(4.0)]), tensor(0.0)
    for win, tie, probability in ((1.0, 0.0, 4 / 7), (0.0, 0.0, 1 / 7), (0.5, 1.0, 2 / 7)):
        loss = davidson_loss(difference, tensor([win]), tensor([tie]), log_tie)
        assert loss.item() == pytest.approx(-math.log(probability), abs=1e-6)
    never = davidson_loss(difference, tensor([0.7]), tensor([0.0]), tensor(-40.0))
    assert never.item() == pytest.approx(bradley_terry_loss(difference, tensor([0.7])).item(), abs=1e-6)


def test_rao_kupper_by_hand_and_without_ties() -> None:
    # Strengths 4 and 1, theta = 2: win 4 / (4 + 2), loss 1 / (1 + 8), tie the rest.
    raw = tensor(math.log(math.expm1(math.log(2.0))))  # softplus of it is log 2
    difference = tensor([math.log(4.0)])
    rest = 1 - 4 / 6 - 1 / 9
    for win, tie, probability in ((1.0, 0.0, 4 / 6), (0.0, 0.0, 1 / 9), (0.5, 1.0, rest)):
        loss = rao_kupper_loss(difference, tensor([win]), tensor([tie]), raw)
        assert loss.item() == pytest.approx(-math.log(probability), abs=1e-5)
    narrow = rao_kupper_loss(difference, tensor([0.7]), tensor([0.0]), tensor(-20.0))
    assert narrow.item() == pytest.approx(bradley_terry_loss(difference, tensor([0.7])).item(), abs=1e-5)


@pytest.mark.parametrize("loss", [davidson_loss, rao_kupper_loss])
def test_probabilities_of_win_loss_and_tie_add_up(loss: object) -> None:
    for difference in (-3.0, 0.0, 0.4, 50.0):
        given = tensor([difference])
        outcomes = [(1.0, 0.0), (0.0, 0.0), (0.5, 1.0)]
        total = sum(
            torch.exp(-loss(given, tensor([c]), tensor([t]), tensor(0.3))).item()  # type: ignore[operator]
            for c, t in outcomes
        )
        assert total == pytest.approx(1.0, abs=1e-5)


def test_rounding_in_a_label_makes_no_negative_probability() -> None:
    loss = davidson_loss(tensor([0.0]), tensor([0.5]), tensor([1.0000001]), tensor(0.0))
    assert loss.item() == pytest.approx(math.log(3), abs=1e-5)


def test_smoothing_and_centring_by_hand() -> None:
    assert smoothed(tensor([1.0, 0.8, 0.5]), 0.1).tolist() == pytest.approx([0.9, 0.74, 0.5])
    assert centring_loss(tensor([2.0]), tensor([-0.5])).item() == pytest.approx(2.25)


def centred(difference: Tensor, confidence: Tensor, tie: Tensor, raw: Tensor) -> Tensor:
    return centring_loss(difference, confidence) + 0 * (tie + raw)


@pytest.mark.parametrize("loss", [davidson_loss, rao_kupper_loss, centred])
def test_gradients_are_the_finite_differences(loss: Any) -> None:
    """Of the scores and of the number of the ties, where a label is soft and where it is hard."""
    values = {
        "difference": [0.3, -2.0, 4.0, 0.0], "confidence": [0.9, 0.5, 1.0, 0.6], "tie": [0.1, 1.0, 0.0, 0.3],
        "raw": [0.4] * 4,
    }  # fmt: skip
    given = {name: tensor(value, dtype=torch.float64, requires_grad=name != "tie") for name, value in values.items()}
    raw = given["raw"].mean()  # one number for all pairs
    loss(given["difference"], given["confidence"], given["tie"], raw).sum().backward()

    def at(name: str, place: int, step: float) -> float:
        moved = {key: tensor(value, dtype=torch.float64) for key, value in values.items()}
        moved[name][place] += step
        return float(loss(moved["difference"], moved["confidence"], moved["tie"], moved["raw"].mean()).sum())

    names = ("difference", "confidence") if loss is centred else ("difference", "raw")
    for name in names:
        slopes = [(at(name, place, 1e-5) - at(name, place, -1e-5)) / 2e-5 for place in range(4)]
        assert given[name].grad is not None
        assert given[name].grad.tolist() == pytest.approx(slopes, abs=1e-8)
        assert max(map(abs, slopes)) > 0.01, "nothing moves, so nothing is shown"
