"""Ratings of policies against the plain model, an independent library, and what must not matter."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.statistics.bradley_terry import PRIOR_DEVIATION, bradley_terry, win_probability
from pipeline.statistics.ratings import ELO_PER_NAT, Ratings, policy_ratings, style_differences

PAIRS = np.array(list(itertools.combinations(range(3), 2)))


def season(num_prompts: int, seed: int, taste: float = 1.0) -> tuple[np.ndarray, ...]:
    """Three policies meet on every prompt; the judge likes the look of a completion as much as ``taste``."""
    generator = np.random.default_rng(seed)
    strengths, habit = np.array([0.5, 0.0, -0.5]), np.array([-0.7, 0.0, 0.7])  # the worst writes the prettiest
    first, second = np.tile(PAIRS, (num_prompts, 1)).T
    looks = habit[first] - habit[second] + generator.normal(size=len(first))
    chance = win_probability(strengths[first] + taste * looks, strengths[second])
    wins = (generator.random(len(first)) < chance).astype(float)
    return first, second, wins, looks[:, None], np.repeat(np.arange(num_prompts), len(PAIRS))


def numbers(ratings: Ratings) -> list[float]:
    assert all(one.estimate is not None for one in ratings.policies)
    return [((one.estimate or 0) - 1000) / ELO_PER_NAT for one in ratings.policies]


def test_the_published_strengths_of_a_small_table() -> None:
    wins = [[0, 7, 9], [3, 0, 6], [1, 4, 0]]
    meetings = [(i, j, wins[i][j], wins[j][i]) for i, j in PAIRS.tolist()]
    flat = bradley_terry(*zip(*meetings, strict=True), num_nodes=3, prior_deviation=1e4)  # type: ignore[misc]
    # choix 0.4.1, mm_pairwise
    assert flat == pytest.approx([0.9436, -0.1602, -0.7834], abs=5e-5)
    assert float(win_probability(flat[0], flat[1])) == pytest.approx(0.751, abs=5e-4)


def test_without_style_it_is_bradley_and_terry() -> None:
    first, second, wins, _, clusters = season(50, seed=0)
    wins[:20] = 0.5
    ratings = policy_ratings(first, second, wins, clusters.tolist(), num_policies=3, draws=50)
    plain = bradley_terry(first, second, wins, 1 - wins, num_nodes=3)
    assert numbers(ratings) == pytest.approx(plain, abs=1e-6)
    assert sum(numbers(ratings)) == pytest.approx(0, abs=1e-9)
    assert ratings.styles == []


def test_with_style_it_is_a_logistic_regression() -> None:
    first, second, wins, looks, clusters = season(80, seed=1)
    ratings = policy_ratings(first, second, wins, clusters.tolist(), num_policies=3, styles=looks, draws=50)
    design = np.zeros((len(first), 4))
    design[np.arange(len(first)), first] = 1
    design[np.arange(len(first)), second] = -1
    design[:, 3:] = looks
    oracle = LogisticRegression(C=PRIOR_DEVIATION**2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    expected = oracle.fit(design, wins).coef_[0]
    assert [*numbers(ratings), ratings.styles[0].estimate] == pytest.approx(expected, abs=1e-5)
    plain = policy_ratings(first, second, wins, clusters.tolist(), num_policies=3, draws=50)
    assert numbers(plain) != pytest.approx(expected[:3], abs=0.1)


def test_style_hides_the_order_and_controlling_for_it_shows_it() -> None:
    first, second, wins, looks, clusters = season(3000, seed=2)
    raw = numbers(policy_ratings(first, second, wins, clusters.tolist(), num_policies=3, draws=20))
    controlled = policy_ratings(first, second, wins, clusters.tolist(), num_policies=3, styles=looks, draws=20)
    assert raw[2] > raw[0]
    assert numbers(controlled) == pytest.approx([0.5, 0.0, -0.5], abs=0.1)
    assert controlled.styles[0].estimate == pytest.approx(1.0, abs=0.1)


def test_swapping_the_sides_changes_nothing() -> None:
    first, second, wins, looks, clusters = season(60, seed=3)
    swap = np.random.default_rng(0).random(len(first)) < 0.5
    one = policy_ratings(first, second, wins, clusters.tolist(), num_policies=3, styles=looks, draws=200)
    other = policy_ratings(
        np.where(swap, second, first),
        np.where(swap, first, second),
        np.where(swap, 1 - wins, wins),
        clusters.tolist(),
        num_policies=3,
        styles=np.where(swap[:, None], -looks, looks),
        draws=200,
    )
    assert numbers(other) == pytest.approx(numbers(one), abs=1e-9)
    assert [entry.low for entry in other.policies] == pytest.approx([entry.low for entry in one.policies], abs=1e-6)


def test_who_never_lost_is_not_the_best_for_certain() -> None:
    first, second, wins, _, clusters = season(40, seed=4)
    wins[(first == 0) | (second == 0)] = 1.0  # 0 stands first in all its pairs
    best = policy_ratings(first, second, wins, clusters.tolist(), num_policies=3).policies[0]
    assert best.low is not None
    assert best.high is not None
    assert best.estimate is not None
    assert best.high - best.low > 150
    assert best.estimate > 1300


def test_clusters_widen_the_intervals() -> None:
    first, second, wins, _, _ = season(40, seed=5)
    four = [np.repeat(column, 4) for column in (first, second, wins)]
    widths = []
    for clusters in (np.repeat(np.arange(120), 4), np.arange(480)):
        best = policy_ratings(*four, clusters.tolist(), num_policies=3).policies[0]
        assert best.low is not None
        assert best.high is not None
        widths.append(best.high - best.low)
    assert widths[0] > 1.6 * widths[1]


def test_what_the_comparisons_do_not_determine() -> None:
    apart = policy_ratings([0, 2], [1, 3], [1, 0], range(2), num_policies=4)
    assert all(entry.estimate is None and "no chain" in entry.method for entry in apart.policies)
    assert "no items" in policy_ratings([], [], [], [], num_policies=2).policies[0].method
    one = policy_ratings([0], [1], [1], [0], num_policies=2).policies[0]
    assert one.estimate is not None
    assert one.low is None
    with pytest.raises(ValueError, match="compare two policies"):
        policy_ratings([1], [1], [1], [0], num_policies=2)


def test_style_differences_by_hand() -> None:
    # (3 - 1) / 4, 0, (0 - 5) / 5; their mean square is (0.25 + 0 + 1) / 3.
    spread = math.sqrt(1.25 / 3)
    found = style_differences([[3, 0], [2, 0], [0, 0]], [[1, 0], [2, 0], [5, 0]])
    assert found[:, 0] == pytest.approx([0.5 / spread, 0, -1 / spread])
    assert found[:, 1].tolist() == [0, 0, 0]
    assert style_differences([[1], [2], [5]], [[3], [2], [0]])[:, 0] == pytest.approx(-found[:, 0])
    with pytest.raises(ValueError, match="two tables of counts"):
        style_differences([[-1]], [[1]])
