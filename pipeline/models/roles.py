"""Several models on one frozen backbone: each role is an adapter, and one context says which of them acts.

With PEFT the active adapter and what requires a gradient are global state of the model. A backward pass that runs
while another adapter is active gives no gradient or, with activation checkpointing, a wrong one, and no error
(https://github.com/huggingface/peft/issues/2832). So at most one adapter's graph is alive at a time: forward and
backward of a role happen inside its context. Switching touches every layer: enter once per phase, not per batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.head import underlying_model
from pipeline.models.loading import POLICY as POLICY

# Names of adapters. The policy has peft's own default, so that its saved adapter loads anywhere.
REFERENCE, VALUE = "reference", "value"
_TRAINED_ROLE = "_trained_role"  # attribute of the model while a role's graph may be alive


@contextmanager
def enter_role(model: PeftModel, adapter: str | None, *, train: bool = False) -> Iterator[PeftModel]:
    """Let one adapter act, and put everything back as it was at the end, also after an error.

    Inside, exactly the parameters of that adapter require a gradient if ``train``, else none.

    Args:
        model: The backbone with all its adapters.
        adapter: Which one acts; None is the bare base.
        train: Whether its parameters collect gradients. Gradients that are there already stay.

    Raises:
        ModelError: There is no such adapter, an adapter is merged into the base, or another role is being trained.
    """
    if adapter is not None and adapter not in model.peft_config:
        raise ModelError(f"There is no adapter {adapter!r} on the backbone; it has {', '.join(model.peft_config)}.")
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.merged for layer in layers):
        raise ModelError("An adapter is merged into the base, so no other role can act. Unmerge is not exact: reload.")
    busy = getattr(model, _TRAINED_ROLE, None)
    if train and (busy is not None or adapter is None):
        what = f"the role {busy!r} is being trained" if busy is not None else "the base is frozen"
        raise ModelError(f"The role {adapter!r} cannot be trained now: {what}.")
    active, disabled = list(model.base_model.active_adapters), layers[0].disable_adapters
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    if train:
        setattr(model, _TRAINED_ROLE, adapter)
    try:
        _activate(model, adapter, train=train)
        yield model
    finally:
        if train:
            setattr(model, _TRAINED_ROLE, None)
        model.base_model.set_adapter(active, inference_mode=True)
        model.base_model.disable_adapter_layers() if disabled else model.base_model.enable_adapter_layers()
        for parameter, requires_grad in required:
            parameter.requires_grad_(requires_grad)


def _activate(model: PeftModel, adapter: str | None, *, train: bool) -> None:
    if adapter is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.base_model.set_adapter(adapter, inference_mode=not train)
    trained = set(role_parameters(model, adapter)) if train and adapter is not None else set()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def role_parameters(model: PeftModel, adapter: str) -> dict[str, nn.Parameter]:
    """Return the parameters of one adapter by name, whatever requires a gradient at the moment."""
    found = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if any(part.startswith("lora_") and after == adapter for part, after in zip(parts, parts[1:], strict=False)):
            found[name] = parameter
    return found


def load_role(model: PeftModel, adapter: str, folder: Path) -> None:
    """Add a frozen role whose adapter lies in a folder, beside those that are there."""
    model.load_adapter(str(folder), adapter, is_trainable=False)
    _require_frozen_base(model)


def add_role(model: PeftModel, adapter: str, like: str, seed: int) -> None:
    """Add a role with a new adapter of the same shape as another's. It starts as the identity."""
    config = copy.deepcopy(model.peft_config[like])
    config.inference_mode = False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(adapter, config, autocast_adapter_dtype=True)
    _require_frozen_base(model)


def copy_role(model: PeftModel, source: str, target: str) -> None:
    """Give one adapter the weights of another of the same shape and scaling.

    Raises:
        ModelError: They differ in one of these.
    """
    theirs = {_without(name, source): parameter for name, parameter in role_parameters(model, source).items()}
    ours = {_without(name, target): parameter for name, parameter in role_parameters(model, target).items()}
    if {name: value.shape for name, value in theirs.items()} != {name: value.shape for name, value in ours.items()}:
        raise ModelError(f"The adapters {source!r} and {target!r} differ in shape, so one cannot start from the other.")
    if _scalings(model, source) != _scalings(model, target):
        raise ModelError(
            f"The adapters {source!r} and {target!r} differ in what their weights are multiplied by (alpha or rsLoRA), "
            "so one cannot start from the other. Train the reward model with the policy's `lora` settings."
        )
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(theirs[name])


def _scalings(model: PeftModel, adapter: str) -> dict[str, float]:
    """Return what each layer multiplies an adapter's product by."""
    layers = ((name, getattr(module, "scaling", {})) for name, module in model.named_modules())
    return {name: scaling[adapter] for name, scaling in layers if isinstance(scaling, dict) and adapter in scaling}


def switch_dropout_off(model: nn.Module) -> None:
    """Set every dropout to zero: with it the ratio of new to old probabilities is not 1 before the first update."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            cast("object", module).attention_dropout = 0.0  # type: ignore[attr-defined]
    config = underlying_model(model).config
    for key in ("attention_dropout", "hidden_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"):
        if getattr(config, key, None):
            setattr(config, key, 0.0)


def _without(name: str, adapter: str) -> str:
    return ".".join(part for part in name.split(".") if part != adapter)


def _require_frozen_base(model: PeftModel) -> None:
    base = [name for name, parameter in model.named_parameters() if "lora_" not in name and parameter.requires_grad]
    if base:
        raise ModelError(f"The base is not frozen: {base[0]} requires a gradient.")
