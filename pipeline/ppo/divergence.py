"""How far the policy is from its reference, what that costs, and how far the sampler is from the policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.losses.ppo import MAX_LOG_RATIO

MAX_RELATIVE_ERROR = 0.2  # a rollout moves the coefficient by no more than this share per horizon's worth of episodes


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Unbiased and signed estimate of KL(pi || ref) per token, from samples of pi (http://joschu.net/blog/kl-approx)."""
    return logprobs - reference_logprobs


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The estimate ``exp(-d) - 1 + d`` with ``d = log pi - log ref``: unbiased and never negative.

    For the record only. As a penalty in the reward its gradient points elsewhere than the divergence's.
    """
    difference = (logprobs - reference_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(-difference) + difference


@dataclass(kw_only=True)
class KLController:
    """The coefficient of the penalty; with a target it follows the measured divergence (section 2.2, arXiv:1909.08593).

    ``coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon``.
    """

    coef: float  # score units per nat
    target: float | None = None  # nats per completion: sum over its tokens, mean over completions; None is fixed
    horizon: int = 10_000  # episodes

    def update(self, kl: float, num_episodes: int) -> None:
        """Follow a rollout whose completions were ``kl`` nats from the reference on average."""
        if self.target is not None:
            error = min(max(kl / self.target - 1.0, -MAX_RELATIVE_ERROR), MAX_RELATIVE_ERROR)
            self.coef *= 1.0 + error * num_episodes / self.horizon


def importance_weights(logprobs: Tensor, engine_logprobs: Tensor) -> Tensor:
    """Return ``pi / engine`` per token, as far as the exponential is finite."""
    return (logprobs - engine_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().detach()


def truncated_importance_weights(logprobs: Tensor, engine_logprobs: Tensor, *, cap: float) -> Tensor:
    """Return ``min(pi / engine, cap)`` per token: the correction for a sampler that is not quite the policy.

    Unbiased up to the truncation, which bounds the variance (eq. 1 of https://fengyao.notion.site/off-policy-rl).

    Args:
        logprobs: ``[N]`` of the sampled tokens by the forward pass that trains.
        engine_logprobs: ``[N]`` by the engine that sampled.
        cap: At least 1.
    """
    return importance_weights(logprobs, engine_logprobs).clamp(max=cap)


def effective_sample_share(weights: Tensor) -> float:
    """Return Kish's effective sample size over the number of weights: 1 where all are equal."""
    return float(weights.sum() ** 2 / (weights.numel() * (weights**2).sum()))
