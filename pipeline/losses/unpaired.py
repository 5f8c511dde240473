"""Losses of completions that are good or bad by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelWeights:
    """What a good and a bad completion weigh."""

    desirable: float = 1.0
    undesirable: float = 1.0


def unpaired_loss(
    log_ratio: Tensor,
    label: Tensor,
    *,
    beta: float,
    baseline: Tensor | float,
    weights: LabelWeights,
    confidence: Tensor | None = None,
) -> Tensor:
    """Return the loss of each completion, ``[B]``.

    With ``h = log pi(y|x) - log ref(y|x)`` in nats, a good completion costs ``w_d (1 - sigmoid(beta (h - z)))`` and a
    bad one ``w_u (1 - sigmoid(beta (z - h)))``.

    - KTO (arXiv:2402.01306, equation 8): ``z`` is the mean of ``h`` over unrelated completions, not below 0, and no
      gradient runs through it.
    - APO-zero of single completions (arXiv:2408.06266, equation 7, each side by itself): ``z`` is 0.

    A label that is right with probability ``p`` costs what it costs on average.

    Args:
        log_ratio: ``[B]``, ``h``.
        label: ``[B]`` bool, True where the completion is good.
        beta: Per nat.
        baseline: ``z``, one number.
        weights: ``w_d`` and ``w_u``.
        confidence: ``[B]`` probability that the label is right; None is 1.
    """
    reward = beta * (log_ratio - baseline)
    if_good = weights.desirable * torch.sigmoid(-reward)
    if_bad = weights.undesirable * torch.sigmoid(reward)
    right, wrong = torch.where(label, if_good, if_bad), torch.where(label, if_bad, if_good)
    return right if confidence is None else confidence * right + (1 - confidence) * wrong
