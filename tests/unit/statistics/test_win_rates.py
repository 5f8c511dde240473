"""Win rates, order effects and length control against values worked by hand, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from pipeline.statistics.length_control import PRIOR_DEVIATION, length_controlled_win_rate
from pipeline.statistics.win_rates import order_effects, win_rate

T_9 = 2.2621571628  # Student's t with nine degrees of freedom


def test_a_win_rate_is_half_a_paired_difference() -> None:
    # Six wins, one loss, three ties: as differences 6/10 - 1/10, whose interval has the centre 5/12 (Bonett and Price).
    value = win_rate([1] * 6 + [0] + [0.5] * 3, range(10))
    half = T_9 * math.sqrt((9 / 12 - (5 / 12) ** 2) / 12)
    assert value.estimate == 0.75
    assert [value.low, value.high] == pytest.approx([0.5 + (5 / 12 - half) / 2, min(1, 0.5 + (5 / 12 + half) / 2)])
    # Negative control: with the ties thrown away the rate is another one.
    assert win_rate([1] * 6 + [0], range(7)).estimate == pytest.approx(6 / 7)


def test_winning_always_and_tying_always_are_not_certain() -> None:
    always, never = win_rate([1.0] * 50, range(50)), win_rate([0.5] * 50, range(50))
    assert always.low is not None
    assert (always.estimate, always.high) == (1.0, 1.0)
    assert 0.9 < always.low < 0.97
    assert never.low is not None
    assert never.high is not None
    assert (never.low + never.high) / 2 == pytest.approx(0.5)
    assert 0.01 < never.high - never.low < 0.1
    more = win_rate([1.0] * 500, range(500))
    assert more.low is not None
    assert more.low > always.low


def test_order_effects_by_hand() -> None:
    # A wins both, loses both, and on two pairs whoever stands first wins: half the pairs are consistent, and the first
    # slot wins 6 of 8 verdicts.
    effects = order_effects([1, 0, 1, 1], [1, 0, 0, 0], range(4))
    assert effects.consistency.estimate == 0.5
    assert effects.first_slot_bias.estimate == 0.25
    # Negative control: whoever stands second wins.
    assert order_effects([1, 0, 0, 0], [1, 0, 1, 1], range(4)).first_slot_bias.estimate == -0.25


def test_verdicts_are_checked() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        win_rate([1.5], [0])
    with pytest.raises(ValueError, match="both orders need the same pairs: got 1 and 2"):
        order_effects([1], [1, 0], [0])
    assert win_rate([], []).estimate is None


def judged(n: int, theta: float, phi: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return verdicts of a judge who likes length, and both lengths; the first policy writes longer."""
    generator = np.random.default_rng(seed)
    lengths, others = generator.gamma(9, 30, n), generator.gamma(9, 20, n)
    excess = lengths - others
    wins = (generator.random(n) < expit(theta + phi * np.tanh(excess / excess.std()))).astype(float)
    return wins, lengths, others


def rate(*columns: np.ndarray, difficulty: np.ndarray | None = None) -> float:
    value = length_controlled_win_rate(*columns, range(len(columns[0])), difficulty=difficulty, draws=20).estimate
    assert value is not None
    return value


def test_length_control_takes_out_what_length_gave() -> None:
    wins, lengths, others = judged(20_000, theta=0.0, phi=2.0)
    assert wins.mean() > 0.65  # raw, the longer policy looks better than it is
    assert rate(wins, lengths, others) == pytest.approx(0.5, abs=0.02)
    better = judged(20_000, theta=1.0, phi=2.0)
    assert rate(*better) == pytest.approx(float(expit(1.0)), abs=0.02)


def test_length_control_is_a_logistic_regression_without_its_length_term() -> None:
    wins, lengths, others = judged(200, theta=0.4, phi=1.0)
    excess = lengths - others
    design = np.column_stack([np.ones(200), np.tanh(excess / excess.std())])
    oracle = LogisticRegression(C=PRIOR_DEVIATION**2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theta = float(oracle.fit(design, wins).coef_[0, 0])
    assert rate(wins, lengths, others) == pytest.approx(float(expit(theta)), abs=1e-6)
    assert rate(wins, lengths, others) != pytest.approx(wins.mean(), abs=1e-2)


def test_length_control_with_difficulty_is_the_mean_over_the_items() -> None:
    wins, lengths, others = judged(200, theta=0.4, phi=1.0)
    gamma = np.random.default_rng(1).normal(size=200)
    excess = lengths - others
    design = np.column_stack([np.ones(200), np.tanh(excess / excess.std()), gamma])
    oracle = LogisticRegression(C=PRIOR_DEVIATION**2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theta, _, psi = oracle.fit(design, wins).coef_[0]
    assert rate(wins, lengths, others, difficulty=gamma) == pytest.approx(expit(theta + psi * gamma).mean(), abs=1e-6)


def test_a_policy_against_itself_is_one_half_and_swapping_mirrors() -> None:
    generator = np.random.default_rng(2)
    lengths = generator.gamma(9, 30, 100)
    assert rate(np.full(100, 0.5), lengths, lengths) == 0.5
    wins, longer, shorter = judged(100, theta=0.4, phi=1.0)
    gamma = generator.normal(size=100)
    assert rate(1 - wins, shorter, longer) == pytest.approx(1 - rate(wins, longer, shorter), abs=1e-9)
    assert rate(1 - wins, shorter, longer, difficulty=gamma) == pytest.approx(
        1 - rate(wins, longer, shorter, difficulty=gamma), abs=1e-9
    )
    assert rate(wins, longer, shorter) != pytest.approx(0.5, abs=1e-2)  # where a mirror would prove nothing
    # A tie is half a win and half a loss.
    doubled = [np.tile(column, 2) for column in (longer, shorter)]
    halves = np.concatenate([np.ones(100), np.zeros(100)])
    assert rate(halves, *doubled) == pytest.approx(rate(np.full(200, 0.5), *doubled), abs=1e-9)


@pytest.mark.slow
def test_the_interval_of_length_control() -> None:
    wins, lengths, others = judged(300, theta=0.4, phi=1.0)
    value = length_controlled_win_rate(wins, lengths, others, range(300))
    again = length_controlled_win_rate(wins, lengths, others, range(300))
    assert value == again
    assert value.low is not None
    assert value.high is not None
    # By the delta method: the slope of sigma and the inverse information of theta.
    design = np.column_stack([np.ones(300), np.tanh((lengths - others) / (lengths - others).std())])
    theta = float(logit(value.estimate))
    fitted = LogisticRegression(C=1e9, fit_intercept=False).fit(design, wins).predict_proba(design)[:, 1]
    information = (design * (fitted * (1 - fitted))[:, None]).T @ design
    error = float(expit(theta) * (1 - expit(theta)) * math.sqrt(np.linalg.inv(information)[0, 0]))
    assert (value.high - value.low) / 2 / 1.968 == pytest.approx(error, rel=0.06)
    # Negative control: the published standard error is that of the mean of fitted predictions.
    published = fitted.std() / math.sqrt(300)
    assert published < 0.6 * error


def test_length_control_of_clear_cases() -> None:
    wins, lengths, others = judged(60, theta=0.4, phi=1.0)
    always = length_controlled_win_rate(np.ones(60), lengths, others, range(60), draws=500)
    assert always.low is not None
    assert always.high == 1.0
    assert 0.8 < always.low < 0.98
    together = length_controlled_win_rate(wins, lengths, others, ["one"] * 60, draws=500)
    assert (together.low, together.high) == (None, None)
    assert "one cluster" in together.method
    shifted = length_controlled_win_rate(wins, others + 8, others, range(60), draws=500)
    assert shifted.estimate is None
    assert "all length differences are the same" in shifted.method
    assert length_controlled_win_rate([], [], [], []).estimate is None
