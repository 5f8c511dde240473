"""The losses of PPO: the clipped surrogate for the policy and the clipped squared error for the values.

Both take the real completion tokens of one microbatch as flat vectors: what is padding has been left behind before, so
it can reach neither a value nor a gradient. Both return sums over the microbatch divided by the tokens of the whole
optimizer step, so microbatches of any size, on any number of processes, add up to the same gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# exp(20) is far outside any clipping range and still finite in fp32, also when it is squared.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyLoss:
    """The loss, and sums over the tokens of the microbatch for the record."""

    loss: Tensor  # scalar; the losses of the microbatches add up to the step's
    clipped: Tensor  # tokens whose gradient the clipping took away
    kl: Tensor  # k3 of the old policy from the new one, nats
    ratio: Tensor
    ratio_peak: Tensor  # largest |ratio - 1|


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueLoss:
    """The loss, and the number of tokens whose gradient the clipping took away."""

    loss: Tensor
    clipped: Tensor


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    num_tokens: int,
    clip_range: float,
    clip_range_high: float | None = None,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped surrogate as a loss: eq. 7 of arXiv:1707.06347, negated, averaged over tokens.

    ``rho = exp(logprobs - old_logprobs)``; per token ``max(-A rho, -A clip(rho, 1 - low, 1 + high))``. With
    ``dual_clip`` c, where ``A < 0`` no more than ``-c A`` (eq. 5 of arXiv:1912.09729).

    Args:
        logprobs: ``[N]`` nats under the policy that is trained.
        old_logprobs: ``[N]`` under the policy that sampled.
        advantages: ``[N]``.
        num_tokens: Completion tokens of the optimizer step, over all microbatches and processes.
        clip_range: How far below 1 the ratio may go, and above unless ``clip_range_high`` says otherwise.
        clip_range_high: How far above 1 (arXiv:2503.14476 raises this one alone).
        dual_clip: Above 1; None is off.
        weights: ``[N]`` truncated importance weights against the engine that sampled; None is 1.
    """
    _require_tokens(num_tokens, logprobs)
    high = clip_range if clip_range_high is None else clip_range_high
    log_ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1.0 - clip_range, 1.0 + high)
    losses = torch.maximum(unclipped, clipped)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    if weights is not None:
        losses = losses * weights
    loss = losses.sum() / num_tokens
    with torch.no_grad():
        distance = (ratio - 1.0).abs()
        return PolicyLoss(
            loss=loss,
            clipped=(clipped > unclipped).sum(),
            # k3 of KL(old || new), of which the old policy's samples are an unbiased estimate.
            kl=(torch.expm1(log_ratio) - log_ratio).sum(),
            ratio=ratio.sum(),
            ratio_peak=distance.max() if distance.numel() else distance.sum(),
        )


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, num_tokens: int, clip_range: float | None
) -> ValueLoss:
    """Half the squared error of the values, not better than what a step of ``clip_range`` can reach.

    ``0.5 max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2)``, as in lm-human-preferences (arXiv:1909.08593).

    Args:
        values: ``[N]`` predicted now.
        old_values: ``[N]`` predicted when the completions were sampled.
        returns: ``[N]``.
        num_tokens: Completion tokens of the optimizer step, over all microbatches and processes.
        clip_range: c, in units of the score; None is off.
    """
    _require_tokens(num_tokens, values)
    errors = (values - returns) ** 2
    if clip_range is None:
        return ValueLoss(loss=0.5 * errors.sum() / num_tokens, clipped=torch.zeros((), device=values.device))
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped_errors = (near - returns) ** 2
    loss = 0.5 * torch.maximum(errors, clipped_errors).sum() / num_tokens
    beyond = (values - old_values).abs() > clip_range  # inside, the two errors differ by rounding
    return ValueLoss(loss=loss, clipped=((clipped_errors > errors) & beyond).sum())


def _require_tokens(num_tokens: int, tokens: Tensor) -> None:
    if num_tokens < max(1, tokens.numel()):
        raise ValueError(f"num_tokens is {num_tokens}, but this microbatch alone has {tokens.numel()} tokens")
