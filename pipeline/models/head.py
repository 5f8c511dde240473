"""The output head of a causal language model, taken apart so that it can be applied to chosen positions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_LENGTH = 8  # tokens of the sequence on which a taken-apart model is compared with the whole one


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputHead:
    """``logits = cap(scale * (hidden @ weight.T + bias))`` with ``cap(x) = softcap * tanh(x / softcap)``."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    scale: float
    softcap: float | None


def underlying_model(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside a PEFT wrapper (with its adapters still at work), or the model itself."""
    unwrap = getattr(model, "get_base_model", None)
    causal = unwrap() if unwrap is not None else model
    if not hasattr(causal, "get_output_embeddings"):
        # Reaching through DistributedDataParallel or a compiled module would skip its hooks without a word.
        raise ModelError(
            f"Log-probabilities were asked of a {type(model).__name__}. Pass the transformers or PEFT model inside it, "
            "and add up the gradients of the adapters across processes yourself."
        )
    return cast("PreTrainedModel", causal)


def backbone(model: nn.Module) -> nn.Module:
    """Return the part of a causal language model that maps token ids to the hidden states its head reads."""
    causal = underlying_model(model)
    decoder = causal.get_decoder()
    if decoder is causal:
        raise ModelError(
            f"{type(causal).__name__} has no decoder apart from its output head, so its completions cannot be scored. "
            "Choose a decoder-only causal language model in `model.id`."
        )
    return cast(nn.Module, decoder)


def output_head(model: nn.Module) -> OutputHead:
    """Read the output head with the logit scaling and soft-capping that the architecture's configuration asks for."""
    causal = underlying_model(model)
    layer = causal.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"The output head of {type(causal).__name__} is {type(layer).__name__} and not a plain linear layer: "
            "adapters and quantisation of the head are not supported. Leave it out of `lora.targets`."
        )
    config = causal.config.get_text_config()
    return OutputHead(
        weight=layer.weight,
        bias=layer.bias,
        scale=_logit_scale(config),
        softcap=_positive(config, "final_logit_softcapping"),
    )


def _logit_scale(config: Any) -> float:
    """Cohere and Falcon-H1 multiply the logits by a constant, Granite divides them."""
    scale = 1.0
    for key in ("logit_scale", "lm_head_multiplier"):
        scale *= _positive(config, key) or 1.0
    return scale / (_positive(config, "logits_scaling") or 1.0)


def _positive(config: Any, key: str) -> float | None:
    value = getattr(config, key, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ModelError(f"`{key}` in config.json is {value!r}; a positive number was expected.")
    return float(value)


def head_logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """Return the ``[N, V]`` fp32 logits of states ``[N, H]``, through the head's own module."""
    head, layer = output_head(model), underlying_model(model).get_output_embeddings()
    # A slice of longer rows is no matrix to torch, which would repeat the whole weight for each of them.
    logits: Tensor = layer(hidden.to(head.weight.dtype).contiguous()).float()
    logits = logits if head.scale == 1.0 else logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Refuse a model whose logits are not what its backbone and head give when they are applied one after the other.

    Architectures differ in what lies between them. Comparing the two on one short sequence finds every difference,
    also that of an architecture which this code has never seen.
    """
    causal, head = underlying_model(model), output_head(model)
    vocab_size = head.weight.shape[0]
    input_ids = (torch.arange(PROBE_LENGTH, device=head.weight.device) * 37 % vocab_size).unsqueeze(0)
    expected = causal(input_ids=input_ids, use_cache=False).logits[0].float()
    hidden = backbone(model)(input_ids=input_ids, use_cache=False).last_hidden_state[0]
    logits = head_logits(model, hidden)
    tolerance = 1e-4 if head.weight.dtype == torch.float32 else 3e-2
    scale = expected.abs().max().item()
    difference = (logits - expected).abs().max().item() if logits.shape == expected.shape else float("inf")
    if not difference <= tolerance * max(scale, 1.0):
        raise ModelError(
            f"{type(causal).__name__} does something to its logits that this pipeline does not know: backbone and "
            f"head, applied one after the other, differ from the whole model by {difference:.3g}. "
            "It cannot be trained here."
        )
