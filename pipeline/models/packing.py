"""Two continuations of one beginning in one row: what both share is computed once, for its value and its gradient.

A row is the shared beginning, the rest of the first side and the rest of the second. Each side sees the beginning and
itself, at the positions it would have alone, so every state is what it is without packing, to rounding
(arXiv:2410.20305, "prefix sharing").
"""

from __future__ import annotations

import inspect
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.models.attention import MATRIX_ATTENTION
from pipeline.models.head import backbone, underlying_model
from pipeline.models.logprobs import compute_context
from pipeline.models.lower_layers import LowerLayers

FULL_ATTENTION = "full_attention"  # of `layer_types` in a configuration
SHARED, CHOSEN, REJECTED, PADDING = 0, 1, 2, 3  # segments of a row


def can_pack(model: nn.Module) -> bool:
    """Whether a mask of its own says all of what a token of this model sees.

    Fused kernels of attention know only whole rows, layers with a window add a rule of their own, a layer with a
    running state has no mask at all and would carry one side into the other, and attention with linear biases (ALiBi)
    goes by the place in the row, where the second side is further from the beginning than it would be alone.
    """
    causal = underlying_model(model)
    config = causal.config.get_text_config()
    # `attention_layers` is GPT-Neo's name, and its words are others.
    kinds = set(getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ())
    is_full = kinds == {FULL_ATTENTION} if kinds else getattr(config, "sliding_window", None) is None
    takes_mask = causal.config._attn_implementation in {"sdpa", "eager", MATRIX_ATTENTION}
    takes_positions = "position_ids" in inspect.signature(backbone(model).forward).parameters
    has_alibi = not takes_positions or getattr(config, "alibi", False)
    return takes_mask and is_full and not has_alibi and not getattr(causal, "_is_stateful", False)


def packed_states(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, segments: Tensor, lower: LowerLayers | None = None
) -> Tensor:
    """Return the last hidden states ``[B, L, H]`` of packed rows.

    Args:
        model: A causal language model of transformers in a PEFT wrapper, for which `can_pack` is true.
        input_ids: ``[B, L]`` int64.
        position_ids: ``[B, L]`` int64: each side goes on counting where the beginning ends.
        segments: ``[B, L]`` int64, of `SHARED`, `CHOSEN`, `REJECTED` and `PADDING`.
        lower: Frozen layers whose states are computed once for each row and kept.
    """
    mask = _visible(segments)
    if underlying_model(model).config._attn_implementation == "eager":  # it adds the mask to its scores
        hidden = torch.finfo(torch.float32).min
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, hidden)
    with compute_context(model):
        if lower is not None:
            return lower.states(model, input_ids, segments, mask, position_ids, PADDING)
        states = backbone(model)(
            input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
    return cast("Tensor", states)


def _visible(segments: Tensor) -> Tensor:
    """Return ``[B, 1, L, L]`` bool, whether a query sees a key: earlier, and shared or of its own segment.

    Padding sees padding, so that no row of attention is empty, and nothing else sees it.
    """
    length = segments.shape[1]
    earlier = torch.ones((length, length), dtype=torch.bool, device=segments.device).tril()
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    return ((query == key) | ((key == SHARED) & (query != PADDING))).logical_and(earlier).unsqueeze(1)
