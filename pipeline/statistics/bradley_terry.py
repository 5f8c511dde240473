"""Strengths of things that were compared in pairs.

P(i beats j) = 1 / (1 + exp(s_j - s_i)), with a Gaussian prior of mean zero on every strength s, so that what never
lost has a finite one. Source: R. A. Bradley and M. E. Terry, Biometrika 39 (1952) 324-345; the log-likelihood is
concave in the log-strengths (D. R. Hunter, Annals of Statistics 32 (2004) 384-406, section 3), so Newton's method finds
the one maximum.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit

Codes = npt.NDArray[np.intp]
Array = npt.NDArray[np.float64]

PRIOR_DEVIATION = 3.0  # of a log-strength: one win in one meeting becomes P = 0.886, three in three 0.947
MAX_STEPS = 200
MAX_CELLS = 1 << 24  # of the matrices that are solved at one time


def bradley_terry(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    wins_first: npt.ArrayLike,
    wins_second: npt.ArrayLike,
    *,
    num_nodes: int,
    prior_deviation: float = PRIOR_DEVIATION,
) -> Array:
    """Return the log-strength of every node, most probable given who beat whom how often.

    Nodes that no chain of comparisons joins do not affect each other, so each connected group is solved by itself, all
    groups of one size together.

    Args:
        first: [P] nodes from 0.
        second: [P] whom they met.
        wins_first: [P] how often the first won, not negative; a tie is half a win for each.
        wins_second: [P] how often the second won.
        num_nodes: How many nodes there are; one that met nobody has the strength 0.
        prior_deviation: Standard deviation of the prior, in nats.

    Returns:
        [num_nodes] strengths in nats. Within a connected group they sum to zero; those of two groups do not compare.
    """
    rows, columns = np.asarray(first, dtype=np.intp), np.asarray(second, dtype=np.intp)
    won, lost = np.asarray(wins_first, dtype=np.float64), np.asarray(wins_second, dtype=np.float64)
    if (won < 0).any() or (lost < 0).any():
        raise ValueError("wins must not be negative")
    strengths = np.zeros(num_nodes)
    graph = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(num_nodes, num_nodes))
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(group, minlength=1)
    order = np.argsort(group, kind="stable")  # nodes of a group stand together
    starts = np.cumsum(sizes) - sizes
    place = np.empty(num_nodes, dtype=np.intp)
    place[order] = np.arange(num_nodes) - np.repeat(starts, sizes)
    for size in np.unique(sizes[sizes > 1]):
        groups = np.flatnonzero(sizes == size)
        per_batch = max(1, MAX_CELLS // int(size) ** 2)
        for start in range(0, len(groups), per_batch):
            batch = groups[start : start + per_batch]
            here = np.isin(group[rows], batch)
            index = np.searchsorted(batch, group[rows[here]])
            wins = np.zeros((len(batch), size, size))
            np.add.at(wins, (index, place[rows[here]], place[columns[here]]), won[here])
            np.add.at(wins, (index, place[columns[here]], place[rows[here]]), lost[here])
            nodes = order[starts[batch][:, None] + np.arange(size)]
            strengths[nodes] = _strengths(wins, 1 / prior_deviation**2)
    return strengths


def win_probability(strength: npt.ArrayLike, other: npt.ArrayLike) -> Array:
    """Return P(a thing of the first strength beats one of the other)."""
    return np.asarray(expit(np.asarray(strength, dtype=np.float64) - np.asarray(other, dtype=np.float64)))


def _strengths(wins: Array, precision: float) -> Array:
    """Maximise the log posterior of ``wins`` [B, n, n] by Newton's method; a step that would lower it is halved."""
    met = wins + wins.swapaxes(1, 2)
    identity = precision * np.eye(wins.shape[1])
    strengths = np.zeros(wins.shape[:2])
    value = _log_posterior(strengths, wins, precision)
    tolerance = 1e-10 + 1e-15 * met.sum(axis=(1, 2))  # the second is the rounding of the sums
    for _ in range(MAX_STEPS):
        chance = expit(strengths[:, :, None] - strengths[:, None, :])
        gradient = (wins - met * chance).sum(axis=2) - precision * strengths
        if (np.abs(gradient).max(axis=1) <= tolerance).all():
            break
        information = -met * chance * (1 - chance)
        information[:, np.arange(wins.shape[1]), np.arange(wins.shape[1])] = -information.sum(axis=2)
        step = np.linalg.solve(information + identity, gradient[:, :, None])[:, :, 0]
        for _ in range(60):
            trial = _log_posterior(strengths + step, wins, precision)
            worse = trial < value - 1e-12 * np.abs(value)
            if not worse.any():
                break
            step[worse] /= 2
        strengths, value = strengths + step, trial
    return strengths


def _log_posterior(strengths: Array, wins: Array, precision: float) -> Array:
    gap = strengths[:, :, None] - strengths[:, None, :]
    likelihood = -(wins * np.logaddexp(0, -gap)).sum(axis=(1, 2))
    return np.asarray(likelihood - precision / 2 * (strengths**2).sum(axis=1))
