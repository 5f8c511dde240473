"""The win rate that would be left if both policies wrote equally long completions.

Source: Y. Dubois, B. Galambosi, P. Liang and T. B. Hashimoto, Length-Controlled AlpacaEval (arXiv:2404.04475), equation
2: logit p_i = theta + phi tanh((len_i - len'_i) / sd) + psi gamma_i, and the rate is the mean of sigma(theta + psi
gamma_i). Their standard error is that of the mean of the fitted predictions and leaves out that theta and phi are
estimated; here the model is fitted again in every draw of a cluster bootstrap.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pipeline.statistics.bootstrap import DRAWS, Statistic, bootstrap_interval
from pipeline.statistics.clusters import Codes, cluster_codes, finite_vector, too_few
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.logistic import fit_logistic

Array = npt.NDArray[np.float64]

PRIOR_DEVIATION = (
    3.0  # of a coefficient, in nats: keeps the fit finite where one policy, or the longer one, always wins
)


def length_controlled_win_rate(
    wins: Sequence[float],
    lengths: Sequence[float],
    other_lengths: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    difficulty: Sequence[float] | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return the win rate of the first policy at equal lengths.

    Of a policy against itself it is 1/2, and swapping the policies gives one minus it. Two pseudo-clusters of mean size
    and equal lengths, one that the first policy wins and one that it loses, are drawn along and move the interval's
    centre, not the estimate, as in Bonett and Price's interval: without them a policy that always wins would do so with
    certainty.

    Args:
        wins: [n] verdicts in [0, 1] for the first policy; 1/2 is a tie.
        lengths: [n] of its completions, in any one unit.
        other_lengths: [n] of the other's.
        clusters: [n] what an item shares with others.
        difficulty: [n] gamma_i, larger where the first policy is likelier to win; left out by default.
        confidence: Of the interval.
        draws: How many bootstrap samples.
        seed: Of the draws.

    Returns:
        The estimate; without one where all length differences are the same number other than zero, which cannot be
        told from a difference of the policies.
    """
    outcome, excess = finite_vector(wins), finite_vector(lengths) - finite_vector(other_lengths)
    codes, num_clusters = cluster_codes(clusters, len(outcome))
    if ((outcome < 0) | (outcome > 1)).any():
        raise ValueError("every verdict must lie between 0 and 1")
    if num_clusters == 0:
        return Estimate.unknown(None, 0, 0, too_few(0))
    spread = float(excess.std())
    if spread == 0 and excess[0] != 0:
        return Estimate.unknown(None, len(outcome), num_clusters, "all length differences are the same")
    columns = [np.ones(len(outcome)), np.tanh(excess / (spread or 1.0))]
    if difficulty is not None:
        columns.append(finite_vector(difficulty))
    design = np.column_stack(columns)
    rate = float(_statistic(design, outcome, codes)(np.ones((1, num_clusters)))[0][0])
    widened = bootstrap_interval(
        _statistic(*_with_pseudo_clusters(design, outcome, codes, num_clusters)),
        n=len(outcome),
        num_clusters=num_clusters + 2,
        method="length-controlled win rate, logistic regression fitted in every draw",
        confidence=confidence,
        draws=draws,
        seed=seed,
    )
    if num_clusters < 2 or widened.low is None or widened.high is None:
        return Estimate.unknown(rate, len(outcome), num_clusters, too_few(num_clusters))
    return replace(
        widened, estimate=rate, low=max(0.0, widened.low), high=min(1.0, widened.high), clusters=num_clusters
    )


def _with_pseudo_clusters(design: Array, outcome: Array, codes: Codes, num_clusters: int) -> tuple[Array, Array, Codes]:
    """Add a cluster of wins and one of losses at equal lengths and mean difficulty, each as large as a mean cluster."""
    size = max(1, round(len(outcome) / num_clusters))
    row = design.mean(axis=0)
    row[1] = 0.0
    return (
        np.concatenate([design, np.tile(row, (2 * size, 1))]),
        np.concatenate([outcome, np.ones(size), np.zeros(size)]),
        np.concatenate([codes, np.full(size, num_clusters), np.full(size, num_clusters + 1)]),
    )


def _statistic(design: Array, outcome: Array, codes: Codes) -> Statistic:
    """Return the length-controlled win rate as a function of how often each cluster is drawn."""
    precision = np.full(design.shape[1], 1 / PRIOR_DEVIATION**2)
    level = design.copy()
    level[:, 1] = 0.0  # equal lengths
    start = fit_logistic(design, outcome, np.ones((1, len(outcome))), precision)[0]

    def statistic(counts: Array) -> tuple[Array, None]:
        weights = counts[:, codes]
        chance = expit(fit_logistic(design, outcome, weights, precision, start) @ level.T)
        return (weights * chance).sum(axis=1) / weights.sum(axis=1), None

    return statistic
