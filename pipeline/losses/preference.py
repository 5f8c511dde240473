"""Preference losses by name: soft labels, ties and weighted mixes over the losses of one pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.config.preference import LOSSES
from pipeline.losses import pairwise
from pipeline.losses.pairs import Pairs

PAIRWISE: dict[str, Callable[..., Tensor]] = {
    "sigmoid": pairwise.sigmoid,
    "cdpo": pairwise.cdpo,
    "robust": pairwise.robust,
    "hinge": pairwise.hinge,
    "ipo_sum": pairwise.ipo_sum,
    "ipo_mean": pairwise.ipo_mean,
    "sigmoid_norm": pairwise.sigmoid_norm,
    "apo_zero": pairwise.apo_zero,
    "apo_down": pairwise.apo_down,
    "sppo_hard": pairwise.sppo_hard,
    "exo_pair": pairwise.exo_pair,
    "nca_pair": pairwise.nca_pair,
    "bco_pair": pairwise.bco_pair,
    "simpo": pairwise.simpo,
}


def preference_loss(
    pairs: Pairs,
    terms: Mapping[str, float],
    *,
    beta: float | None = None,
    settings: Mapping[str, float] | None = None,
    confidence: Tensor | None = None,
    tie: Tensor | None = None,
) -> Tensor:
    """Return the loss of each pair, ``[B]``.

    A label that is right with probability ``p`` costs what it costs on average, ``p l(w, l) + (1 - p) l(l, w)``; with
    ``sigmoid`` that is cDPO with a smoothing of its own for every pair. A term on the chosen completion alone, such as
    the likelihood in ``sft`` and ``orpo``, is not averaged over labels.

    Args:
        pairs: Log-probabilities and lengths.
        terms: Weight of each loss in the sum.
        beta: Of all terms; None is the default of each.
        settings: Further parameters by name; what is missing has each loss's default.
        confidence: ``[B]`` probability that the chosen completion is the better one, a tie counting half; None is 1.
        tie: ``[B]`` probability that both are equally good, for ``rao_kupper``; None is 0.
    """
    total = torch.zeros_like(pairs.chosen)
    for name, weight in terms.items():
        facts = LOSSES[name]
        given = {key: (settings or {}).get(key, default) for key, default in facts.settings.items()}
        strength = facts.beta if beta is None else beta
        total = total + weight * _term(name, pairs, strength, given, confidence, tie)
    return total


def _term(
    name: str,
    pairs: Pairs,
    beta: float | None,
    settings: Mapping[str, float],
    confidence: Tensor | None,
    tie: Tensor | None,
) -> Tensor:
    if name == "sft":
        return pairwise.negative_log_likelihood(pairs)
    if name == "rao_kupper":
        return rao_kupper(pairs, beta=_number(beta), confidence=confidence, tie=tie, **settings)
    if name == "orpo":
        ratio = _expected(pairwise.odds_ratio, pairs, confidence)
        return pairwise.negative_log_likelihood(pairs) + _number(beta) * ratio
    return _expected(lambda ordered: PAIRWISE[name](ordered, beta=_number(beta), **settings), pairs, confidence)


def _expected(loss: Callable[[Pairs], Tensor], pairs: Pairs, confidence: Tensor | None) -> Tensor:
    """Average a loss over which of the two completions is the better one."""
    if confidence is None:
        return loss(pairs)
    return confidence * loss(pairs) + (1 - confidence) * loss(pairs.swapped())


def _number(beta: float | None) -> float:
    if beta is None:
        raise ValueError("this loss needs a beta")
    return beta


def rao_kupper(
    pairs: Pairs, *, beta: float, tie_threshold: float, confidence: Tensor | None = None, tie: Tensor | None = None
) -> Tensor:
    """DPO with ties as an outcome of their own: Rao and Kupper's model, DPO-RK of arXiv:2409.17431.

    With ``a`` the threshold in units of the implicit reward, the chosen wins with probability ``sigmoid(beta z - a)``,
    loses with ``sigmoid(-beta z - a)``, and the rest is a tie:
    ``(exp(2 a) - 1) sigmoid(beta z - a) sigmoid(-beta z - a)``.
    """
    reward = beta * pairs.log_ratio
    won, lost = logsigmoid(reward - tie_threshold), logsigmoid(-reward - tie_threshold)
    tied = math.log(math.expm1(2 * tie_threshold)) + won + lost
    share_tied = torch.zeros_like(reward) if tie is None else tie
    share_won = (torch.ones_like(reward) if confidence is None else confidence) - share_tied / 2
    return -(share_won * won + (1 - share_won - share_tied) * lost + share_tied * tied)
