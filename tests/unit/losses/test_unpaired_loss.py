"""Losses of labelled completions: numbers worked out by hand, and the gradient of the equation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.losses.unpaired import LabelWeights, unpaired_loss

EVEN = LabelWeights()


def loss(log_ratio: list[float], label: list[bool], **more: object) -> list[float]:
    values: dict[str, object] = {"beta": 1.0, "baseline": 0.0, "weights": EVEN, **more}
    confidence = values.pop("confidence", None)
    given = None if confidence is None else torch.tensor(confidence, dtype=torch.float64)
    return unpaired_loss(
        torch.tensor(log_ratio, dtype=torch.float64), torch.tensor(label), confidence=given, **values  # type: ignore[arg-type]
    ).tolist()  # fmt: skip


@pytest.mark.parametrize(
    ("log_ratio", "label", "beta", "baseline", "expected"),
    [
        (0.0, True, 0.1, 0.0, 0.5),  # nothing has moved
        (0.0, False, 0.1, 0.0, 0.5),
        (math.log(3), True, 1.0, 0.0, 1 / 4),  # sigmoid(log 3) = 3/4
        (math.log(3), False, 1.0, 0.0, 3 / 4),  # a bad completion that became likelier
        (-math.log(3), False, 1.0, 0.0, 1 / 4),
        (math.log(9), True, 0.5, 0.0, 1 / 4),  # beta scales nats
        (math.log(3), True, 1.0, math.log(3), 0.5),  # no likelier than unrelated completions
        (0.0, False, 1.0, math.log(3), 1 / 4),  # less likely than unrelated ones, though it has not moved
    ],
)
def test_hand_worked(log_ratio: float, label: bool, beta: float, baseline: float, expected: float) -> None:
    assert loss([log_ratio], [label], beta=beta, baseline=baseline) == [pytest.approx(expected, abs=1e-12)]


def test_the_wrong_sign_is_another_number() -> None:
    """The table above would not catch a sign that only shows beyond zero; this pair does."""
    right = loss([math.log(3)], [True])
    assert right != pytest.approx(loss([-math.log(3)], [True]))
    assert right != pytest.approx(loss([math.log(3)], [False]))


def test_weights_belong_to_their_labels() -> None:
    weights = LabelWeights(desirable=4.0, undesirable=0.5)
    assert loss([0.0, 0.0], [True, False], weights=weights) == [2.0, 0.25]


def test_a_doubtful_label_costs_what_it_costs_on_average() -> None:
    """Good with probability 3/4 at a log-ratio of log 3: 3/4 of 4 * 1/4, and 1/4 of 1/2 * 3/4."""
    weights = LabelWeights(desirable=4.0, undesirable=0.5)
    soft = loss([math.log(3)], [True], weights=weights, confidence=[0.75])
    assert soft == [pytest.approx(0.75 * 1.0 + 0.25 * 0.375, abs=1e-12)]
    bad = loss([math.log(3)], [False], weights=weights, confidence=[0.75])
    assert bad == [pytest.approx(0.75 * 0.375 + 0.25 * 1.0, abs=1e-12)]


@pytest.mark.parametrize("label", [True, False])
def test_the_gradient_is_that_of_the_equation(label: bool) -> None:
    """``d/dh w (1 - sigmoid(+-b (h - z))) = -+w b sigmoid(r) (1 - sigmoid(r))`` with ``r = b (h - z)``."""
    values, beta, baseline, weight = [-3.0, -0.2, 0.0, 1.7, 40.0], 0.3, 0.4, 1.5
    log_ratio = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    weights = LabelWeights(desirable=weight, undesirable=weight)
    labels: Tensor = torch.full((len(values),), label)
    unpaired_loss(log_ratio, labels, beta=beta, baseline=baseline, weights=weights).sum().backward()
    slopes = []
    for value in values:
        share = 1 / (1 + math.exp(-beta * (value - baseline)))
        slopes.append((-1 if label else 1) * weight * beta * share * (1 - share))
    assert log_ratio.grad is not None
    assert log_ratio.grad.tolist() == pytest.approx(slopes, rel=1e-9, abs=1e-15)


def test_nothing_overflows() -> None:
    for value in (1e4, -1e4):
        log_ratio = torch.tensor([value, value], requires_grad=True)
        result = unpaired_loss(log_ratio, torch.tensor([True, False]), beta=1.0, baseline=0.0, weights=EVEN)
        result.sum().backward()
        assert log_ratio.grad is not None
        assert bool(torch.isfinite(result).all())
        assert bool(torch.isfinite(log_ratio.grad).all())
