"""Base models from vetted folders, adapters on them, and adapters on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from pipeline.artifacts.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SHAPE_KEYS
from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import BaseModel
from pipeline.artifacts.hashing import sha256_json
from pipeline.config.shared import Attention, DType, LoRAConfig, ModelConfig, Quantization, RuntimeConfig
from pipeline.errors import ModelError
from pipeline.models.attention import MATRIX_ATTENTION
from pipeline.models.head import check_head, output_head, underlying_model
from pipeline.runtime.device import choose_device

ADAPTER_FOLDER = "adapter"  # of a policy artifact
ALL_LINEAR = "all-linear"
POLICY = "default"  # peft's name for the adapter that acts


def quantization_problem(model: ModelConfig, device_type: str) -> str | None:
    """Return why the configured quantization is not to be had on this device, or None."""
    if model.quantization is Quantization.none:
        return None
    if device_type != "cuda":
        return (
            f"model.quantization={model.quantization.value} needs a CUDA device and this run is on {device_type}. "
            "Set model.quantization=none."
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        return "model.quantization=nf4 needs bitsandbytes: `python -m pip install -e .[cuda]`."
    return None


def load_base(base: BaseModel, model: ModelConfig, runtime: RuntimeConfig, dtype: DType) -> PreTrainedModel:
    """Load a vetted base, frozen and in evaluation mode.

    Args:
        base: Where it lies and what it is.
        model: Attention and quantization.
        runtime: The device.
        dtype: Number format of the weights, already resolved.

    Raises:
        ModelError: Weights are missing or left over, or the quantization is not to be had here.
    """
    device = choose_device(runtime)
    problem = quantization_problem(model, device.type)
    if problem:
        raise ModelError(problem)
    extra: dict[str, Any] = {}
    if model.quantization is Quantization.nf4:  # not run on a GPU
        from transformers import BitsAndBytesConfig

        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype.value),
        )
        extra["device_map"] = {"": device}
    logging.disable_progress_bar()
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            str(base.folder),
            dtype=getattr(torch, dtype.value),
            attn_implementation=model.attention.value,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
    except (ValueError, ImportError) as error:  # an architecture, or a kind of attention, that is not to be had
        fails = f"{base.name} cannot be loaded with model.attention={model.attention.value}: {error}"
        advice = "Try model.attention=eager, which every architecture has."
        raise ModelError(fails if model.attention is Attention.eager else f"{fails} {advice}") from error
    faults = {key: sorted(map(str, values))[:5] for key, values in report.items() if values}
    if faults:
        raise ModelError(
            f"The weights in {base.folder} do not fit its config.json: {faults}. The folder is incomplete or mixed."
        )
    loaded.requires_grad_(False)
    loaded.eval()
    loaded.generation_config = type(loaded.generation_config)()  # the model's own sampling defaults must not leak in
    # What peft calls the base of an adapter: no path of this machine may end up in a sealed file.
    loaded.name_or_path = loaded.config.name_or_path = base.name
    loaded = loaded if "device_map" in extra else loaded.to(device)
    if (device.type, dtype, loaded.config._attn_implementation) == ("cpu", DType.bfloat16, Attention.sdpa.value):
        loaded.set_attn_implementation(MATRIX_ATTENTION)
    check_head(loaded)
    return cast(PreTrainedModel, loaded)


def linear_module_names(model: nn.Module) -> list[str]:
    """Return the last part of the name of every linear layer but the output head."""
    head = output_head(model).weight
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if _is_linear(module) and module.weight is not head
    }
    return sorted(names)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Linear4bit"


def add_lora(model: PreTrainedModel, config: LoRAConfig, seed: int) -> PeftModel:
    """Put a new trainable adapter on a frozen base. Its weights are fp32, whatever the base's are.

    The adapter starts as the identity (B is zero); A is drawn from ``seed`` alone.

    Raises:
        ModelError: A target is no linear module of this model, or is its output head.
    """
    known = linear_module_names(model)
    wanted = known if config.targets == [ALL_LINEAR] else list(config.targets)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ModelError(
            f"`lora.targets`: {', '.join(unknown)} is no linear module of this model below its output head. "
            f"Its linear modules: {', '.join(known)}; or write {ALL_LINEAR}."
        )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
        target_modules=sorted(wanted),
        bias="none",
    )
    with torch.random.fork_rng(), _peft_asks_for_an_old_name():
        torch.manual_seed(seed)
        policy = cast(PeftModel, get_peft_model(model, lora, adapter_name=POLICY, autocast_adapter_dtype=True))
    _require_float32(policy)
    return policy


@contextmanager
def weights_as_they_are(model: nn.Module) -> Iterator[None]:
    """Build a trainer of TRL without letting it touch what is trained: above a 4-bit base it would round it to bf16."""
    kept = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    yield
    for parameter, data in kept.items():
        parameter.data = data


def load_policy(model: PreTrainedModel, policy: Artifact, *, trainable: bool = False) -> PeftModel:
    """Put the adapter of a sealed policy on its base."""
    return load_adapter(model, policy.path / ADAPTER_FOLDER, trainable=trainable)


def load_adapter(model: PreTrainedModel, folder: Path, *, name: str = POLICY, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on a base that has none yet.

    Raises:
        ModelError: A tensor of the file has no place in the model, or a place of the adapter no tensor in the file.
    """
    with _peft_asks_for_an_old_name(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # told as an error below
        try:
            loaded = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ModelError(f"The adapter in {folder} does not fit this base model: {reason}") from error
    _require_float32(loaded)
    _require_every_tensor(loaded, folder, name)
    if not trainable:
        loaded.eval()
    return cast(PeftModel, loaded)


def _require_every_tensor(model: PeftModel, folder: Path, name: str) -> None:
    """Compare names and values, because peft loads what fits and leaves the rest as it was drawn."""
    saved = load_file(folder / ADAPTER_WEIGHTS)
    placed = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    differing = sorted(saved.keys() ^ placed.keys())
    differing += [
        key
        for key in saved.keys() & placed.keys()
        if not torch.equal(saved[key].to(placed[key].dtype), placed[key].cpu())
    ]
    if differing:
        raise ModelError(
            f"The adapter in {folder} does not fit this base model: {len(differing)} of its tensors have no place or "
            f"another shape, the first of them {differing[0]}."
        )


@contextmanager
def _peft_asks_for_an_old_name() -> Iterator[None]:
    """Keep quiet about an attribute of transformers that peft 0.21 still reads under its former name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _require_float32(policy: PeftModel) -> None:
    for name, parameter in policy.named_parameters():
        if "lora_" in name and parameter.dtype != torch.float32:
            raise ModelError(f"The adapter weight {name} is {parameter.dtype}, and adapters are trained in float32.")


def save_adapter(policy: PeftModel, folder: Path) -> None:
    """Write the adapter so that plain ``PeftModel.from_pretrained(base, folder)`` loads it.

    The same weights give the same bytes, and no path of this machine is in them.
    """
    # No embedding is ever trained; asked to find that out by itself, peft would ask the hub about the base's name.
    policy.save_pretrained(
        str(folder), selected_adapters=[POLICY], safe_serialization=True, save_embedding_layers=False
    )
    (folder / "README.md").unlink(missing_ok=True)  # a model card with nothing filled in
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = underlying_model(policy).name_or_path
    config["target_modules"] = sorted(config["target_modules"])
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    save_file(
        {name: tensors[name].contiguous() for name in sorted(tensors)}, folder / ADAPTER_WEIGHTS, {"format": "pt"}
    )


def adapter_digest(folder: Path) -> str:
    """Return the digest of what an adapter computes: its tensors and the shape that its configuration gives them."""
    digest = hashlib.sha256()
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    shape = {key: config.get(key) for key in SHAPE_KEYS}
    return sha256_json({"tensors": digest.hexdigest(), "shape": shape})
