"""How far two sources of verdicts on the same items agree, with intervals: a judge and people, or two people.

Kappa falls when one verdict is much commoner than the others, though raters agree as often as before; Gwet's AC1 does
not, so both stand beside the plain share.

Sources: J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46, and Psychological Bulletin 70 (1968)
213-220, for weights; K. L. Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008) 29-48, equation 6
for AC1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pipeline.statistics.agreement import Level
from pipeline.statistics.bootstrap import DRAWS, Totals, bootstrap_totals
from pipeline.statistics.clusters import cluster_codes, too_few
from pipeline.statistics.intervals import Estimate, proportion_interval

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Concordance:
    """Agreement of two sources; what chance leaves undetermined has no estimate."""

    observed: Estimate  # share of items on which they agree
    kappa: Estimate
    gwet_ac1: Estimate


def concordance(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    categories: Sequence[float],
    level: Level = Level.nominal,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Concordance:
    """Return the agreement of two verdicts per item, with intervals by drawing clusters.

    Two pseudo-clusters, an agreement and a disagreement, widen the intervals of kappa and AC1 and move their centre,
    not the estimates, as in the interval of a win rate.

    Args:
        first: [n] verdicts of one source, each one of the categories.
        second: [n] of the other, on the same items.
        clusters: [n] what an item shares with others.
        categories: All verdicts that could have been given, in order; at least two.
        level: How kappa weighs a disagreement: nominal all alike, ordinal by the squared distance of places, interval
            by the squared distance of the categories themselves. AC1 is always nominal.
        confidence: Of the intervals.
        draws: How many bootstrap samples.
        seed: Of the draws.
    """
    if len(first) != len(second):
        raise ValueError(f"both sources must judge the same items: got {len(first)} and {len(second)}")
    if len(set(categories)) < 2:
        raise ValueError("agreement needs at least two categories")
    places = {category: place for place, category in enumerate(categories)}
    size = len(places)
    try:
        cells = [places[one] * size + places[other] for one, other in zip(first, second, strict=True)]
    except KeyError as error:
        raise ValueError(f"the verdict {error.args[0]} is none of the categories {list(categories)}") from None
    weights = _disagreement(np.asarray(categories, dtype=np.float64), level)
    table = np.eye(size * size)[cells] if cells else np.zeros((0, size * size))
    same = [one == other for one, other in zip(first, second, strict=True)]
    options: _Options = {"confidence": confidence, "draws": draws, "seed": seed}
    return Concordance(
        observed=proportion_interval(same, clusters, confidence),
        kappa=_interval(lambda totals: _kappa(totals, weights), table, clusters, "kappa", options),
        gwet_ac1=_interval(_gwet_ac1, table, clusters, "Gwet's AC1", options),
    )


class _Options(TypedDict):
    confidence: float
    draws: int
    seed: int


def _interval(
    statistic: Totals, table: Array, clusters: Sequence[Hashable], method: str, options: _Options
) -> Estimate:
    """Return a coefficient of the table [n, K^2] of cells, with the interval of its draws."""
    n, size = len(table), round(table.shape[1] ** 0.5)
    codes, num_clusters = cluster_codes(clusters, n)
    own = float(statistic(table.sum(axis=0, keepdims=True))[0]) if n else math.nan
    if not math.isfinite(own) or num_clusters < 2:
        reason = too_few(num_clusters) if num_clusters < 2 else f"the items do not determine the {method}"
        return Estimate.unknown(own if math.isfinite(own) else None, n, num_clusters, reason)
    widened = np.concatenate([table, _pseudo_clusters(table, size) * (n / num_clusters)])
    members = [*codes.tolist(), num_clusters, num_clusters + 1]
    wide = bootstrap_totals(statistic, widened, members, method=method, studentised=False, **options)
    low = None if wide.low is None else max(-1.0, wide.low)
    high = None if wide.high is None else min(1.0, wide.high)
    return replace(wide, estimate=own, low=low, high=high, n=n, clusters=num_clusters)


def _pseudo_clusters(table: Array, size: int) -> Array:
    """Return [2, K^2]: an item on which the sources agree and one on which they differ, with the verdicts' own shares.

    Without them sources that always agreed would do so for certain, and those that nearly always did nearly so.
    """
    shares = table.reshape(-1, size, size).mean(axis=0) if len(table) else np.full((size, size), 1 / size**2)
    first, second = shares.sum(axis=1), shares.sum(axis=0)
    same = np.diag((first + second) / 2)
    apart = np.outer(first, second) * (1 - np.eye(size))
    apart = apart / apart.sum() if apart.sum() > 0 else (1 - np.eye(size)) / (size * (size - 1))
    return np.stack([same.ravel(), apart.ravel()])


def _disagreement(categories: Array, level: Level) -> Array:
    """Return [K, K] how much each two verdicts differ."""
    if level is Level.nominal:
        return 1.0 - np.eye(len(categories))
    points = categories if level is Level.interval else np.arange(len(categories), dtype=np.float64)
    return np.asarray((points[:, None] - points) ** 2)


def _kappa(totals: Array, weights: Array) -> Array:
    """Return 1 - sum w O / sum w E; NaN where chance leaves no disagreement."""
    tables = totals.reshape(-1, *weights.shape)
    expected = np.einsum("bi,bj,ij->b", tables.sum(axis=2), tables.sum(axis=1), weights)
    observed = np.einsum("bij,ij->b", tables, weights) * totals.sum(axis=1)
    ratio = np.divide(observed, expected, out=np.full(len(totals), np.nan), where=expected > 0)
    return np.asarray(1 - ratio)


def _gwet_ac1(totals: Array) -> Array:
    """Return (p_o - p_e) / (1 - p_e) with p_e = sum_k pi_k (1 - pi_k) / (K - 1), pi the mean share of both sources."""
    size = round(totals.shape[1] ** 0.5)
    tables = (totals / totals.sum(axis=1, keepdims=True)).reshape(-1, size, size)
    shares = (tables.sum(axis=1) + tables.sum(axis=2)) / 2
    chance = (shares * (1 - shares)).sum(axis=1) / (size - 1)
    agreed = np.trace(tables, axis1=1, axis2=2)
    return np.asarray((agreed - chance) / (1 - chance))
