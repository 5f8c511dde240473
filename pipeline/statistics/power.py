"""How many items would have decided, and what so many can decide at all.

Source: arXiv:2411.00640, section 5: n = (z_{1-alpha/2} + z_{power})^2 (omega^2 + sigma_A^2/K_A + sigma_B^2/K_B) /
delta^2, omega^2 being the variance of the true difference between items and sigma^2/K what K completions per item leave
of the variance within an item.
"""

from __future__ import annotations

import math

from scipy import special

from pipeline.statistics.clusters import t_quantile
from pipeline.statistics.intervals import Estimate

POWER = 0.8


def items_needed(difference: float, variance: float, *, power: float = POWER, confidence: float = 0.95) -> int:
    """Return how many independent items find a true difference with that probability.

    Args:
        difference: True mean difference, not zero.
        variance: Of one item's paired difference, omega^2 + sigma_A^2/K_A + sigma_B^2/K_B; 1/4 for a vote between two.
        power: Probability of finding it.
        confidence: Of the two-sided interval that decides.
    """
    if difference == 0:
        raise ValueError("a difference of zero cannot be found by any number of items")
    # Rounded before it is rounded up, so that an exact whole number is not pushed over by the last bit.
    return math.ceil(round(_factor(power, confidence) ** 2 * variance / difference**2, 6))


def detectable_difference(n: int, variance: float, *, power: float = POWER, confidence: float = 0.95) -> float | None:
    """Return the smallest true difference that n independent items find with that probability; None without items."""
    return None if n == 0 else _factor(power, confidence) * math.sqrt(variance / n)


def minimum_detectable(estimate: Estimate, *, power: float = POWER, confidence: float = 0.95) -> float | None:
    """Return the smallest true difference that a comparison like this one finds with that probability.

    The standard error is read off the interval's width, so that clusters and the method count.

    Args:
        estimate: A difference and its interval.
        power: Probability of finding it.
        confidence: Of the estimate's interval.

    Returns:
        The difference, or None where there is no interval.
    """
    error = standard_error(estimate, confidence)
    if error is None:
        return None
    return (t_quantile(estimate.clusters, confidence) + float(special.ndtri(power))) * error


def items_to_detect(
    estimate: Estimate, difference: float, *, power: float = POWER, confidence: float = 0.95
) -> int | None:
    """Return how many items like these find a true difference with that probability; None without an interval.

    The items are taken to come in clusters of the same size and likeness: the squared standard error goes with 1/n.
    """
    if difference == 0:
        raise ValueError("a difference of zero cannot be found by any number of items")
    error = standard_error(estimate, confidence)
    if error is None:
        return None
    return math.ceil(round(estimate.n * (_factor(power, confidence) * error / difference) ** 2, 6))


def standard_error(estimate: Estimate, confidence: float = 0.95) -> float | None:
    """Return half the interval's width over the quantile of t; None without an interval."""
    if estimate.low is None or estimate.high is None or estimate.clusters < 2:
        return None
    return (estimate.high - estimate.low) / 2 / t_quantile(estimate.clusters, confidence)


def _factor(power: float, confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2) + special.ndtri(power))
