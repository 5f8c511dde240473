"""Strengths against closed forms, an independent library, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from pipeline.statistics.bradley_terry import bradley_terry, win_probability

FLAT = 1e4  # a prior so wide that the maximum of the likelihood is left

# 0 and 1 met five times, 1 and 2 five times, 0 and 3 three times.
MEETINGS = ([0, 1, 0], [1, 2, 3], [3, 4, 1], [2, 1, 2])
BY_MM = [0.3760193491932776, -0.029445758911919973, -1.4157401200309345, 1.0691665297495772]  # choix 0.4.1, mm_pairwise
# choix 0.4.1, opt_pairwise with alpha = 1/18: its penalty is alpha |s|^2, ours |s|^2 / (2 * 3^2).
BY_PENALTY = [0.317106255716432, 0.0203482339735897, -1.2061073392848811, 0.8686528495948591]


def test_two_that_met_have_the_odds_of_their_wins() -> None:
    strengths = bradley_terry([0], [1], [3], [1], num_nodes=2, prior_deviation=FLAT)
    assert strengths == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-6)
    assert float(win_probability(*strengths)) == pytest.approx(0.75, abs=1e-6)
    # Negative control: the wins the other way round.
    assert bradley_terry([0], [1], [1], [3], num_nodes=2, prior_deviation=FLAT) == pytest.approx(-strengths)


def test_against_an_independent_library() -> None:
    assert bradley_terry(*MEETINGS, num_nodes=4, prior_deviation=FLAT) == pytest.approx(BY_MM, abs=1e-6)
    assert bradley_terry(*MEETINGS, num_nodes=4) == pytest.approx(BY_PENALTY, abs=1e-6)
    assert bradley_terry(*MEETINGS, num_nodes=4) != pytest.approx(BY_MM, abs=1e-2)


@pytest.mark.parametrize(("wins", "expected"), [(1, 0.886), (3, 0.947), (1e9, 1.0)])
def test_who_never_lost_has_a_finite_strength(wins: float, expected: float) -> None:
    strengths = bradley_terry([0], [1], [wins], [0], num_nodes=2)
    # With d = s_0 - s_1 the slope of the log posterior is wins / (1 + e^d) - d / 18.
    gap = brentq(lambda d: wins / (1 + math.exp(d)) - d / 18, 0, 100)
    assert strengths[0] - strengths[1] == pytest.approx(gap, rel=1e-6)
    assert float(win_probability(*strengths)) == pytest.approx(expected, abs=5e-4)


def test_a_circle_and_ties_leave_everybody_equal() -> None:
    assert bradley_terry([0, 1, 2], [1, 2, 0], [1, 1, 1], [0, 0, 0], num_nodes=3) == pytest.approx([0, 0, 0], abs=1e-9)
    assert bradley_terry([0], [1], [0.5], [0.5], num_nodes=2) == pytest.approx([0, 0], abs=1e-12)


def test_strength_passes_along_a_chain() -> None:
    strengths = bradley_terry([0, 1], [1, 2], [1, 1], [0, 0], num_nodes=3)
    assert strengths[0] > strengths[1] > strengths[2]
    assert strengths[1] == pytest.approx(0, abs=1e-9)


def test_groups_that_never_met_do_not_touch_each_other() -> None:
    # Nodes of three groups interleaved: 0-3-5, 1-4, and 2, who met nobody.
    first, second, won, lost = [3, 1, 0], [0, 4, 5], [2.0, 1.0, 3.0], [1.0, 0.0, 1.0]
    together = bradley_terry(first, second, won, lost, num_nodes=6)
    three = bradley_terry([1, 0], [0, 2], [2, 3], [1, 1], num_nodes=3)
    two = bradley_terry([0], [1], [1], [0], num_nodes=2)
    assert together[[0, 3, 5]] == pytest.approx(three, abs=1e-12)
    assert together[[1, 4]] == pytest.approx(two, abs=1e-12)
    assert together[2] == 0
    # Negative control: one meeting between them, and they do.
    joined = bradley_terry([*first, 0], [*second, 1], [*won, 1], [*lost, 0], num_nodes=6)
    assert joined[[1, 4]] != pytest.approx(two, abs=1e-2)


def test_many_groups_of_uneven_counts_all_converge() -> None:
    generator = np.random.default_rng(0)
    first = np.repeat(np.arange(0, 4000, 4), 3)
    second = first + np.tile([1, 2, 3], 1000)
    won, lost = 10.0 ** generator.uniform(-3, 4, (2, 3000))
    strengths = bradley_terry(first, second, won, lost, num_nodes=4000)
    # At the maximum wins less expected wins equal what the prior pulls, for every node.
    surplus = won - (won + lost) * win_probability(strengths[first], strengths[second])
    pull = np.bincount(first, surplus, 4000) - np.bincount(second, surplus, 4000) - strengths / 9
    assert np.abs(pull).max() < 1e-5
    assert np.abs(strengths).max() > 5


def test_negative_wins_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        bradley_terry([0], [1], [-1], [1], num_nodes=2)
