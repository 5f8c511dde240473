"""Losses of one pair, each citing its equation. Every function returns ``[B]``, one value per pair.

In the formulas ``h_w`` and ``h_l`` are the log-ratios of policy to reference of the chosen and of the rejected
completion, and ``z = h_w - h_l``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.losses.pairs import Pairs


def sigmoid(pairs: Pairs, *, beta: float) -> Tensor:
    """Direct preference optimisation, eq. 7 of arXiv:2305.18290: the log-loss of ``beta z``."""
    return -logsigmoid(beta * pairs.log_ratio)


def cdpo(pairs: Pairs, *, beta: float, label_smoothing: float) -> Tensor:
    """Conservative DPO: labels are wrong with probability ``e``, https://ericmitchell.ai/cdpo.pdf.

    ``-(1 - e) log sigmoid(beta z) - e log sigmoid(-beta z)``. It bounds the margin at ``log((1 - e) / e) / beta``.
    """
    return (1 - label_smoothing) * sigmoid(pairs, beta=beta) + label_smoothing * sigmoid(pairs.swapped(), beta=beta)


def robust(pairs: Pairs, *, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO: an unbiased estimate of DPO on clean labels, arXiv:2403.00409.

    ``[-(1 - e) log sigmoid(beta z) + e log sigmoid(-beta z)] / (1 - 2 e)`` with ``e`` below one half.
    """
    clean, flipped = sigmoid(pairs, beta=beta), sigmoid(pairs.swapped(), beta=beta)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge(pairs: Pairs, *, beta: float) -> Tensor:
    """SLiC's hinge on the implicit reward: ``max(0, 1 - beta z)``, arXiv:2309.06657 (RSO)."""
    return torch.relu(1 - beta * pairs.log_ratio)


def ipo_sum(pairs: Pairs, *, beta: float) -> Tensor:
    """IPO as printed: ``(z - 1 / (2 beta))^2`` on summed log-ratios, eq. 17 of arXiv:2310.12036."""
    return (pairs.log_ratio - 1 / (2 * beta)).square()


def ipo_mean(pairs: Pairs, *, beta: float) -> Tensor:
    """IPO with log-ratios averaged over tokens, as TRL has it; its ``beta`` is another one than that of `ipo_sum`."""
    return (pairs.mean_log_ratio - 1 / (2 * beta)).square()


def sigmoid_norm(pairs: Pairs, *, beta: float) -> Tensor:
    """DPO with log-ratios averaged over tokens: the length-normalised DPO of arXiv:2411.15124."""
    return -logsigmoid(beta * pairs.mean_log_ratio)


def apo_zero(pairs: Pairs, *, beta: float) -> Tensor:
    """APO-zero: ``-sigmoid(beta h_w) + sigmoid(beta h_l)``, eq. 7 of arXiv:2408.06266, plus one so that it is positive.

    For chosen completions that are better than what the policy writes: they become likelier.
    """
    return 1 - torch.sigmoid(beta * pairs.chosen_log_ratio) + torch.sigmoid(beta * pairs.rejected_log_ratio)


def apo_down(pairs: Pairs, *, beta: float) -> Tensor:
    """APO-down: ``sigmoid(beta h_w) - sigmoid(beta z)``, eq. 8 of arXiv:2408.06266, plus one so that it is positive.

    For chosen completions that are worse than what the policy writes: both become less likely, the rejected more so.
    """
    return torch.sigmoid(beta * pairs.chosen_log_ratio) + 1 - torch.sigmoid(beta * pairs.log_ratio)


def sppo_hard(pairs: Pairs, *, beta: float) -> Tensor:
    """SPPO with a win rate of 1 for the chosen: ``(h_w - 1/(2 beta))^2 + (h_l + 1/(2 beta))^2``.

    Eq. 4.7 of arXiv:2405.00675 with hard wins.
    """
    target = 1 / (2 * beta)
    return (pairs.chosen_log_ratio - target).square() + (pairs.rejected_log_ratio + target).square()


def exo_pair(pairs: Pairs, *, beta: float, label_smoothing: float) -> Tensor:
    """EXO: KL from the policy's preference to the label ``(1 - e, e)``, e above 0; eq. 16 of arXiv:2402.00856."""
    log_win, log_loss = logsigmoid(beta * pairs.log_ratio), logsigmoid(-beta * pairs.log_ratio)
    won = log_win.exp() * (log_win - math.log1p(-label_smoothing))
    return won + log_loss.exp() * (log_loss - math.log(label_smoothing))


def nca_pair(pairs: Pairs, *, beta: float) -> Tensor:
    """NCA for two completions, arXiv:2402.05369; it keeps the chosen completion's likelihood from falling.

    ``-log sigmoid(beta h_w) - 1/2 [log sigmoid(-beta h_w) + log sigmoid(-beta h_l)]``.
    """
    chosen, rejected = beta * pairs.chosen_log_ratio, beta * pairs.rejected_log_ratio
    return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))


def bco_pair(pairs: Pairs, *, beta: float) -> Tensor:
    """Binary classification of both: ``-log sigmoid(beta h_w) - log sigmoid(-beta h_l)``; arXiv:2404.04656, no shift.

    The quality term of MPO (arXiv:2411.10442).
    """
    return -logsigmoid(beta * pairs.chosen_log_ratio) - logsigmoid(-beta * pairs.rejected_log_ratio)


def simpo(pairs: Pairs, *, beta: float, target_margin: float) -> Tensor:
    """SimPO: ``-log sigmoid(beta (log pi(y_w)/|y_w| - log pi(y_l)/|y_l|) - gamma)``, eq. 6 of arXiv:2405.14734."""
    difference = pairs.chosen / pairs.chosen_lengths - pairs.rejected / pairs.rejected_lengths
    return -logsigmoid(beta * difference - target_margin)


def odds_ratio(pairs: Pairs) -> Tensor:
    """ORPO's relative term: ``-log sigmoid(log odds(y_w) - log odds(y_l))``, eq. 7 of arXiv:2403.07691.

    ``odds = p / (1 - p)`` of the mean log-probability per token.
    """
    chosen, rejected = pairs.chosen / pairs.chosen_lengths, pairs.rejected / pairs.rejected_lengths
    return -logsigmoid(chosen - _log_one_minus_exp(chosen) - rejected + _log_one_minus_exp(rejected))


def _log_one_minus_exp(values: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x < 0`` without cancellation, and finite where rounding makes ``x`` zero."""
    values = values.clamp(max=-1e-6)
    return torch.log(-torch.expm1(values))


def negative_log_likelihood(pairs: Pairs) -> Tensor:
    """Mean over the tokens of the chosen completion, ``-log pi(y_w | x) / |y_w|``: eq. 1 of arXiv:2404.19733 (RPO)."""
    return -pairs.chosen / pairs.chosen_lengths
