"""From one score per completion to one reward per token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def token_rewards(
    scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, completion_mask: Tensor, *, kl_coef: float
) -> Tensor:
    """Return ``r_t = -kl_coef (log pi - log ref)_t``, plus the score at the last token of each completion.

    The penalty is the k1 estimate. With it, and without discounting, the expected sum of rewards is
    ``E[score] - kl_coef KL(pi || ref)``, whose optimum is ``ref exp(score / kl_coef)``. The estimates k2 and k3 are
    right as numbers and wrong here: the gradient of their mean is not that of the divergence.

    Args:
        scores: ``[B]``.
        logprobs: ``[B, T]`` of the policy that sampled, nats.
        reference_logprobs: ``[B, T]``.
        completion_mask: ``[B, T]`` bool, right-padded, True up to and including the token that ended the completion.
        kl_coef: Score units per nat.

    Returns:
        ``[B, T]``, zero on padding.
    """
    require_right_padded(completion_mask)
    rewards = torch.where(completion_mask, -kl_coef * (logprobs - reference_logprobs), 0.0)
    last = completion_mask.sum(dim=1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.unsqueeze(1))


def with_penalty_for_length(scores: Tensor, finish_reasons: Sequence[str], penalty: float) -> Tensor:
    """Take ``penalty`` off the score of every completion that ran into the limit of tokens.

    The finish reason decides, not the last token: which tokens end a completion is the sampler's knowledge.
    """
    unfinished = torch.tensor([reason == "length" for reason in finish_reasons], device=scores.device)
    return scores - penalty * unfinished.to(scores.dtype)


def require_right_padded(completion_mask: Tensor) -> None:
    """Refuse a mask with a completion that is empty, or that goes on after padding."""
    if not completion_mask[:, 0].all() or (completion_mask[:, 1:] & ~completion_mask[:, :-1]).any():
        raise ValueError("every row of completion_mask must be True on its first tokens and False on all that follow")
