"""Ratings of policies that a judge compared, with what it likes about their style taken out.

``bradley_terry`` rates many small groups from counts of wins. Here there are few policies, every comparison brings what
it looks like, and each draw of a cluster bootstrap is fitted again; without style the two agree.

Source: the style control of Chatbot Arena (arXiv:2403.04132 and lmsys.org/blog/2024-08-28-style-control): a logistic
regression with +1 and -1 for the policies and, for each feature of style, the difference (a - b) / (a + b).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipeline.statistics.bootstrap import cluster_draws, interval_of_draws
from pipeline.statistics.bradley_terry import PRIOR_DEVIATION
from pipeline.statistics.clusters import Codes, cluster_codes, finite_vector, too_few
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.logistic import fit_logistic

Array = npt.NDArray[np.float64]

DRAWS = 1000  # each is a fit of all comparisons
ELO_CENTRE, ELO_PER_NAT = 1000.0, 400 / math.log(10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratings:
    """How good each policy is, and how much each feature of style counts."""

    policies: list[Estimate]  # on the scale of Elo: their mean is 1000, and 400 more means odds of ten to one
    styles: list[Estimate]  # nats of log-odds per standard deviation of the feature's difference


class _Comparisons(NamedTuple):
    """Checked comparisons: n of them between K policies, p = K + m coefficients."""

    design: Array  # [n, p] +1 for the first policy, -1 for the second, then the differences of style
    outcome: Array  # [n]
    codes: Codes  # [n]
    num_clusters: int
    num_policies: int


def style_differences(first: npt.ArrayLike, second: npt.ArrayLike) -> Array:
    """Return [n, m] (a - b) / (a + b) in units of its standard deviation; 0 where both are 0.

    The mean stays, so that swapping the sides of a comparison changes nothing but the sign.

    Args:
        first: [n, m] counts of each feature in the first completion: tokens, headers, list items, bold spans.
        second: [n, m] of the second.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 2 or (one < 0).any() or (other < 0).any():
        raise ValueError(f"style needs two tables of counts of one shape: got {one.shape} and {other.shape}")
    both = one + other
    relative = np.divide(one - other, both, out=np.zeros_like(both), where=both > 0)
    spread = np.sqrt((relative**2).mean(axis=0)) if len(relative) else np.ones(relative.shape[1])
    return np.asarray(relative / np.where(spread > 0, spread, 1.0))


def policy_ratings(
    first: Sequence[int],
    second: Sequence[int],
    wins: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    num_policies: int,
    styles: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Ratings:
    """Fit Bradley and Terry's model with style, and its intervals by drawing clusters, best prompts.

    All coefficients have a Gaussian prior of mean zero, so a policy that never lost has a finite rating. As in a
    length-controlled win rate pseudo-clusters are drawn along, a win and a loss at equal style for every two policies
    that met. They widen the interval and move its centre, not the estimate.

    Args:
        first: [n] policies from 0.
        second: [n] whom they were compared with.
        wins: [n] verdicts in [0, 1] for the first; 1/2 is a tie.
        clusters: [n] what a comparison shares with others.
        num_policies: K.
        styles: [n, m] differences of style.
        confidence: Of the intervals.
        draws: How many bootstrap samples.
        seed: Of the draws.

    Returns:
        The ratings; without estimates where no chain of comparisons joins all policies.
    """
    rows, columns = np.asarray(first, dtype=np.intp), np.asarray(second, dtype=np.intp)
    outcome = finite_vector(wins)
    codes, num_clusters = cluster_codes(clusters, len(outcome))
    looks = np.zeros((len(outcome), 0)) if styles is None else np.asarray(styles, dtype=np.float64)
    if not rows.shape == columns.shape == outcome.shape or len(looks) != len(outcome):
        raise ValueError("every comparison needs two policies, a verdict and its style")
    if ((outcome < 0) | (outcome > 1)).any() or (rows == columns).any():
        raise ValueError("every verdict must lie between 0 and 1 and compare two policies")
    size = num_policies + looks.shape[1]
    graph = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(num_policies, num_policies))
    if sparse.csgraph.connected_components(graph, directed=False)[0] > 1:
        reason = too_few(0) if num_clusters == 0 else "no chain of comparisons joins all policies"
        unknown = Estimate.unknown(None, len(outcome), num_clusters, reason)
        return Ratings(policies=[unknown] * num_policies, styles=[unknown] * (size - num_policies))
    data = _Comparisons(_design(rows, columns, looks, num_policies), outcome, codes, num_clusters, num_policies)
    estimates = _estimates(data, confidence, draws, seed)
    ratings = [one.moved(scale=ELO_PER_NAT, shift=ELO_CENTRE) for one in estimates[:num_policies]]
    return Ratings(policies=ratings, styles=estimates[num_policies:])


def _design(rows: Codes, columns: Codes, looks: Array, num_policies: int) -> Array:
    design = np.zeros((len(rows), num_policies + looks.shape[1]))
    design[np.arange(len(rows)), rows] = 1.0
    design[np.arange(len(rows)), columns] = -1.0
    design[:, num_policies:] = looks
    return design


def _fit(design: Array, outcome: Array, weights: Array, start: Array | None) -> Array:
    return fit_logistic(design, outcome, weights, np.full(design.shape[1], 1 / PRIOR_DEVIATION**2), start)


def _estimates(data: _Comparisons, confidence: float, draws: int, seed: int) -> list[Estimate]:
    """Return every coefficient with the interval of the draws around the estimate of the comparisons alone."""
    n = len(data.outcome)
    fitted = _fit(data.design, data.outcome, np.ones((1, n)), None)[0].tolist()
    if data.num_clusters < 2:
        return [Estimate.unknown(one, n, data.num_clusters, too_few(data.num_clusters)) for one in fitted]
    centre, drawn, total = _drawn(data, draws, seed)
    words = "Bradley-Terry, fitted in every draw"
    estimates = []
    for own, value, column in zip(fitted, centre.tolist(), drawn.T, strict=True):
        wide = interval_of_draws(value, column, n=n, num_clusters=total, method=words, confidence=confidence)
        estimates.append(replace(wide, estimate=own, clusters=data.num_clusters))
    return estimates


def _drawn(data: _Comparisons, draws: int, seed: int) -> tuple[Array, Array, int]:
    """Return the coefficients with the pseudo-clusters [p], those of every draw [draws, p], and how many clusters."""
    sides = data.design[:, : data.num_policies]
    pairs = np.unique(np.sort(np.column_stack([sides.argmax(axis=1), sides.argmin(axis=1)]), axis=1), axis=0)
    size = max(1, round(len(sides) / data.num_clusters / len(pairs)))
    extra = np.repeat(np.tile(pairs, (2, 1)), size, axis=0)
    level = np.zeros((len(extra), data.design.shape[1] - data.num_policies))
    rows = np.concatenate([data.design, _design(extra[:, 0], extra[:, 1], level, data.num_policies)])
    won = np.concatenate([data.outcome, np.repeat([1.0, 0.0], len(extra) // 2)])
    total = data.num_clusters + 2 * len(pairs)
    members = np.concatenate([data.codes, data.num_clusters + np.repeat(np.arange(2 * len(pairs)), size)])
    centre = _fit(rows, won, np.ones((1, len(rows))), None)[0]
    blocks = [_fit(rows, won, counts[:, members], centre) for counts in cluster_draws(total, len(rows), draws, seed)]
    return centre, np.concatenate(blocks), total
