"""Agreement of a judge with people, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.statistics.agreement import Level
from pipeline.statistics.concordance import concordance


def test_skewed_verdicts_by_hand() -> None:
    # 118 both yes, 5 and 2 mixed, 0 both no: p_o = 118/125. Kappa: p_e = (123 * 120 + 2 * 5) / 125^2, below zero.
    # AC1: mean share of yes 243/250, p_e = 2 * 243 * 7 / 250^2 for two categories.
    first, second = [1] * 118 + [1] * 5 + [0] * 2, [1] * 118 + [0] * 5 + [1] * 2
    value = concordance(first, second, range(125), categories=[0, 1], draws=500)
    observed, by_chance, ac1_chance = 118 / 125, (123 * 120 + 2 * 5) / 125**2, 2 * 243 * 7 / 250**2
    assert value.observed.estimate == observed
    assert value.kappa.estimate == pytest.approx((observed - by_chance) / (1 - by_chance))
    assert value.gwet_ac1.estimate == pytest.approx((observed - ac1_chance) / (1 - ac1_chance))
    assert value.kappa.estimate is not None
    assert value.gwet_ac1.estimate is not None
    assert value.kappa.estimate < 0 < 0.9 < value.gwet_ac1.estimate


def test_ac1_counts_categories_that_nobody_used() -> None:
    # p_o = 3/4 and shares 5/8, 3/8: p_e = (2 * 15/64) / (K - 1).
    two = concordance([1, 1, 0, 1], [1, 1, 0, 0], range(4), categories=[0, 1], draws=50).gwet_ac1.estimate
    three = concordance([1, 1, 0, 1], [1, 1, 0, 0], range(4), categories=[0, 1, 2], draws=50).gwet_ac1.estimate
    assert two == pytest.approx((0.75 - 30 / 64) / (1 - 30 / 64))
    assert three == pytest.approx((0.75 - 15 / 64) / (1 - 15 / 64))


def test_weights_by_hand() -> None:
    # One disagreement by two places among four: 1 - 4 * 4 / (sum of 4 n_i n_j over the margins at distance two, ...).
    first, second = [0, 1, 2, 2], [0, 1, 2, 0]
    # Margins 1 1 2 and 2 1 1: expected = 1*1*1 + 1*1*4 + 1*2*1 + 1*1*1 + 2*2*4 + 2*1*1 = 26, observed 4 * 4.
    value = concordance(first, second, range(4), categories=[0, 1, 2], level=Level.ordinal, draws=50)
    assert value.kappa.estimate == pytest.approx(1 - 16 / 26)
    # Categories far apart: the distance of places is blind to it.
    apart = concordance([0, 1, 9, 9], [0, 1, 9, 0], range(4), categories=[0, 1, 9], level=Level.interval, draws=50)
    assert apart.kappa.estimate == pytest.approx(1 - 81 * 4 / (1 + 81 + 2 + 64 + 4 * 81 + 2 * 64))
    places = concordance([0, 1, 9, 9], [0, 1, 9, 0], range(4), categories=[0, 1, 9], level=Level.ordinal, draws=50)
    assert places.kappa.estimate == value.kappa.estimate


def test_perfect_and_constant_verdicts() -> None:
    same = concordance([0, 1] * 20, [0, 1] * 20, range(40), categories=[0, 1], draws=500)
    assert (same.observed.estimate, same.kappa.estimate, same.gwet_ac1.estimate) == (1.0, 1.0, 1.0)
    assert same.observed.low is not None
    assert same.observed.low < 1
    for value in (same.kappa, same.gwet_ac1):
        assert value.low is not None
        assert 0.7 < value.low < 0.99  # forty agreements do not make it certain
        assert value.high == 1.0
    constant = concordance([1] * 40, [1] * 40, range(40), categories=[0, 1], draws=500)
    assert constant.kappa.estimate is None
    assert "do not determine the kappa" in constant.kappa.method
    assert constant.gwet_ac1.estimate == 1.0


def test_clusters_widen_the_interval() -> None:
    generator = np.random.default_rng(0)
    first = np.repeat(generator.integers(0, 2, 60), 5)
    second = np.where(np.repeat(generator.random(60) < 0.75, 5), first, 1 - first)
    widths = []
    for clusters in (np.repeat(np.arange(60), 5), np.arange(300)):
        kappa = concordance(first.tolist(), second.tolist(), clusters.tolist(), categories=[0, 1]).kappa
        assert kappa.low is not None
        assert kappa.high is not None
        widths.append(kappa.high - kappa.low)
    assert widths[0] / widths[1] == pytest.approx(5**0.5, rel=0.1)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="the same items: got 1 and 2"):
        concordance([1], [1, 0], [0], categories=[0, 1])
    with pytest.raises(ValueError, match="the verdict 3 is none of the categories"):
        concordance([1], [3], [0], categories=[0, 1])
    with pytest.raises(ValueError, match="at least two"):
        concordance([1], [1], [0], categories=[1])
