"""Tiny random models of architectures whose layers are not all full attention with rotary positions."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2,
    "pad_token_id": 3,
}  # fmt: skip
WINDOW: dict[str, Any] = {"sliding_window": 4}
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
OWN: dict[str, dict[str, Any]] = {
    "mistral": WINDOW,
    "gemma2": WINDOW,  # a window in every other layer
    "gemma3_text": WINDOW,
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 1, "linear_num_value_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1,
        "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    },
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},  # both kinds of state in one layer
    "granitemoehybrid": {
        **MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 0, "shared_intermediate_size": 48,
    },
    "falcon": {"alibi": True},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2},
}  # fmt: skip


def make_architecture(kind: str, **changes: Any) -> PreTrainedModel:
    """Build a model of a `model_type` of transformers, frozen, with weights under which tokens matter to each other."""
    config = AutoConfig.for_model(kind, **{**SIZES, **OWN.get(kind, {}), **changes})
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.3, generator=generator)
    return model
