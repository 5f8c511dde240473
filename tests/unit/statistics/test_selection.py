"""Choosing the best of many: quantiles against tables and closed forms, and false claims counted by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.statistics.intervals import mean_interval, paired_proportion_difference, paired_ratio_difference
from pipeline.statistics.power import standard_error
from pipeline.statistics.selection import chance_lead, influences, max_t_quantile, possibly_best, widened


def independent(num_clusters: int, columns: int) -> np.ndarray:
    """Columns of influences that are exactly uncorrelated."""
    drawn = np.random.default_rng(3).standard_normal((num_clusters, columns))
    return np.linalg.qr(drawn - drawn.mean(axis=0))[0]


def test_one_difference_needs_students_t_and_no_more() -> None:
    assert max_t_quantile(independent(31, 1)) == pytest.approx(stats.t.ppf(0.975, 30))


def test_equal_columns_cost_nothing_and_independent_ones_what_sidak_says() -> None:
    one = independent(2000, 1)
    assert max_t_quantile(np.repeat(one, 8, axis=1)) == pytest.approx(stats.norm.ppf(0.975), rel=0.02)
    sidak = stats.norm.ppf(0.5 + 0.95 ** (1 / 8) / 2)
    assert max_t_quantile(independent(2000, 8)) == pytest.approx(sidak, rel=0.02)
    assert sidak > 1.3 * stats.norm.ppf(0.975)  # so that 2 % would see one taken for the other


@pytest.mark.parametrize(("others", "freedom", "table"), [(2, 10, 2.57), (4, 20, 2.65), (4, 60, 2.51)])
def test_equal_groups_against_one_control_need_what_dunnett_tabulated(others: int, freedom: int, table: float) -> None:
    """Two-sided 5 % points of C. W. Dunnett, Biometrics 20 (1964) 482-491; correlations of one half."""
    groups = independent(freedom + 1, others + 1)
    assert max_t_quantile(groups[:, 1:] - groups[:, :1], draws=200_000) == pytest.approx(table, rel=0.01)


def test_differences_without_spread_are_left_out() -> None:
    columns = independent(50, 2)
    with_nothing = np.hstack([columns, np.zeros((50, 3))])
    assert max_t_quantile(with_nothing) == pytest.approx(max_t_quantile(columns), rel=1e-12)
    assert max_t_quantile(np.zeros((50, 3))) == pytest.approx(stats.t.ppf(0.975, 49))


def test_influences_give_the_standard_errors_of_the_intervals() -> None:
    generator = np.random.default_rng(5)
    values, weights = generator.random((30, 2)), generator.integers(1, 6, 30).astype(float)
    clusters = [number // 2 for number in range(30)]
    ratio = paired_ratio_difference(list(values[:, 0]), list(values[:, 1]), list(weights), clusters)
    found = influences(values, weights, clusters)
    error = np.sqrt(15 / 14 * ((found[:, 0] - found[:, 1]) ** 2).sum())
    assert error == pytest.approx(standard_error(ratio), rel=1e-9)
    mean = mean_interval(list(values[:, 0]), clusters)
    own = influences(values[:, :1], np.ones(30), clusters)
    assert np.sqrt(15 / 14 * (own**2).sum()) == pytest.approx(standard_error(mean), rel=1e-9)


def test_the_lead_of_equals_is_the_mean_of_the_largest_normal() -> None:
    columns = independent(400, 5) * np.sqrt(399 / 400)  # standard errors of 1
    assert chance_lead(columns) == pytest.approx(1.1630, rel=0.03)  # E max of 5 normals, H. L. Harter (1961)
    assert chance_lead(columns[:, :1]) == pytest.approx(0.0, abs=0.03)


def test_a_wider_quantile_widens_around_the_same_centre() -> None:
    low, high = widened(-1.0, 3.0, 2 * stats.t.ppf(0.975, 9), 10)
    assert (low, high) == pytest.approx((-3.0, 5.0))


def test_only_what_the_items_tell_apart_leaves_the_subset() -> None:
    errors = independent(200, 4)
    assert possibly_best([0.0, 0.0, 0.0, 9.0], errors) == [False, False, False, True]
    assert possibly_best([0.0, 0.1, 0.0, 0.1], errors) == [True] * 4
    twins = np.repeat(errors[:, :1], 3, axis=1)
    assert possibly_best([1.0, 1.0, 0.5], twins) == [True, True, False]  # no spread: the numbers decide


def equal_policies(seed: int, num_policies: int, gain: float = 0.0) -> tuple[np.ndarray, list[int]]:
    """Passes of policies on 60 prompts of two items each; the last one is better by `gain`, the others are equal."""
    generator = np.random.default_rng(seed)
    difficulty = np.repeat(generator.uniform(0.2, 0.8, 60), 2)[:, None]
    chance = np.clip(difficulty + gain * (np.arange(num_policies) == num_policies - 1), 0.0, 1.0)
    return (generator.random((120, num_policies)) < chance).astype(float), [number // 2 for number in range(120)]


def difference(passed: np.ndarray, policy: int, clusters: list[int]) -> tuple[float, float]:
    found = paired_proportion_difference(list(passed[:, policy] == 1), list(passed[:, 0] == 1), clusters)
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


@pytest.mark.slow
def test_of_equal_policies_the_best_is_claimed_to_win_only_without_the_correction() -> None:
    """400 times: twelve equal policies and the one they are compared with; the naive interval is the control."""
    naive = corrected = without_it = 0
    for seed in range(400):
        passed, clusters = equal_policies(seed, 13)
        best = 1 + int(passed[:, 1:].mean(axis=0).argmax())
        low, high = difference(passed, best, clusters)
        errors = influences(passed, np.ones(120), clusters)
        quantile = max_t_quantile(errors[:, 1:] - errors[:, :1], draws=2000, seed=seed)
        naive += low > 0
        corrected += widened(low, high, quantile, 60)[0] > 0
        # All are equal, so the first is as good as the best: it must stay in the subset.
        without_it += not possibly_best(list(passed.mean(axis=0)), errors, draws=1000, seed=seed)[0]
    assert naive / 400 > 0.12
    assert corrected / 400 <= 0.05
    assert without_it / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
def test_a_policy_that_is_really_better_is_found_and_kept() -> None:
    """The correction is not bought with blindness: 30 points are seen, and the best stays in the subset."""
    seen = kept = alone = 0
    for seed in range(100):
        passed, clusters = equal_policies(seed, 13, gain=0.3)
        low, high = difference(passed, -1, clusters)
        errors = influences(passed, np.ones(120), clusters)
        quantile = max_t_quantile(errors[:, 1:] - errors[:, :1], draws=2000, seed=seed)
        seen += widened(low, high, quantile, 60)[0] > 0
        subset = possibly_best(list(passed.mean(axis=0)), errors, draws=1000, seed=seed)
        kept += subset[-1]
        alone += sum(subset) == 1
    assert seen >= 90
    assert kept >= 95
    assert alone >= 50
