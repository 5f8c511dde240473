"""The confidence that is asked for reaches every interval: at one half they are narrower than at 95 %."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.statistics.calibration import calibration, fit_temperature
from pipeline.statistics.concordance import concordance
from pipeline.statistics.decisions import Decision, gate_entry
from pipeline.statistics.intervals import (
    Estimate,
    mean_interval,
    paired_difference,
    paired_proportion_difference,
    paired_ratio_difference,
    proportion_interval,
    ratio_interval,
    unit_mean,
    wilson,
)
from pipeline.statistics.judge_correction import Confusion, corrected_rate, prediction_powered_mean
from pipeline.statistics.length_control import length_controlled_win_rate
from pipeline.statistics.power import detectable_difference, items_needed, minimum_detectable
from pipeline.statistics.ratings import policy_ratings
from pipeline.statistics.win_rates import order_effects, win_rate

N = 24
GENERATOR = np.random.default_rng(11)
VALUES, OTHERS = (GENERATOR.random(N).tolist() for _ in range(2))
PASSED, FAILED = [number % 3 > 0 for number in range(N)], [number % 4 == 0 for number in range(N)]
PAIRS = [number // 2 for number in range(N)]  # the clusters
LENGTHS = [10.0 + number % 7 for number in range(N)]
CONFUSION = Confusion(true_positives=80, positives=100, true_negatives=90, negatives=100)

MAKERS: dict[str, Callable[[float], Estimate]] = {
    "wilson": lambda level: wilson(8, 10, level),
    "proportion": lambda level: proportion_interval(PASSED, range(N), level),
    "clustered proportion": lambda level: proportion_interval(PASSED, PAIRS, level),
    "mean": lambda level: mean_interval(VALUES, PAIRS, level),
    "paired": lambda level: paired_difference(VALUES, OTHERS, PAIRS, level),
    "paired proportions": lambda level: paired_proportion_difference(PASSED, FAILED, PAIRS, level),
    "unit mean": lambda level: unit_mean(VALUES, PAIRS, level),
    "ratio": lambda level: ratio_interval(VALUES, LENGTHS, PAIRS, level),
    "paired ratio": lambda level: paired_ratio_difference(VALUES, OTHERS, LENGTHS, PAIRS, level),
    "win rate": lambda level: win_rate(VALUES, PAIRS, level),
    "consistency": lambda level: order_effects(PASSED, FAILED, PAIRS, level).consistency,
    "first slot": lambda level: order_effects(PASSED, FAILED, PAIRS, level).first_slot_bias,
    "corrected": lambda level: corrected_rate(PASSED, range(N), CONFUSION, level),
    "corrected clusters": lambda level: corrected_rate(PASSED, PAIRS, CONFUSION, level),
    "prediction-powered": lambda level: prediction_powered_mean(VALUES, PAIRS, VALUES, OTHERS, PAIRS, level),
    "temperature": lambda level: fit_temperature([1.0] * N, PASSED, PAIRS, level),
    "calibration error": lambda level: calibration(VALUES, PASSED, PAIRS, confidence=level, draws=300).ece,
    "Brier": lambda level: calibration(VALUES, PASSED, PAIRS, confidence=level, draws=9).brier,
    "nats": lambda level: calibration(VALUES, PASSED, PAIRS, confidence=level, draws=9).nll,
    "bin": lambda level: calibration(VALUES, PASSED, PAIRS, num_bins=2, confidence=level, draws=9).bins[0].accuracy,
    "observed": lambda level: concordance(
        PASSED, FAILED, PAIRS, categories=[0, 1], confidence=level, draws=300).observed,
    "kappa": lambda level: concordance(PASSED, FAILED, PAIRS, categories=[0, 1], confidence=level, draws=300).kappa,
    "AC1": lambda level: concordance(PASSED, FAILED, PAIRS, categories=[0, 1], confidence=level, draws=300).gwet_ac1,
    "length control": lambda level: length_controlled_win_rate(
        VALUES, LENGTHS, LENGTHS[::-1], PAIRS, confidence=level, draws=300),
    "rating": lambda level: policy_ratings(
        [0] * N, [1] * N, VALUES, PAIRS, num_policies=2, confidence=level, draws=300).policies[0],
}  # fmt: skip


def limits(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


@pytest.mark.parametrize("name", MAKERS)
def test_half_as_sure_is_narrower(name: str) -> None:
    wide, narrow = MAKERS[name](0.95), MAKERS[name](0.5)
    (low, high), (inner_low, inner_high) = limits(wide), limits(narrow)
    assert low <= inner_low < inner_high <= high
    assert inner_high - inner_low < 0.75 * (high - low)
    assert wide.estimate == narrow.estimate


def test_at_one_half_students_t_with_one_degree_of_freedom_is_one() -> None:
    """Its quantile is tan(pi / 4). Differences 1 and 3: mean 2, standard error 1."""
    assert limits(paired_difference([2, 5], [1, 2], ["a", "b"], 0.5)) == pytest.approx((1.0, 3.0))
    assert limits(mean_interval([1, 3], ["a", "b"], 0.5)) == pytest.approx((1.0, 3.0))
    # Two such means added up, 2 and 1: squared errors 1 and 1, two degrees of freedom, quantile sqrt(2 / 3).
    powered = prediction_powered_mean([1, 3], ["a", "b"], [0, 2], [0, 0], ["a", "b"], 0.5)
    half = math.sqrt(2 / 3) * math.sqrt(2)
    assert limits(powered) == pytest.approx((3.0 - half, 3.0 + half))


def test_what_could_be_detected_is_read_off_with_the_intervals_own_confidence() -> None:
    """Two clusters, standard error 1: the quantile is 1 at one half, and the power adds 0.8416."""
    made = paired_difference([2, 5], [1, 2], ["a", "b"], 0.5)
    assert minimum_detectable(made, confidence=0.5) == pytest.approx(1 + 0.8416212336)
    entry = gate_entry("g", "what", made, Decision.PASS, confidence=0.5)
    assert entry["minimum_detectable"] == pytest.approx(1 + 0.8416212336)
    # By the normal quantiles 0.6745 and 0.8416 for planning.
    factor = 0.6744897502 + 0.8416212336
    assert detectable_difference(4, 1.0, confidence=0.5) == pytest.approx(factor / 2)
    assert items_needed(0.1, 1.0, confidence=0.5) == math.ceil((factor / 0.1) ** 2)
