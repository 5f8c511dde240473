"""Losses of a reward model: Bradley-Terry and its two extensions to ties, with soft labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


def bradley_terry_loss(difference: Tensor, confidence: Tensor) -> Tensor:
    """Cross-entropy of the Bradley-Terry model with soft labels, ``-(p log s(d) + (1 - p) log s(-d))``.

    ``s`` is the logistic function and ``P(chosen is better) = s(d)`` (Bradley and Terry 1952; with ``p = 1`` equation 1
    of arXiv:2203.02155). At its least the difference of scores is the log-odds of the label.

    Args:
        difference: ``[B]`` score of chosen minus score of rejected, less a margin if there is one.
        confidence: ``[B]`` probability ``p`` that chosen is better, in [0, 1]; a tie counts half.

    Returns:
        ``[B]`` nats.
    """
    return -(confidence * logsigmoid(difference) + (1 - confidence) * logsigmoid(-difference))


def davidson_loss(difference: Tensor, confidence: Tensor, tie: Tensor, log_tie: Tensor) -> Tensor:
    """Cross-entropy over win, loss and tie, with ``P(tie)`` proportional to ``nu sqrt(pi_1 pi_2)``.

    Davidson, "On Extending the Bradley-Terry Model to Accommodate Ties in Paired Comparison Experiments", JASA 1970.
    In log strengths the three logits are ``d/2``, ``-d/2`` and ``log nu``. Without ties it is Bradley-Terry.

    Args:
        difference: ``[B]`` as in `bradley_terry_loss`.
        confidence: ``[B]`` as in `bradley_terry_loss`: half of ``tie`` is in it.
        tie: ``[B]`` probability that both are equally good.
        log_tie: Scalar ``log nu``.
    """
    logits = torch.stack([difference / 2, -difference / 2, log_tie.expand_as(difference)], dim=-1)
    return -(_outcomes(confidence, tie) * logits.log_softmax(dim=-1)).sum(dim=-1)


def rao_kupper_loss(difference: Tensor, confidence: Tensor, tie: Tensor, raw_threshold: Tensor) -> Tensor:
    """Cross-entropy over win, loss and tie, where a side wins that is better by more than a threshold ``eta``.

    Rao and Kupper, "Ties in Paired-Comparison Experiments: A Generalization of the Bradley-Terry Model", JASA 1967:
    ``P(win) = s(d - eta)``, ``P(loss) = s(-d - eta)``, ``P(tie) = (exp(2 eta) - 1) P(win) P(loss)``.

    Args:
        difference: ``[B]`` as in `bradley_terry_loss`.
        confidence: ``[B]`` as in `bradley_terry_loss`: half of ``tie`` is in it.
        tie: ``[B]`` probability that both are equally good.
        raw_threshold: Scalar; ``eta`` is its softplus and so positive.
    """
    eta = softplus(raw_threshold)
    win, loss = logsigmoid(difference - eta), logsigmoid(-difference - eta)
    draw = 2 * eta + torch.log(-torch.expm1(-2 * eta)) + win + loss  # log(exp(2 eta) - 1) without overflow
    return -(_outcomes(confidence, tie) * torch.stack([win, loss, draw], dim=-1)).sum(dim=-1)


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Square of the sum of both scores, ``(r_w + r_l)^2``, which keeps scores around zero (arXiv:2312.09244)."""
    return (chosen + rejected) ** 2


def smoothed(confidence: Tensor, label_smoothing: float) -> Tensor:
    """Return labels of which a share is taken for wrong: ``p (1 - e) + (1 - p) e`` (cDPO's smoothing for scores)."""
    return confidence * (1 - label_smoothing) + (1 - confidence) * label_smoothing


def _outcomes(confidence: Tensor, tie: Tensor) -> Tensor:
    """Return ``[B, 3]`` probabilities of win, loss and tie; rounding must not make one of them negative."""
    win = (confidence - tie / 2).clamp(min=0)
    loss = (1 - confidence - tie / 2).clamp(min=0)
    return torch.stack([win, loss, tie], dim=-1)
