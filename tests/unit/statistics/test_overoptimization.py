"""The laws of over-optimisation: planted coefficients come back, and peaks are where calculus puts them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.statistics.overoptimization import Law, best_of_n_kl, fit_overoptimization

KL = np.linspace(0, 60, 40)


def law(kl: np.ndarray, alpha: float, beta: float, which: Law) -> np.ndarray:
    d = np.sqrt(kl)
    bend = np.log(np.where(d > 0, d, 1)) if which is Law.reinforcement else d
    return d * (alpha - beta * bend)


@pytest.mark.parametrize("which", list(Law))
def test_planted_coefficients_come_back(which: Law) -> None:
    scores = law(KL, 1.2, 0.4, which) + np.random.default_rng(0).normal(0, 0.01, len(KL))
    fit = fit_overoptimization(KL, scores, which)
    assert fit is not None
    assert (fit.alpha, fit.beta) == pytest.approx((1.2, 0.4), abs=0.02)
    assert fit.explained is not None
    assert fit.explained > 0.99
    other = next(one for one in Law if one is not which)
    wrong = fit_overoptimization(KL, scores, other)
    assert wrong is not None
    assert wrong.explained is not None
    assert wrong.explained < fit.explained


def test_the_peak_is_where_the_curve_turns() -> None:
    dense = np.linspace(0.01, 80, 200_000)
    for which, alpha, beta in ((Law.reinforcement, 1.2, 0.6), (Law.best_of_n, 1.2, 0.15)):
        fit = fit_overoptimization(KL, law(KL, alpha, beta, which), which)
        assert fit is not None
        assert fit.peak_kl == pytest.approx(dense[law(dense, alpha, beta, which).argmax()], rel=1e-3)
    assert fit_overoptimization(KL, law(KL, 1.2, 0.6, Law.reinforcement), Law.reinforcement) is not None
    # exp(1.2 / 0.6 - 1) = e in d, e^2 in nats.
    fit = fit_overoptimization(KL, law(KL, 1.2, 0.6, Law.reinforcement), Law.reinforcement)
    assert fit is not None
    assert fit.peak_kl == pytest.approx(math.e**2, rel=1e-6)


def test_scores_without_a_peak() -> None:
    rising = fit_overoptimization(KL, law(KL, 0.5, -0.1, Law.best_of_n), Law.best_of_n)
    assert rising is not None
    assert rising.peak_kl is None
    assert rising.reason == "the score bends upwards: no peak"
    falling = fit_overoptimization(KL, law(KL, -0.5, 0.1, Law.best_of_n), Law.best_of_n)
    assert falling is not None
    assert falling.reason == "the score falls from the start"
    assert fit_overoptimization([0, 1, 2], [0, 1, 2], Law.reinforcement) is None
    with pytest.raises(ValueError, match="not negative"):
        fit_overoptimization([-1, 1, 2, 3], [0, 1, 2, 3], Law.reinforcement)


def test_the_divergence_of_the_best_of_n_by_hand() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(2) == pytest.approx(math.log(2) - 0.5)
    # Exactly, for continuous scores: the density of the best is n u^(n-1), its divergence the integral of it times log.
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = 4 * u**3
    assert best_of_n_kl(4) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        best_of_n_kl(0)
