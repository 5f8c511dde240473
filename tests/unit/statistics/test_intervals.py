"""Intervals against values worked by hand, and where a plain t interval fails."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.statistics.intervals import (
    Estimate,
    mean_interval,
    paired_difference,
    paired_proportion_difference,
    paired_ratio_difference,
    proportion_interval,
    ratio_interval,
    wilson,
)

T_1 = 12.706204736174707  # tan(0.475 pi): Student's t with one degree of freedom is Cauchy
Z = 1.959963984540054


def limits(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def test_the_quantile_used_in_this_file_is_the_closed_form() -> None:
    assert pytest.approx(math.tan(0.475 * math.pi), rel=1e-12) == T_1


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),  # R: prop.test(8, 10, correct = FALSE)
        (0, 10, 0.0, Z**2 / (10 + Z**2)),  # the upper limit in closed form
        (10, 10, 10 / (10 + Z**2), 1.0),  # and its mirror image
        (1, 2, 0.5 - Z / 2 / math.sqrt(2 + Z**2), 0.5 + Z / 2 / math.sqrt(2 + Z**2)),  # at one half the centre stays
    ],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert limits(wilson(successes, n)) == pytest.approx((low, high), abs=5e-8)


def test_a_mean_of_two_clusters_by_hand() -> None:
    # Mean 2.5; cluster sums of the residuals -2 and +2; SE = sqrt(2/1 * 8) / 4 = 1.
    result = mean_interval([1, 2, 3, 4], ["a", "a", "b", "b"])
    assert result.estimate == 2.5
    assert limits(result) == pytest.approx((2.5 - T_1, 2.5 + T_1))
    assert (result.n, result.clusters) == (4, 2)
    # Negative control: as four clusters the residuals do not add up, SE = sqrt(4/3 * 5) / 4 = 0.6455, and t has 3 df.
    assert limits(mean_interval([1, 2, 3, 4], [1, 2, 3, 4]))[1] == pytest.approx(2.5 + 3.182446305 * 0.6454972244)


def test_a_paired_difference_is_the_mean_of_the_differences() -> None:
    # d = 1, 3: mean 2, residuals -1 and +1, SE = sqrt(2 * 2) / 2 = 1.
    assert limits(paired_difference([2, 5], [1, 2], ["a", "b"])) == pytest.approx((2 - T_1, 2 + T_1))


def test_a_ratio_by_hand() -> None:
    # R = 5/4; residuals 2 - 1.25 and 3 - 3.75, so +-0.75; SE = sqrt(2 * 1.125) / 4 = 0.375.
    result = ratio_interval([2, 3], [1, 3], ["a", "b"])
    assert result.estimate == 1.25
    assert limits(result) == pytest.approx((1.25 - 0.375 * T_1, 1.25 + 0.375 * T_1))


def test_a_ratio_difference_weighs_items_by_their_denominator() -> None:
    result = paired_ratio_difference([4, 9], [2, 6], [1, 3], ["a", "b"])  # the differences are those of the test above
    assert result.estimate == 1.25  # (2 + 3) / (1 + 3); the mean of 2/1 and 3/3 would be 1.5
    assert limits(result) == pytest.approx((1.25 - 0.375 * T_1, 1.25 + 0.375 * T_1))


def test_bonett_and_price_by_hand() -> None:
    # 6 items that only `a` passes, 1 that only `b` does, 3 ties: centre 7/12 - 2/12, SE^2 = (9/12 - (5/12)^2) / 12.
    a, b = [True] * 6 + [False] + [True, True, False], [False] * 6 + [True] + [True, True, False]
    result = paired_proportion_difference(a, b, range(10))
    half = 2.2621571628 * math.sqrt((9 / 12 - (5 / 12) ** 2) / 12)  # t with 9 degrees of freedom
    assert result.estimate == pytest.approx(0.5)
    assert limits(result) == pytest.approx((5 / 12 - half, 5 / 12 + half), rel=1e-8)


def test_agreement_on_every_item_does_not_prove_equality() -> None:
    low, high = limits(paired_proportion_difference([True] * 24, [True] * 24, range(24)))
    assert high == pytest.approx(2.0686576104 * math.sqrt(2 / 26 / 26), rel=1e-8)
    assert low == pytest.approx(-high)
    same = paired_difference([1.0] * 24, [1.0] * 24, range(24))  # what a plain t interval has to say about it
    assert (same.low, same.high) == (None, None)
    assert "do not vary" in same.method


def test_repeated_clusters_widen_a_proportion_and_a_perfect_score_counts_clusters() -> None:
    passed = [True] * 6 + [False] * 6
    together = proportion_interval(passed, [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)
    # With the two pseudo-clusters six sums of +-1.5: SE^2 = 6 * 2.25 / 18^2 = 1/24, so 6 effective items of 6 clusters.
    t_3 = 3.182446305284263
    half = t_3 / 2 / math.sqrt(4 + t_3**2)  # Wilson's half-width at one half, for the 4 clusters
    assert limits(together) == pytest.approx((0.5 - half, 0.5 + half))
    assert limits(together)[0] < limits(wilson(6, 12))[0] < 0.5
    perfect = proportion_interval([True] * 12, [0] * 4 + [1] * 4 + [2] * 4)
    t_2 = 4.302652729911275
    assert limits(perfect) == pytest.approx((3 / (3 + t_2**2), 1.0))


def test_clusters_that_balance_each_other_tell_no_more_than_their_items() -> None:
    """Each of 10 clusters passes once and fails once, so that only the two added ones vary: 20 items, t for 10."""
    balanced = proportion_interval([True, False] * 10, [number // 2 for number in range(20)])
    t_9 = 2.2621571628
    half = t_9 / 2 / math.sqrt(20 + t_9**2)  # Wilson's half-width at one half
    assert limits(balanced) == pytest.approx((0.5 - half, 0.5 + half))


def test_differences_near_the_end_of_their_range_stay_inside_it() -> None:
    low, high = limits(paired_proportion_difference([False] * 3, [True] * 3, range(3)))
    assert low == -1.0
    assert -1.0 < high < 1.0
    low, high = limits(paired_proportion_difference([True] * 3, [False] * 3, range(3)))
    assert -1.0 < low < 1.0
    assert high == 1.0


def test_rounding_is_no_spread() -> None:
    """The mean of three times 0.1 is not 0.1 to the last bit."""
    assert sum([0.1] * 3) / 3 != 0.1
    same = mean_interval([0.1] * 3, range(3))
    assert (same.low, same.high) == (None, None)


def test_fewer_than_thirty_clusters_are_called_approximate() -> None:
    few, enough = (mean_interval(list(range(count)), range(count)).method for count in (29, 30))
    assert few.endswith("t with 28 degrees of freedom (fewer than 30 clusters: approximate)")
    assert enough.endswith("t with 29 degrees of freedom")


def test_single_clusters_and_no_items_have_no_interval() -> None:
    one = [
        mean_interval([1.0, 2.0], ["a", "a"]),
        paired_difference([1.0, 2.0], [0.0, 0.0], ["a", "a"]),
        paired_proportion_difference([True, False], [False, False], ["a", "a"]),
        paired_ratio_difference([1.0, 2.0], [0.0, 0.0], [1.0, 1.0], ["a", "a"]),
        proportion_interval([True, False], ["a", "a"]),
    ]
    for result in one:
        assert (result.low, result.high) == (None, None)
        assert result.estimate is not None
        assert "one cluster" in result.method
    for result in (mean_interval([], []), wilson(0, 0), proportion_interval([], [])):
        assert (result.estimate, result.low, result.high) == (None, None, None)
        assert "no items" in result.method


def test_different_items_on_the_two_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="same items on both sides: got 2 and 3"):
        paired_difference([1, 2], [1, 2, 3], ["a", "b"])
    with pytest.raises(ValueError, match="2 items and 1 clusters"):
        mean_interval([1, 2], ["a"])
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1, math.nan], ["a", "b"])
    with pytest.raises(ValueError, match="denominators"):
        ratio_interval([1, 2], [0, 0], ["a", "b"])


def coverage(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


@pytest.mark.parametrize("size", [1, 4])
def test_paired_proportions_cover_in_small_sets_where_a_plain_t_interval_fails(size: int) -> None:
    """800 data sets of 24 clusters in which one item in 20 flips one way and one in 40 the other."""
    generator = np.random.default_rng(7)
    clusters = np.repeat(np.arange(24), size).tolist()
    outcome = np.repeat(generator.choice([1, -1, 0], p=[0.05, 0.025, 0.925], size=(800, 24)), size, axis=1)
    adjusted, plain = [], []
    for row in outcome:
        a, b = (row == 1).tolist(), (row == -1).tolist()
        low, high = limits(paired_proportion_difference(a, b, clusters))
        adjusted.append(low <= 0.025 <= high)
        result = paired_difference(a, b, clusters)
        plain.append(result.low is not None and result.high is not None and result.low <= 0.025 <= result.high)
    assert coverage(adjusted) >= 0.93
    assert coverage(plain) < 0.90
