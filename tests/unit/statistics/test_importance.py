"""How much a parameter decides: against scipy's H, hand-worked shares, and false claims counted by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.statistics.importance import MIN_TRIALS, Importance, importances


def named(found: list[Importance]) -> dict[str, Importance]:
    return {entry.name: entry for entry in found}


def test_the_share_is_eta_squared_of_kruskal_and_wallis() -> None:
    loss = ["a", "a", "a", "b", "b", "b", "c", "c", "c"]
    results = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 7.0, 8.0, 9.0]  # a tie across groups
    found = named(importances({"loss": loss}, results))["loss"]
    h = stats.kruskal(results[:3], results[3:6], results[6:]).statistic
    assert found.share == pytest.approx((h - 2) / 6)
    assert found.groups == 3
    assert found.trend is None


def test_a_parameter_that_decides_comes_before_one_that_does_not() -> None:
    generator = np.random.default_rng(0)
    rate, rank = list(10 ** generator.uniform(-5, -3, 24)), [8, 16, 32] * 8
    results = [-((np.log10(value) + 4) ** 2) + generator.normal(0, 0.02) for value in rate]  # best in the middle
    found = importances({"rank": rank, "rate": rate}, results)
    assert [entry.name for entry in found] == ["rate", "rank"]
    assert found[0].p_holm < 0.01 < 0.2 < found[1].p_holm
    assert found[0].trend is not None
    assert abs(found[0].trend) < 0.5  # a correlation alone would have missed it
    assert found[0].groups == 4


def test_the_trend_has_the_sign_of_the_effect() -> None:
    found = named(importances({"up": list(range(12)), "down": list(range(0, -12, -1))}, [float(k) for k in range(12)]))
    assert found["up"].trend == pytest.approx(1.0)
    assert found["down"].trend == pytest.approx(-1.0)


def test_few_trials_equal_results_and_fixed_parameters_say_nothing() -> None:
    few = MIN_TRIALS - 1
    assert importances({"rank": list(range(few))}, [float(k) for k in range(few)]) == []
    assert importances({"rank": list(range(12))}, [1.0] * 12) == []
    assert importances({"fixed": [3] * 12, "seed": [f"s{k}" for k in range(12)]}, [float(k) for k in range(12)]) == []


def test_booleans_are_levels_and_not_numbers() -> None:
    found = named(importances({"soft": [True, False] * 6}, [1.0, 0.0] * 6))["soft"]
    assert (found.groups, found.trend) == (2, None)
    assert found.share > 0.9


@pytest.mark.slow
def test_of_parameters_that_do_nothing_few_are_claimed() -> None:
    """300 searches of sixteen trials over three idle parameters; unadjusted p-values are the control."""
    claimed = unadjusted = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        parameters = {"rate": list(generator.random(16)), "rank": [8, 16] * 8, "loss": ["a", "b", "c", "d"] * 4}
        found = importances(parameters, list(generator.random(16)), draws=400, seed=seed)
        claimed += any(entry.p_holm <= 0.05 for entry in found)
        unadjusted += any(entry.p <= 0.05 for entry in found)
    assert claimed / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)
    assert unadjusted / 300 > 0.08
