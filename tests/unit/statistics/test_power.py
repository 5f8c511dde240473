"""Items needed and effects that can be found, against published numbers, and what an interval decides."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.statistics.decisions import Decision, better, not_worse
from pipeline.statistics.intervals import Estimate, paired_difference
from pipeline.statistics.power import (
    detectable_difference,
    items_needed,
    items_to_detect,
    minimum_detectable,
    standard_error,
)


@pytest.mark.parametrize(
    ("difference", "variance", "expected"),
    [
        (0.03, 1 / 9, 969),  # arXiv:2411.00640, section 5
        (0.1, 0.25, 197),  # 60 % against 50 % of single votes: 7.8489 * 25 = 196.2
        (0.05, 0.25, 785),  # 55 %: 7.8489 * 100 = 784.9
    ],
)
def test_items_needed(difference: float, variance: float, expected: int) -> None:
    assert items_needed(difference, variance) == expected
    assert items_needed(-difference, variance) == expected
    found = detectable_difference(expected, variance)
    before = detectable_difference(expected - 1, variance)
    assert found is not None
    assert before is not None
    assert found <= difference < before
    assert items_needed(difference, variance, power=0.9) > 1.3 * expected


def test_what_no_number_of_items_can_do() -> None:
    assert detectable_difference(0, 1.0) is None
    with pytest.raises(ValueError, match="zero cannot be found"):
        items_needed(0.0, 1.0)


def interval(low: float | None, high: float | None) -> Estimate:
    middle = None if low is None or high is None else (low + high) / 2
    return Estimate(estimate=middle, low=low, high=high, n=400, clusters=200, method="made up")


def test_what_a_comparison_can_find_is_read_off_its_width() -> None:
    value = interval(-0.04, 0.04)
    quantile = 1.9719565442  # Student's t with 199 degrees of freedom
    assert standard_error(value) == pytest.approx(0.04 / quantile)
    assert minimum_detectable(value) == pytest.approx(0.04 * (1 + 0.8416212336 / quantile))
    # Half the effect needs four times the items, and the formula for planning says the same.
    one, other = items_to_detect(value, 0.1), items_to_detect(value, 0.05)
    assert one is not None
    assert other is not None
    assert other == pytest.approx(4 * one, abs=4)
    assert one == items_needed(0.1, 400 * (0.04 / quantile) ** 2)
    assert minimum_detectable(interval(None, None)) is None
    assert items_to_detect(interval(None, None), 0.1) is None
    with pytest.raises(ValueError, match="zero cannot be found"):
        items_to_detect(value, 0.0)


def test_correlated_items_need_more_of_them() -> None:
    generator = np.random.default_rng(0)
    values = np.repeat(generator.normal(size=100), 4) + 0.3 * generator.normal(size=400)
    together = items_to_detect(paired_difference(values, np.zeros(400), np.repeat(np.arange(100), 4)), 0.1)
    alone = items_to_detect(paired_difference(values, np.zeros(400), range(400)), 0.1)
    assert together is not None
    assert alone is not None
    assert together > 3 * alone


@pytest.mark.parametrize(
    ("low", "high", "safe", "improved"),
    [
        (0.01, 0.05, Decision.PASS, Decision.PASS),
        (-0.02, 0.05, Decision.PASS, Decision.INCONCLUSIVE),
        (-0.02, -0.01, Decision.PASS, Decision.FAIL),  # worse for certain, but by less than the margin
        (-0.04, 0.02, Decision.INCONCLUSIVE, Decision.INCONCLUSIVE),
        (-0.04, -0.01, Decision.FAIL, Decision.FAIL),
        (-0.03, 0.01, Decision.INCONCLUSIVE, Decision.INCONCLUSIVE),  # the margin itself is not clear of the margin
        (None, None, Decision.INCONCLUSIVE, Decision.INCONCLUSIVE),
    ],
)
def test_what_an_interval_decides(low: float | None, high: float | None, safe: Decision, improved: Decision) -> None:
    assert not_worse(interval(low, high), margin=0.03) is safe
    assert better(interval(low, high)) is improved


def test_superiority_by_a_margin() -> None:
    assert better(interval(0.04, 0.08), margin=0.03) is Decision.PASS
    assert better(interval(0.01, 0.02), margin=0.03) is Decision.FAIL
    assert better(interval(0.01, 0.08), margin=0.03) is Decision.INCONCLUSIVE
    for decide in (better, not_worse):
        with pytest.raises(ValueError, match="must not be negative"):
            decide(interval(0.0, 1.0), margin=-0.1)
