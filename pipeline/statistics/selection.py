"""What choosing the best of many costs: intervals that hold for all of them at one time, and who may be the best.

The best of k equal policies looks better than they are. Simultaneous intervals keep the standard error of each
difference and take a larger quantile, that of the largest of all |t|, so that whichever is chosen, its interval holds.
The quantile belongs to a multivariate t whose correlations are those of the differences, estimated from the same
clusters of items: policies that agree on most items cost less than independent ones.

Sources: T. Hothorn, F. Bretz and P. Westfall, Biometrical Journal 50 (2008) 346-363, for the quantile with estimated
correlations; C. W. Dunnett, JASA 50 (1955) 1096-1121, for comparing with one control; S. S. Gupta, Technometrics 7
(1965) 225-245, and J. C. Hsu, Annals of Statistics 9 (1981) 1026-1034, for the subset that holds the best.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.statistics.clusters import cluster_codes, t_quantile
from pipeline.statistics.intervals import ROUNDING

Array = npt.NDArray[np.float64]

DRAWS = 20_000
FEW_DRAWS = 4_000  # of a mean, and for each policy that may be the best


def influences(values: npt.ArrayLike, weights: npt.ArrayLike, clusters: Sequence[Hashable]) -> Array:
    """Return [C, k] what each cluster adds to the error of k ratios sum(values) / sum(weights) of the same items.

    The squared standard error of a ratio, or of a difference of two, is C/(C-1) times the sum over the clusters of its
    squared influence, or of the squared difference of influences, as in `intervals`.

    Args:
        values: [n, k].
        weights: [n], 1 for a mean.
        clusters: [n] what an item shares with others.
    """
    table, weight = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    codes, num_clusters = cluster_codes(clusters, len(table))
    residuals = table - np.outer(weight, table.sum(axis=0) / weight.sum())
    sums = np.zeros((num_clusters, table.shape[1]))
    np.add.at(sums, codes, residuals)
    return np.asarray(sums / weight.sum())


def max_t_quantile(differences: Array, *, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0) -> float:
    """Return the quantile of the largest |t| of k differences, at least that of one alone.

    Args:
        differences: [C, k] influences of the differences; those of no spread cannot mislead and are left out.
        confidence: With which all intervals hold together.
        draws: Of the multivariate t.
        seed: Of the draws.
    """
    num_clusters = len(differences)
    single = t_quantile(num_clusters, confidence)
    errors = _errors(differences)
    varying = differences[:, errors > ROUNDING * errors.max(initial=0.0)]
    if varying.shape[1] < 2:
        return single
    drawn = np.abs(_draw(varying, draws, seed)) / _errors(varying).astype(np.float32)
    largest = drawn.max(axis=1) / _scale(num_clusters, draws, seed)[:, 0]
    return max(single, float(np.quantile(largest, confidence)))


def chance_lead(differences: Array, *, draws: int = FEW_DRAWS, seed: int = 0) -> float:
    """Return by how much the best of k policies would lead if all of them were equal to what they are compared with.

    Args:
        differences: [C, k] influences of the differences.
        draws: Of the normal errors.
        seed: Of the draws.
    """
    return float(_draw(differences, draws, seed).max(axis=1).mean())


def possibly_best(
    values: Sequence[float], errors: Array, *, confidence: float = 0.95, draws: int = FEW_DRAWS, seed: int = 0
) -> list[bool]:
    """Return which of k policies may be the best: the truly best one is among them with this confidence.

    A policy stays unless another one leads it by more than the largest lead over the best that chance would give, so
    the subset is small only where the items tell the policies apart.

    Args:
        values: [k], more is better.
        errors: [C, k] their influences.
        confidence: With which the best is among those named.
        draws: Per policy.
        seed: Of the draws.
    """
    estimates = np.asarray(values, dtype=np.float64)
    drawn, scale = _draw(errors, draws, seed), _scale(len(errors), draws, seed)[:, 0]
    # The quantile of the largest of k lies between that of one and Bonferroni's, so most need no draws.
    single = t_quantile(len(errors), 2 * confidence - 1)
    surely = t_quantile(len(errors), 1 - 2 * (1 - confidence) / max(1, len(estimates) - 1))
    kept, apart = [], np.empty_like(drawn)
    for index in range(len(estimates)):
        spread = _errors(errors - errors[:, index : index + 1])
        others = spread > ROUNDING * max(float(np.abs(errors).max(initial=0.0)), 1e-300)
        if not others.any():
            kept.append(bool(estimates[index] >= estimates.max()))
            continue
        leads = (estimates[others] - estimates[index]) / spread[others]
        if leads.max() <= single:  # the largest of several is never below one alone
            kept.append(True)
            continue
        if leads.max() > surely:
            kept.append(False)
            continue
        # Those that are never apart from it lead by 0, which is below every quantile that is asked for.
        np.subtract(drawn, drawn[:, index : index + 1], out=apart)
        apart *= np.divide(1.0, spread, out=np.zeros_like(spread), where=others).astype(np.float32)
        by_chance = apart.max(axis=1) / scale
        kept.append(bool(leads.max() <= np.quantile(by_chance, confidence)))
    return kept


def _errors(columns: Array) -> Array:
    """Return the standard error of each column of influences."""
    num_clusters = len(columns)
    return np.asarray(np.sqrt(num_clusters / (num_clusters - 1) * (columns**2).sum(axis=0)))


def _draw(columns: Array, draws: int, seed: int) -> npt.NDArray[np.float32]:
    """Return [draws, k] normal errors with the covariance that the clusters show; single precision is plenty."""
    num_clusters = len(columns)
    covariance = num_clusters / (num_clusters - 1) * columns.T @ columns
    sizes, axes = np.linalg.eigh(covariance)
    factor = axes * np.sqrt(np.clip(sizes, 0.0, None))
    normal = np.random.default_rng(seed).standard_normal((draws, len(sizes)), dtype=np.float32)
    return np.asarray(normal @ factor.T.astype(np.float32))


def _scale(num_clusters: int, draws: int, seed: int) -> Array:
    """Return [draws, 1] what the errors are divided by, because their size is itself estimated from the clusters."""
    generator = np.random.default_rng([seed, 1])
    freedom = num_clusters - 1
    return np.asarray(np.sqrt(generator.chisquare(freedom, (draws, 1)) / freedom)) if freedom else np.ones((draws, 1))


def widened(
    low: float, high: float, quantile: float, num_clusters: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval of one difference, made with Student's t, with another quantile in its place."""
    centre, half = (low + high) / 2, (high - low) / 2
    half *= quantile / t_quantile(num_clusters, confidence)
    return centre - half, centre + half
