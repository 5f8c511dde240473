"""Attention that trains quickly in bfloat16 on a CPU, where the backward pass of torch's fused kernel is slow.

It is four matrix products per pass and a softmax in fp32 (eq. 1 of arXiv:1706.03762); like the fused kernel it keeps
no scores and computes them again in the backward pass. Heads that share keys and values are one product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

MATRIX_ATTENTION = "matrix_attention"  # its name in transformers
MOST_POSITIONS = 1024  # beyond, the scores of a layer take more memory than they save time


_as_in_training: ContextVar[bool] = ContextVar("as_in_training", default=False)


@contextmanager
def as_in_training() -> Iterator[None]:
    """Let passes without gradients round as training steps do: what both give is compared to the last bit."""
    token = _as_in_training.set(True)
    try:
        yield
    finally:
        _as_in_training.reset(token)


class _MatrixAttention(torch.autograd.Function):
    """``softmax(scaling * q @ k.T, over what the mask shows) @ v``; H query heads share K heads of keys and values."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        batch, heads, length, size = query.shape
        grouped = (query * scaling).reshape(batch, key.shape[1], -1, size)  # [B, K, H / K * L, D]
        ctx.save_for_backward(grouped, key, value, mask)
        ctx.scaling = scaling
        return (_probabilities(grouped, key, mask) @ value).view(batch, heads, length, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grouped, key, value, mask = ctx.saved_tensors
        batch, kv_heads, rows, size = grouped.shape
        probabilities = _probabilities(grouped, key, mask)
        grad_rows = grad.reshape(batch, kv_heads, rows, -1)
        grad_value = probabilities.transpose(2, 3) @ grad_rows
        grad_scores = torch.ops.aten._softmax_backward_data(
            grad_rows @ value.transpose(2, 3), probabilities, -1, probabilities.dtype
        )
        grad_query = (grad_scores @ key).mul_(ctx.scaling).view(batch, -1, mask.shape[2], size)
        return grad_query, grad_scores.transpose(2, 3) @ grouped, grad_value, None, None


def _probabilities(grouped: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Return ``[B, K, H / K * L, S]``. A row that sees nothing, as of padding, is uniform and not NaN."""
    batch, kv_heads, rows, _ = grouped.shape
    scores = (grouped @ key.transpose(2, 3)).view(batch, kv_heads, -1, *mask.shape[2:])
    scores.masked_fill_(~mask.unsqueeze(2), torch.finfo(scores.dtype).min)
    wide = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=wide).to(scores.dtype).view(batch, kv_heads, rows, -1)


def matrix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' ``sdpa`` does, with which it shares its arguments and all that is no training step.

    Args:
        module: The attention layer.
        query: ``[B, H, L, D]``.
        key: ``[B, K, S, D]``, where K divides H.
        value: ``[B, K, S, D]``.
        attention_mask: ``[B, 1, L, S]`` bool, True on what a position sees; None is causal.
        dropout: Of the probabilities.
        scaling: Of the scores; None is ``D ** -0.5``.
        is_causal: Whether None is causal; None asks the layer.
        others: What `sdpa` alone knows.

    Returns:
        ``[B, L, H, D]``, and None for the probabilities, which are not kept.
    """
    mask = _visible(module, query, key, attention_mask, is_causal)
    is_special = dropout > 0 or any(others.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    trains = _as_in_training.get() or (torch.is_grad_enabled() and query.requires_grad)
    if mask is None or is_special or not trains:
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
        return attended, None
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    result: Tensor = _MatrixAttention.apply(query, key, value, mask, factor)  # type: ignore[no-untyped-call]
    return result.transpose(1, 2).contiguous(), None


def _visible(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None
) -> Tensor | None:
    """Return the mask as ``[1 or B, 1, L, S]`` bool, or None where it is of another kind or too large."""
    length, num_keys = query.shape[2], key.shape[2]
    if num_keys > MOST_POSITIONS:
        return None
    if mask is not None:
        return mask if mask.dtype is torch.bool and mask.shape[1:] == (1, length, num_keys) else None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal or length != num_keys:
        return None
    return torch.ones((1, 1, length, length), dtype=torch.bool, device=query.device).tril()


AttentionInterface.register(MATRIX_ATTENTION, matrix_attention)
AttentionMaskInterface.register(MATRIX_ATTENTION, sdpa_mask)
