"""A plain adapter folder of peft: vetted before anything loads it, and known by its tensors and their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts.hashing import FileHashes, sha256_json
from pipeline.artifacts.vetting import UNSAFE_SUFFIXES, read_json, vet_safetensors
from pipeline.errors import ModelError

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
# What of an adapter's configuration decides its output; the rest says how it was made or where its base lies.
SHAPE_KEYS = ("r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "rank_pattern", "alpha_pattern", "bias")
# What would make more of it than low-rank matrices on linear layers, or change the base while it is loaded.
REFUSED_KEYS = (
    *("modules_to_save", "trainable_token_indices", "layer_replication", "auto_mapping", "megatron_config"),
    *("target_parameters", "exclude_modules", "layers_to_transform", "loftq_config", "lora_bias", "use_qalora"),
)
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva", None)  # of `init_lora_weights`: the base stays as it is


def vet_adapter(folder: Path, base_name: str) -> dict[str, Any]:
    """Refuse an adapter that is unsafe, damaged, no LoRA, or of another base, and return its configuration.

    Args:
        folder: With ``adapter_model.safetensors`` and ``adapter_config.json``.
        base_name: Of the model that it is to be put on. Names are compared by their last part, without regard to case:
            the same model is called by a hub id here and by a folder's name there. Its shapes are compared on loading.

    Raises:
        ModelError: Names the file and what to do.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{path} is a link that leads out of the folder. Replace it by the file itself.")
        if path.suffix.lower() in UNSAFE_SUFFIXES:
            raise ModelError(
                f"{path} is in a format that can run code when it is read. Save the adapter with "
                "`save_pretrained(..., safe_serialization=True)`."
            )
    file = folder / ADAPTER_CONFIG
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{folder} has no {ADAPTER_WEIGHTS}. Save the adapter with `save_pretrained` of peft.")
    config = read_json(file)
    if config.get("peft_type") != "LORA" or config.get("task_type") not in ("CAUSAL_LM", None):
        kind = f"{config.get('peft_type')!r} for {config.get('task_type')!r}"
        raise ModelError(f"{file}: it is {kind}; only LoRA adapters of causal language models are put on a base here.")
    odd = [key for key in REFUSED_KEYS if config.get(key)]
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        odd.append("init_lora_weights")
    if odd:
        raise ModelError(
            f"{file}: {', '.join(odd)} is set, which is more than low-rank matrices on the base's linear layers. Merge "
            "the adapter into its base and name the folder of the whole model."
        )
    made_for = config.get("base_model_name_or_path")
    if not isinstance(made_for, str) or not made_for:
        raise ModelError(f"{file}: `base_model_name_or_path` does not say which base it was made for. Write it there.")
    if _last_part(made_for) != _last_part(base_name):
        raise ModelError(
            f"{file}: the adapter was made for {made_for}, and the configured base is {base_name}. Choose its base "
            "with `model=hub model.id=…`, or merge the adapter and name the folder of the whole model."
        )
    vet_safetensors(folder / ADAPTER_WEIGHTS)
    return config


def adapter_identity(folder: Path, config: dict[str, Any], hashes: FileHashes) -> dict[str, str]:
    """Return what tells two adapters apart, by the names that a fingerprint uses."""
    shape = {key: config.get(key) for key in SHAPE_KEYS}
    if isinstance(shape["target_modules"], list):
        shape["target_modules"] = sorted(shape["target_modules"])
    return {"adapter weights": hashes.sha256(folder / ADAPTER_WEIGHTS), "adapter shape": sha256_json(shape)}


def _last_part(name: str) -> str:
    return name.rstrip("/").replace("\\", "/").split("/")[-1].lower()
