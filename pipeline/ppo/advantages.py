"""How much better each token was than the value model expected."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.ppo.processes import sum_over_processes
from pipeline.ppo.rewards import require_right_padded
from pipeline.runtime.precision import float64

EPSILON = 1e-8


def estimate_advantages(
    rewards: Tensor, values: Tensor, completion_mask: Tensor, *, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: eq. 16 of arXiv:1506.02438, backwards over the tokens.

    ``delta_t = r_t + g V_{t+1} - V_t``; ``A_t = delta_t + g l A_{t+1}``; the value after the last token is 0.

    Args:
        rewards: ``[B, T]``.
        values: ``[B, T]``, predicted before each token was drawn.
        completion_mask: ``[B, T]`` bool, right-padded.
        discount: g.
        gae_lambda: l.

    Returns:
        Advantages and returns ``A + V``, both ``[B, T]`` and zero on padding.
    """
    require_right_padded(completion_mask)
    real = completion_mask.to(rewards.dtype)
    rewards, values = torch.where(completion_mask, rewards, 0.0), torch.where(completion_mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    next_value, next_advantage = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for token in reversed(range(rewards.shape[1])):
        delta = rewards[:, token] + discount * next_value - values[:, token]
        next_advantage = (delta + discount * gae_lambda * next_advantage) * real[:, token]
        advantages[:, token], next_value = next_advantage, values[:, token]
    return advantages, advantages + values


def whiten(advantages: Tensor) -> Tensor:
    """Bring the advantages of a whole rollout, over all processes, to mean 0 and standard deviation 1.

    Args:
        advantages: ``[N]``, the real tokens of this process. With fewer than two tokens in all nothing is changed.
    """
    wide = float64(advantages)
    sums = torch.stack([wide.sum(), wide.new_tensor(wide.numel())])
    total, count = sum_over_processes(sums).tolist()
    if count < 2:
        return advantages
    mean = total / count
    squares = sum_over_processes(((wide - mean) ** 2).sum())
    deviation = (squares.item() / count) ** 0.5
    whitened: Tensor = ((wide - mean) / (deviation + EPSILON)).to(advantages)
    return whitened
