"""Linear layers laid out for decoding, which multiplies every weight with a handful of rows at each step.

On an x86 CPU such a product spends much of its time on bringing the weight into the order that its kernel reads.
oneDNN can keep a copy in that order. Adapters are applied beside it without casts at every step. On any
other device, and for a model of which a copy would be a burden, the layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

MOST_BYTES = 4 << 30  # of the weights that are copied
SMALLEST = 64  # rows and columns of a weight that is worth a copy

Forward = Callable[[Tensor], Tensor]


@contextmanager
def packed_linears(model: nn.Module, num_rows: int) -> Iterator[None]:
    """While entered, the linear layers of a frozen model run from packed copies; results differ by rounding only.

    Args:
        model: In evaluation mode. Its weights and its adapters must not change meanwhile.
        num_rows: Rows of a product, about; any other number works too.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and _can_be_packed(module)]
    if sum(layer.weight.nbytes for layer in layers) > MOST_BYTES:
        layers = []
    replaced: dict[nn.Module, Forward] = {layer: _packed(layer, num_rows) for layer in layers}
    for module in model.modules():
        if isinstance(module, LoraLinear) and module.get_base_layer() in replaced and _is_plain(module):
            replaced[module] = _adapted(module, replaced[module.get_base_layer()])
    try:
        for layer, forward in replaced.items():
            layer.forward = forward
        yield
    finally:
        for layer in replaced:
            vars(layer).pop("forward", None)


def _can_be_packed(layer: nn.Linear) -> bool:
    weight = layer.weight
    if weight.device.type != "cpu" or "forward" in vars(layer) or min(weight.shape) < SMALLEST:
        return False
    # Measured with AVX-512; with other instruction sets than Intel's and AMD's nothing is known.
    if not torch._C._has_mkldnn or "AVX" not in torch.backends.cpu.get_cpu_capability():
        return False
    return weight.dtype is torch.float32 or (
        weight.dtype is torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


@torch.no_grad()
def _packed(layer: nn.Linear, num_rows: int) -> Forward:
    """Return ``x @ weight.T + bias`` from a packed copy; the two operators are what `torch.compile` uses for it."""
    dtype, bias = layer.weight.dtype, layer.bias
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), num_rows)

    def forward(x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, "none", [], "")
        return product

    return forward


def _is_plain(layer: LoraLinear) -> bool:
    """Whether one adapter acts, and as plain LoRA."""
    if type(layer) is not LoraLinear or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    (name,) = layer.active_adapters
    return name in layer.lora_A and name not in layer.lora_variant and layer.lora_B[name].bias is None


@torch.no_grad()
def _adapted(layer: LoraLinear, base: Forward) -> Forward:
    """Return ``base(x) + (x @ A.T) @ (scaling * B.T)``, with the adapter cast once and not at every step."""
    (name,) = layer.active_adapters
    dtype = layer.get_base_layer().weight.dtype
    down = layer.lora_A[name].weight.detach().to(dtype)  # [rank, in]
    up = (layer.scaling[name] * layer.lora_B[name].weight.detach()).to(dtype)  # [out, rank]

    def forward(x: Tensor) -> Tensor:
        return base(x).add_(nn.functional.linear(nn.functional.linear(x.to(dtype), down), up))

    return forward
