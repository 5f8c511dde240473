"""Rates corrected for a judge's errors, worked by hand, and the cases that cannot be corrected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.statistics.intervals import Estimate
from pipeline.statistics.judge_correction import Confusion, corrected_rate, prediction_powered_mean

Z = 1.959963984540054
GOOD = Confusion(true_positives=80, positives=100, true_negatives=90, negatives=100)


def passed(share: float, n: int) -> list[bool]:
    return [True] * round(share * n) + [False] * (n - round(share * n))


def test_the_correction_by_hand() -> None:
    # (0.62 + 0.9 - 1) / (0.8 + 0.9 - 1) = 0.52 / 0.7
    value = corrected_rate(passed(0.62, 500), range(500), GOOD)
    assert value.estimate == pytest.approx(0.52 / 0.7)
    # A perfect judge needs none, and its interval is the moved Wald interval of Agresti and Coull, with people's part.
    perfect = Confusion(true_positives=10**9, positives=10**9, true_negatives=10**9, negatives=10**9)
    value = corrected_rate(passed(0.3, 100), range(100), perfect)
    middle = (30 + Z**2 / 2) / (100 + Z**2)
    half = Z * math.sqrt(middle * (1 - middle) / (100 + Z**2))
    assert value.estimate == pytest.approx(0.3)
    assert [value.low, value.high] == pytest.approx([middle - half, middle + half], abs=1e-6)


def test_fewer_items_by_people_widen_the_interval() -> None:
    def width(value: Estimate) -> float:
        assert value.low is not None
        assert value.high is not None
        return value.high - value.low

    few = Confusion(true_positives=16, positives=20, true_negatives=18, negatives=20)
    wide, narrow = (width(corrected_rate(passed(0.62, 500), range(500), one)) for one in (few, GOOD))
    assert wide > 1.5 * narrow
    # However many items the judge sees, the uncertainty of its own errors stays.
    endless = width(corrected_rate(passed(0.62, 50_000), range(50_000), GOOD))
    assert 0.5 * narrow < endless < narrow
    clustered = width(corrected_rate(passed(0.62, 500), np.arange(500) // 50, GOOD))
    assert clustered > 1.5 * narrow


def test_what_cannot_be_corrected() -> None:
    coin = Confusion(true_positives=55, positives=100, true_negatives=60, negatives=100)
    refused = corrected_rate(passed(0.62, 500), range(500), coin)
    assert (refused.estimate, refused.low) == (None, None)
    assert "sensitivity + specificity - 1 = 0.15 is below 0.2" in refused.method
    one_kind = Confusion(true_positives=5, positives=5, true_negatives=0, negatives=0)
    assert "no item of one kind" in corrected_rate([True], [0], one_kind).method
    assert corrected_rate([], [], GOOD).estimate is None
    assert corrected_rate(passed(0.5, 10), [0] * 10, GOOD).low is None
    with pytest.raises(ValueError, match="right more often"):
        Confusion(true_positives=6, positives=5, true_negatives=0, negatives=0)


def test_a_rate_outside_the_unit_interval_is_held_to_it() -> None:
    value = corrected_rate(passed(0.07, 100), range(100), GOOD)  # one in ten would pass by error alone
    assert (value.estimate, value.low) == (0.0, 0.0)
    assert value.high is not None
    assert 0 < value.high < 0.2
    # Two in a hundred are too few for a judge who lets one in ten through.
    refused = corrected_rate(passed(0.02, 100), range(100), GOOD)
    assert refused.estimate is None
    assert "does not err on these items as it did" in refused.method


def test_a_prediction_powered_mean_by_hand() -> None:
    # Judge alone 1, 2, 3: mean 2, variance of the mean 1/3. People less judge 0, -1: mean -1/2, variance 1/4.
    value = prediction_powered_mean([1, 2, 3], range(3), [1, 1], [1, 2], range(2))
    variance = 1 / 3 + 1 / 4
    freedom = variance**2 / ((1 / 3) ** 2 / 2 + (1 / 4) ** 2 / 1)
    assert value.estimate == 1.5
    assert value.low is not None
    assert value.high is not None
    assert freedom == pytest.approx(49 / 17)
    # Student's t with 2.88 degrees of freedom lies between those with 2 and 3: 4.303 and 3.182.
    assert 3.182 < (value.high - value.low) / 2 / math.sqrt(variance) < 4.303
    assert prediction_powered_mean([], [], [1, 1], [1, 2], range(2)).estimate is None
    certain = prediction_powered_mean([1, 2, 3], range(3), [1, 2], [1, 2], range(2))
    assert (certain.estimate, certain.low) == (2.0, None)
    with pytest.raises(ValueError, match="the same items: got 1 and 2"):
        prediction_powered_mean([1], [0], [1], [1, 2], [0])
