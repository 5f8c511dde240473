"""What a training run will need, from the shapes in the base model's files and from runs that this machine has made.

The memory model is deliberately small and says so: it counts what grows with the model and the batch, and is right to
about a half. Time is never modelled; it is what an earlier run of the same stage on this machine took per token.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.store import Store
from pipeline.config.ppo import PPOConfig, ValueModel
from pipeline.config.shared import Attention, DType, LoRAConfig, ModelConfig, Quantization
from pipeline.errors import ModelError

PROCESS_BYTES = 600_000_000  # interpreter and libraries
ADAPTER_BYTES = 16  # per trained parameter: value, gradient and two moments, each in fp32
FROZEN_ADAPTER_BYTES = 4
DRAWING_BYTES = 20  # per logit while a token is drawn: logits, probabilities and their running sum in fp64
HEAD_CHUNK = 128  # positions whose logits exist at one time
LAYER_NUMBER = re.compile(r"\.(\d+)\.")  # of model.layers.7.mlp.up_proj.weight
NOT_ADAPTED = ("*embed*", "*lm_head*", "*wte*", "*wpe*", "*norm*")  # what "all-linear" leaves out

Shapes = Mapping[str, Sequence[int]]


class Trained(Protocol):
    """What the configuration of a training says about its memory."""

    lora: LoRAConfig
    microbatch_size: int
    activation_checkpointing: bool


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes by what they are for."""

    base_parameters: int
    adapter_parameters: int
    base: int
    adapter: int
    activations: int
    head: int
    kept: int = 0  # states of frozen lower layers, computed once for every row

    @property
    def total(self) -> int:
        """Everything, with the process itself."""
        return PROCESS_BYTES + self.base + self.adapter + self.activations + self.head + self.kept


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Read names and shapes of all tensors from the headers of the safetensors files of a model."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ModelError(f"{path} is not a safetensors file: its header is longer than the file.")
            header = json.loads(file.read(length))
        shapes |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    return shapes


def adapter_parameters(shapes: Shapes, lora: LoRAConfig, *, first_layer: int = 0) -> int:
    """Count the parameters of a low-rank adapter: rank x (inputs + outputs) for every adapted matrix.

    With ``first_layer`` only those of that layer and the layers above it count.
    """
    return sum(
        lora.rank * (shape[0] + shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2
        and _is_adapted(name.removesuffix(".weight"), lora.targets)
        and int(found[1] if (found := LAYER_NUMBER.search(name)) else 0) >= first_layer
    )


def activation_values(
    config: Mapping[str, Any], length: int, attention: Attention, *, checkpointing: bool, layers: int | None = None
) -> int:
    """Return how many values the backward pass keeps per token, in all layers or in as many as learn.

    Per layer: 16 vectors of the hidden size and 4 of the feed-forward size; with eager attention also 3 rows of
    attention scores per head, which the other implementations compute anew. With activation checkpointing: one vector
    of the hidden size per layer, and one layer in full.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"] if layers is None else layers
    feed_forward = config.get("intermediate_size") or 4 * hidden
    scores = 3 * config["num_attention_heads"] * length if attention is Attention.eager else 0
    per_layer: int = 16 * hidden + 4 * feed_forward + scores
    values: int = per_layer + layers * hidden if checkpointing else layers * per_layer
    return values


def training_memory(
    folder: Path,
    section: Trained,
    model: ModelConfig,
    longest: int,
    *,
    sides: int = 1,
    upper_layers: int | None = None,
    num_tokens: int = 0,
) -> MemoryEstimate:
    """Estimate the peak of a training, which its batch of the longest rows decides.

    Args:
        folder: Of the base.
        section: Of the stage.
        model: How the base is loaded.
        longest: Tokens of the longest row.
        sides: A pair has two.
        upper_layers: Only so many layers learn; None is all.
        num_tokens: Of all rows, whose states below the layers that learn are then kept.
    """
    shapes = weight_shapes(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    base_parameters = sum(math.prod(shape) for shape in shapes.values())
    num_layers = int(config["num_hidden_layers"])
    upper = num_layers if upper_layers is None else min(upper_layers, num_layers)
    adapter = adapter_parameters(shapes, section.lora)
    trained = adapter_parameters(shapes, section.lora, first_layer=num_layers - upper)
    # `auto` is bfloat16 or float32 by a probe of this machine; the larger is assumed.
    width = 2 if model.dtype in {DType.bfloat16, DType.float16} else 4
    values = activation_values(
        config, longest, model.attention, checkpointing=section.activation_checkpointing, layers=upper
    )
    return MemoryEstimate(
        base_parameters=base_parameters,
        adapter_parameters=adapter,
        base=base_parameters // 2 if model.quantization == Quantization.nf4 else base_parameters * width,
        adapter=trained * ADAPTER_BYTES + (adapter - trained) * FROZEN_ADAPTER_BYTES,
        activations=sides * section.microbatch_size * longest * values * width,
        head=HEAD_CHUNK * int(config["vocab_size"]) * (width + 4),
        kept=0 if upper == num_layers else num_tokens * int(config["hidden_size"]) * width,
    )


def ppo_memory(folder: Path, ppo: PPOConfig, model: ModelConfig, longest: int, *, num_frozen: int) -> MemoryEstimate:
    """Estimate the peak of PPO: training and sampling never happen at once, so the larger of the two counts.

    Args:
        folder: Of the base.
        ppo: Its configuration.
        model: How the base is loaded.
        longest: Tokens of the longest prompt.
        num_frozen: Adapters that are there and not trained: the reference and the reward models.
    """
    length = longest + ppo.max_new_tokens
    training = training_memory(folder, ppo, model, length)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    width = 2 if model.dtype in {DType.bfloat16, DType.float16} else 4
    cache = 2 * config["num_hidden_layers"] * heads * head_size * length * width
    rows = min(ppo.generation_batch_size, ppo.rollout_size)
    trained = 2 if ppo.value_model is ValueModel.adapter else 1
    frozen = training.adapter_parameters * FROZEN_ADAPTER_BYTES * num_frozen
    return replace(
        training,
        adapter=training.adapter * trained + frozen,
        activations=max(training.activations, rows * cache),
        head=max(training.head, rows * int(config["vocab_size"]) * DRAWING_BYTES),
    )


def remembered_rate(
    store: Store, stage: str, metric: str, machine: Mapping[str, Any], base_digest: str, params: Mapping[str, Any]
) -> tuple[float, Artifact] | None:
    """Return how much of a metric per second the newest comparable artifact of a stage was made with.

    Comparable is: the same base on a machine with the same processor and the same number of cores, and (for stages
    that run several times) the same suite.
    """
    for artifact in reversed(store.artifacts()):
        manifest = artifact.manifest
        amount = float(manifest.metrics.get(metric) or 0)
        same_machine = all(manifest.environment.get(key) == machine.get(key) for key in ("cpu", "cpu_count"))
        same_base = (manifest.base or {}).get("digest") == base_digest
        same_params = all(manifest.config.get("params", {}).get(key) == value for key, value in params.items())
        usable = amount > 0 and manifest.wall_seconds > 0
        if manifest.stage == stage and usable and same_machine and same_base and same_params:
            return amount / manifest.wall_seconds, artifact
    return None


def _is_adapted(module: str, targets: Sequence[str]) -> bool:
    if list(targets) == ["all-linear"]:
        return not any(fnmatchcase(module, pattern) for pattern in NOT_ADAPTED)
    return any(module == target or module.endswith(f".{target}") for target in targets)
