"""Confidence intervals for means, proportions, ratios and paired differences of clustered items.

Items that share a cluster (one prompt, one conversation, one source document) are not independent, so variance is
summed over clusters and the quantile is that of Student's t with C - 1 degrees of freedom for C clusters.

What cannot be estimated is None and never a number: with fewer than two clusters, or where no item differs from the
others, there is an estimate but no interval, and ``method`` says why.

Sources: E. B. Wilson, JASA 22 (1927) 209-212, for one proportion; arXiv:2411.00640, sections 2 and 4, for clustered
and paired means; W. G. Cochran, Sampling Techniques, 3rd edition (1977), chapter 6, for ratios of sums; D. G. Bonett
and R. M. Price, Journal of Educational and Behavioral Statistics 37 (2012) 479-488, for two proportions of the same
items; E. L. Korn and B. I. Graubard, Survey Methodology 24 (1998) 193-201, for the effective number of items.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from pipeline.statistics.clusters import Codes, Vector, cluster_codes, finite_vector, t_quantile, t_words, too_few

ROUNDING = 1e-12  # residuals below this part of the largest value are rounding, not spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with its interval; None is what the items do not determine."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int  # items
    clusters: int
    method: str

    @classmethod
    def unknown(cls, estimate: float | None, n: int, clusters: int, reason: str) -> Estimate:
        """Return a number without an interval, or neither, and why."""
        what = "not estimable" if estimate is None else "interval not estimable"
        return cls(estimate=estimate, low=None, high=None, n=n, clusters=clusters, method=f"{what}: {reason}")

    def moved(self, *, scale: float, shift: float) -> Estimate:
        """Return ``scale`` times the number plus ``shift``, with its interval; the scale is positive."""

        def move(number: float | None) -> float | None:
            return None if number is None else scale * number + shift

        return replace(self, estimate=move(self.estimate), low=move(self.low), high=move(self.high))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return the score interval of one proportion of independent items (Wilson 1927)."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n: got {successes} of {n}")
    if n == 0:
        return Estimate.unknown(None, 0, 0, too_few(0))
    low, high = _score_interval(successes / n, n, float(special.ndtri(0.5 + confidence / 2)))
    return Estimate(estimate=successes / n, low=low, high=high, n=n, clusters=n, method="Wilson score interval")


def proportion_interval(passed: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95) -> Estimate:
    """Return the interval of a proportion: Wilson's, for the effective number of items where clusters repeat.

    The quantile is t with C - 1 degrees of freedom where clusters repeat (Korn and Graubard 1998).
    """
    items = effective_items(passed, clusters, confidence)
    n, num_clusters = len(passed), items.clusters
    if items.share is None or items.effective is None:
        return Estimate.unknown(items.share, n, num_clusters, too_few(num_clusters))
    low, high = _score_interval(items.share, items.effective, items.quantile)
    words = "" if num_clusters == n else f" for the effective number of items, {t_words(num_clusters)}"
    method = f"Wilson score interval{words}"
    return Estimate(estimate=items.share, low=low, high=high, n=n, clusters=num_clusters, method=method)


class EffectiveItems(NamedTuple):
    """A share, and how many independent items would tell as much about it."""

    share: float | None  # None without items
    effective: float | None  # None where one cluster hides how far clusters differ
    quantile: float  # that belongs to the interval: normal where no cluster repeats, t otherwise
    clusters: int


def effective_items(passed: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95) -> EffectiveItems:
    """Return p(1 - p) over the cluster-robust variance, at most n.

    Both are taken with a pseudo-cluster that passes and one that fails, as in ``bounded_mean``, and their part of the
    clusters is taken off again: where all pass each cluster counts as one item, and where few fail, in few clusters,
    the variance cannot come out small by chance. Without them a share of 95 % in 50 clusters is covered 90 % of the
    time (tests/numerics/test_coverage.py).
    """
    values = np.asarray(passed, dtype=np.float64)
    codes, num_clusters = cluster_codes(clusters, len(values))
    normal = float(special.ndtri(0.5 + confidence / 2))
    if num_clusters == 0:
        return EffectiveItems(None, None, normal, 0)
    share = float(values.mean())
    if num_clusters == len(values):
        return EffectiveItems(share, len(values), normal, num_clusters)
    if num_clusters < 2:
        return EffectiveItems(share, None, normal, num_clusters)
    centre, error = _with_pseudo_clusters(values, codes, num_clusters, (0.0, 1.0))
    effective = centre * (1 - centre) / error**2 * num_clusters / (num_clusters + 2)
    return EffectiveItems(share, min(effective, len(values)), t_quantile(num_clusters, confidence), num_clusters)


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95) -> Estimate:
    """Return the mean with a cluster-robust t interval (arXiv:2411.00640, section 2.2, with the factor C/(C-1))."""
    return _linear_interval(finite_vector(values), np.ones(len(values)), clusters, confidence, "cluster-robust mean")


def paired_difference(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Estimate:
    """Return the mean of a - b over identical items, cluster-robust (arXiv:2411.00640, section 4.2)."""
    difference = _difference(a, b)
    return _linear_interval(difference, np.ones(len(a)), clusters, confidence, "paired, cluster-robust mean difference")


def paired_proportion_difference(
    a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Estimate:
    """Return the difference of two proportions of identical items, with Bonett and Price's interval (2012)."""
    return bounded_mean(_difference(a, b), clusters, confidence)


def bounded_mean(values: npt.ArrayLike, clusters: Sequence[Hashable], confidence: float = 0.95) -> Estimate:
    """Return the mean of numbers between -1 and 1, such as wins less losses, with Bonett and Price's interval (2012).

    Two pseudo-clusters, all of whose items are 1 and all of whose items are -1, are added to the variance and the
    centre of the interval, not to the estimate. Without them, items that are all 0 would give an interval of no width,
    as if certain. They have the mean size of the real clusters; the quantile is t with C - 1 degrees of freedom. With
    clusters of one item, values of -1, 0 and 1 and a normal quantile this is the published interval.
    """
    vector = finite_vector(values)
    codes, num_clusters = cluster_codes(clusters, len(vector))
    if num_clusters < 2:
        estimate = float(vector.mean()) if num_clusters else None
        return Estimate.unknown(estimate, len(vector), num_clusters, too_few(num_clusters))
    if float(np.abs(vector).max()) > 1:
        raise ValueError("every value must lie between -1 and 1")
    centre, error = _with_pseudo_clusters(vector, codes, num_clusters, (-1.0, 1.0))
    half = t_quantile(num_clusters, confidence) * error
    return Estimate(
        estimate=float(vector.mean()),
        low=max(-1.0, centre - half),
        high=min(1.0, centre + half),
        n=len(vector),
        clusters=num_clusters,
        method=f"paired, Bonett-Price interval, {t_words(num_clusters)}",
    )


def unit_mean(values: npt.ArrayLike, clusters: Sequence[Hashable], confidence: float = 0.95) -> Estimate:
    """Return the mean of numbers between 0 and 1, such as wins with ties as halves: 2v - 1 lies between -1 and 1."""
    vector = finite_vector(values)
    if ((vector < 0) | (vector > 1)).any():
        raise ValueError("every value must lie between 0 and 1")
    return bounded_mean(2 * vector - 1, clusters, confidence).moved(scale=0.5, shift=0.5)


def ratio_interval(
    numerator: Sequence[float], denominator: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Estimate:
    """Return sum(numerator) / sum(denominator), for example nats per token over all tokens.

    Linearised: e_i = y_i - R x_i takes the place of the residual, and the mean of x that of one (Cochran 1977, ch. 6).
    """
    weights = finite_vector(denominator)
    return _linear_interval(finite_vector(numerator), weights, clusters, confidence, "cluster-robust linearised ratio")


def paired_ratio_difference(
    numerator_a: Sequence[float],
    numerator_b: Sequence[float],
    denominator: Sequence[float],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Estimate:
    """Return the difference of two ratios of sums over identical items with one denominator.

    D = sum(a - b) / sum(x), linearised by e_i = (a_i - b_i) - D x_i: Cochran's ratio of the paired differences.
    """
    difference = _difference(numerator_a, numerator_b)
    method = "paired, cluster-robust linearised ratio difference"
    return _linear_interval(difference, finite_vector(denominator), clusters, confidence, method)


def _linear_interval(
    values: Vector, weights: Vector, clusters: Sequence[Hashable], confidence: float, method: str
) -> Estimate:
    """Return sum(values) / sum(weights) with SE = sqrt(C/(C-1) sum_c (sum_{i in c} e_i)^2) / sum(weights)."""
    if len(weights) != len(values):
        raise ValueError(
            f"numerator and denominator must have one value per item: got {len(values)} and {len(weights)}"
        )
    codes, num_clusters = cluster_codes(clusters, len(values))
    total = float(weights.sum())
    if num_clusters == 0:
        return Estimate.unknown(None, 0, 0, too_few(0))
    if (weights < 0).any() or total == 0:
        raise ValueError("denominators must not be negative, and not all of them zero")
    estimate = float(values.sum()) / total
    if num_clusters < 2:
        return Estimate.unknown(estimate, len(values), num_clusters, too_few(num_clusters))
    residuals = values - estimate * weights
    if float(np.abs(residuals).max()) <= ROUNDING * float(np.abs(values).max()):
        return Estimate.unknown(estimate, len(values), num_clusters, "the items do not vary")
    half = t_quantile(num_clusters, confidence) * _standard_error(residuals, codes, num_clusters, total)
    return Estimate(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        n=len(values),
        clusters=num_clusters,
        method=f"{method}, {t_words(num_clusters)}",
    )


def _with_pseudo_clusters(
    values: Vector, codes: Codes, num_clusters: int, ends: tuple[float, float]
) -> tuple[float, float]:
    """Return mean and standard error with two more clusters of mean size, one at each end of the range."""
    size = len(values) / num_clusters
    weight = len(values) + 2 * size
    centre = (float(values.sum()) + size * sum(ends)) / weight
    sums = np.bincount(codes, weights=values - centre, minlength=num_clusters)
    squares = float((sums**2).sum()) + sum((size * (end - centre)) ** 2 for end in ends)
    return centre, math.sqrt(squares) / weight


def _standard_error(residuals: Vector, codes: Codes, num_clusters: int, total: float) -> float:
    sums = np.bincount(codes, weights=residuals, minlength=num_clusters)
    return math.sqrt(num_clusters / (num_clusters - 1) * float((sums**2).sum())) / total


def _score_interval(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's limits; at a share of 0 or 1 the nearer limit is exact."""
    z2 = quantile**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = quantile / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    low = 0.0 if share == 0 else max(0.0, centre - half)
    return low, 1.0 if share == 1 else min(1.0, centre + half)


def _difference(a: Sequence[float], b: Sequence[float]) -> Vector:
    if len(a) != len(b):
        raise ValueError(f"a paired difference needs the same items on both sides: got {len(a)} and {len(b)}")
    return finite_vector(a) - finite_vector(b)
