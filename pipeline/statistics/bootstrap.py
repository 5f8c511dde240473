"""Intervals of any statistic of clustered items: whole clusters are drawn again, and all of it is computed again.

A statistic takes how often each cluster was drawn, for many draws at one time, and returns its values. Where it also
returns every cluster's influence, the slope of the value as one more copy of the cluster is added, each draw has a
standard error of its own and the interval can be studentised, which is right to second order. With few clusters, or
without influences, the interval is Student's t with the spread of the draws: near the edge of its range a share's
standard error vanishes in many draws, and studentised limits run away.

Sources: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapters 6, 12 and 21; A. C. Cameron,
J. B. Gelbach and D. L. Miller, Review of Economics and Statistics 90 (2008) 414-427, for drawing clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.statistics.clusters import cluster_codes, t_quantile, t_words, too_few
from pipeline.statistics.intervals import ROUNDING, Estimate

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], tuple[Array, Array | None]]  # counts [B, C] -> values [B], influences [B, C]
Totals = Callable[[Array], Array]  # totals [B, m] -> values [B]

DRAWS = 10_000
STUDENTISED_FROM = 40  # clusters
MAX_CELLS = 1 << 18  # of one block of draws, so that it stays in the cache
MIN_ESTIMABLE = 0.9  # of the draws; with fewer, what is left no longer stands for the sampling distribution
STEP = 1e-5  # of the central difference, relative to the totals


def bootstrap_totals(
    function: Totals,
    columns: npt.ArrayLike,
    clusters: Sequence[Hashable],
    *,
    method: str,
    studentised: bool = True,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return a smooth function of sums over the items, with its interval; items are drawn in whole clusters.

    Both systems of a paired comparison are columns of one row, so that they are drawn together.

    Args:
        function: [B, m] totals to [B] values; NaN where the totals determine none.
        columns: [n, m] numbers of each item, to be summed. A mean has two: the value and 1.
        clusters: [n] what an item shares with others.
        method: The statistic's name, for the estimate's ``method``.
        studentised: False for what comes close to the edge of its range, such as a share.
        confidence: Of the interval.
        draws: How many bootstrap samples.
        seed: Of the draws; the same seed gives the same interval.
    """
    table = np.asarray(columns, dtype=np.float64)
    codes, num_clusters = cluster_codes(clusters, len(table))
    sums = np.zeros((num_clusters, table.shape[1] if table.ndim == 2 else 0))
    np.add.at(sums, codes, table)
    return bootstrap_interval(
        totals_statistic(function, sums, with_influences=studentised),
        n=len(table),
        num_clusters=num_clusters,
        method=method,
        confidence=confidence,
        draws=draws,
        seed=seed,
    )


def bootstrap_interval(
    statistic: Statistic,
    *,
    n: int,
    num_clusters: int,
    method: str,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return a statistic's value with its interval by drawing clusters.

    From 40 clusters on, where the statistic gives influences, the limits are s - q e with the quantiles q of
    (s* - s) / e* over the draws and e the cluster-robust standard error of the influences. Otherwise they are s -+ t e
    with C - 1 degrees of freedom and e the draws' standard deviation times sqrt(C / (C - 1)).
    """
    if num_clusters == 0:
        return Estimate.unknown(None, 0, 0, too_few(0))
    whole = np.ones((1, num_clusters))
    values, influences = statistic(whole)
    value = float(values[0])
    if not np.isfinite(value):
        return Estimate.unknown(None, n, num_clusters, f"the items do not determine the {method}")
    if num_clusters < 2:
        return Estimate.unknown(value, n, num_clusters, too_few(num_clusters))
    drawn, errors = _sample(statistic, num_clusters, n, draws, seed)
    estimate = interval_of_draws(value, drawn, n=n, num_clusters=num_clusters, method=method, confidence=confidence)
    if influences is None or num_clusters < STUDENTISED_FROM or estimate.low is None:
        return estimate
    error, good = float(_standard_errors(whole, influences)[0]), np.isfinite(drawn)
    low, high = _studentised(value, error, drawn[good], errors[good], confidence)
    words = estimate.method.removesuffix(t_words(num_clusters))
    return replace(estimate, low=low, high=high, method=f"{words}studentised")


def interval_of_draws(
    value: float, drawn: Array, *, n: int, num_clusters: int, method: str, confidence: float
) -> Estimate:
    """Return the t interval with the spread of the draws [B]; those that are not finite are counted and set aside."""
    good = np.isfinite(drawn)
    if good.mean() < MIN_ESTIMABLE:
        return Estimate.unknown(value, n, num_clusters, f"only {good.mean():.0%} of the draws determine it")
    spread = float(drawn[good].std()) * math.sqrt(num_clusters / (num_clusters - 1))
    if spread <= ROUNDING * max(1.0, abs(value)):
        return Estimate.unknown(value, n, num_clusters, "the items do not vary")
    half = t_quantile(num_clusters, confidence) * spread
    undetermined = "" if good.all() else f", {int((~good).sum())} undetermined"
    return Estimate(
        estimate=value,
        low=value - half,
        high=value + half,
        n=n,
        clusters=num_clusters,
        method=f"{method}, cluster bootstrap of {len(drawn)} draws{undetermined}, {t_words(num_clusters)}",
    )


def totals_statistic(function: Totals, sums: Array, *, with_influences: bool = True) -> Statistic:
    """Return the statistic of a smooth function of totals, given every cluster's part [C, m] of them.

    A cluster's influence is the gradient times its part, less the mean over the clusters drawn; the gradient is a
    central difference.
    """
    scale = np.abs(sums).sum(axis=0)
    steps = STEP * np.where(scale > 0, scale, 1.0)

    def statistic(counts: Array) -> tuple[Array, Array | None]:
        totals = counts @ sums
        if not with_influences:
            return function(totals), None
        gradient = np.empty_like(totals)
        for column, step in enumerate(steps):
            shift = np.zeros(len(steps))
            shift[column] = step
            gradient[:, column] = (function(totals + shift) - function(totals - shift)) / (2 * step)
        influences = gradient @ sums.T
        influences -= (counts * influences).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
        return function(totals), influences

    return statistic


def cluster_draws(num_clusters: int, n: int, draws: int, seed: int) -> Iterator[Array]:
    """Yield blocks of [b, C] counts of clusters drawn with replacement, small enough for b times n numbers."""
    generator = np.random.default_rng(seed)
    size = max(1, MAX_CELLS // max(n, num_clusters))
    for start in range(0, draws, size):
        block = min(size, draws - start)
        drawn = generator.integers(0, num_clusters, (block, num_clusters))
        drawn += np.arange(block)[:, None] * num_clusters
        counts = np.bincount(drawn.ravel(), minlength=block * num_clusters)
        yield counts.reshape(block, num_clusters).astype(np.float64)


def _standard_errors(counts: Array, influences: Array) -> Array:
    """Return sqrt(C/(C-1) sum_c k_c u_c^2) of each draw: every copy of a cluster is a cluster."""
    num_clusters = counts.shape[1]
    squares = np.einsum("bc,bc,bc->b", counts, influences, influences)
    return np.asarray(np.sqrt(num_clusters / (num_clusters - 1) * squares))


def _sample(statistic: Statistic, num_clusters: int, n: int, draws: int, seed: int) -> tuple[Array, Array]:
    """Return [draws] values and their standard errors, zero where the statistic gives no influences."""
    drawn, errors = np.empty(draws), np.zeros(draws)
    done = 0
    for counts in cluster_draws(num_clusters, n, draws, seed):
        block = slice(done, done + len(counts))
        drawn[block], influences = statistic(counts)
        if influences is not None:
            errors[block] = _standard_errors(counts, influences)
        done += len(counts)
    return drawn, errors


def _studentised(value: float, error: float, drawn: Array, errors: Array, confidence: float) -> tuple[float, float]:
    """Return the limits; a draw without spread has an infinite ratio, which belongs in its tail."""
    gap, flat = drawn - value, ~(errors > ROUNDING * error)
    ratios = gap / np.where(flat, 1.0, errors)
    ratios[flat] = np.where(gap[flat] == 0, 0.0, np.copysign(np.inf, gap[flat]))
    low, high = np.quantile(ratios, [0.5 - confidence / 2, 0.5 + confidence / 2], method="inverted_cdf")
    return value - float(high) * error, value - float(low) * error
