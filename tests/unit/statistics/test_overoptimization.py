"""The law of over-optimisation: planted coefficients come back, and the peak is where calculus puts it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.statistics.overoptimization import fit_overoptimization

KL = np.linspace(0, 60, 40)


def law(kl: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    d = np.sqrt(kl)
    return d * (alpha - beta * np.log(np.where(d > 0, d, 1)))


def test_planted_coefficients_come_back() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, len(KL))
    fit = fit_overoptimization(KL, law(KL, 1.2, 0.4) + noise)
    assert fit is not None
    assert (fit.alpha, fit.beta) == pytest.approx((1.2, 0.4), abs=0.02)
    assert fit.explained is not None
    assert fit.explained > 0.99
    # Scores that follow another law, that of the best of n (section 3.1), fit worse.
    wrong = fit_overoptimization(KL, np.sqrt(KL) * (1.2 - 0.15 * np.sqrt(KL)) + noise)
    assert wrong is not None
    assert wrong.explained is not None
    assert wrong.explained < fit.explained


def test_the_peak_is_where_the_curve_turns() -> None:
    dense = np.linspace(0.01, 80, 200_000)
    fit = fit_overoptimization(KL, law(KL, 1.2, 0.6))
    assert fit is not None
    assert fit.peak_kl == pytest.approx(dense[law(dense, 1.2, 0.6).argmax()], rel=1e-3)
    assert fit.peak_kl == pytest.approx(math.e**2, rel=1e-6)  # exp(1.2 / 0.6 - 1) = e in d, e^2 in nats


def test_scores_without_a_peak() -> None:
    rising = fit_overoptimization(KL, law(KL, 0.5, -0.1))
    assert rising is not None
    assert rising.peak_kl is None
    assert rising.reason == "the score bends upwards: no peak"
    far = fit_overoptimization(KL, law(KL, 4.0, 0.01))
    assert far is not None
    assert far.reason == "the peak is out of any reach"
    assert fit_overoptimization([0, 1, 2], [0, 1, 2]) is None
    with pytest.raises(ValueError, match="not negative"):
        fit_overoptimization([-1, 1, 2, 3], [0, 1, 2, 3])
