"""Measures one way to run a policy, in a process of its own, so that its memory and its start are nobody else's.

``python -m pipeline.models.cost_probe JOB.json RESULT.json``
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.artifacts.base_model import BaseModel
from pipeline.config.costs import VariantConfig
from pipeline.config.evaluation import SamplingConfig
from pipeline.config.shared import Attention, DType, ModelConfig, ModelSource, Quantization, RuntimeConfig
from pipeline.config.shared import Device as DeviceName
from pipeline.data.encode import Chat, load_chat
from pipeline.models.generation import Completion, generate
from pipeline.models.head import output_head
from pipeline.models.loading import load_adapter, load_base
from pipeline.runtime.device import choose_device
from pipeline.runtime.memory import peak_memory_bytes, reset_peak_memory

WARM_UP_TOKENS = 8  # of each answer: kernels are chosen and caches grown by then


def probe_job(
    base: BaseModel, model: ModelConfig, runtime: RuntimeConfig, adapter: Path | None, variant: VariantConfig,
    sampling: SamplingConfig, prompts: Sequence[Sequence[int]], keys: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return what the process reads: JSON values only."""
    return {
        "base": {**asdict(base), "folder": str(base.folder)},
        "model": asdict(model),
        "runtime": asdict(runtime),
        "adapter": None if adapter is None else str(adapter),
        "variant": asdict(variant),
        "sampling": asdict(sampling),
        "prompts": [list(prompt) for prompt in prompts],
        "keys": list(keys),
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer every prompt, batch after batch, and return the answers and how long each took.

    The clock of an item starts with its batch. The first batch is begun once before, at its own shape and uncounted.
    Peak memory is that of answering; loading, which may hold the weights twice, has a peak of its own.
    """
    variant = VariantConfig(**{**job["variant"], "dtype": DType(job["variant"]["dtype"])})
    sampling = SamplingConfig(**job["sampling"])
    model, chat, device_type = _load(job, variant)
    prompts, keys, size = job["prompts"], job["keys"], variant.batch_size
    loading_peak = peak_memory_bytes(device_type)
    told_apart = reset_peak_memory(device_type)
    warm_up = replace(sampling, max_new_tokens=min(WARM_UP_TOKENS, sampling.max_new_tokens))
    generate(model, chat, prompts[:size], warm_up, size, keys[:size])
    first_token: list[float] = []
    latency: list[float] = []
    completions: list[Completion] = []
    began = time.perf_counter()
    for start in range(0, len(prompts), size):
        batch, stamps, ends = prompts[start : start + size], list[float](), dict[int, float]()
        started = time.perf_counter()

        def note(done: Sequence[int], stamps: list[float] = stamps, ends: dict[int, float] = ends) -> None:
            stamps.append(time.perf_counter())
            ends.update(dict.fromkeys(done, stamps[-1]))

        completions += generate(model, chat, batch, sampling, size, keys[start : start + size], on_step=note)
        first_token += [stamps[0] - started] * len(batch)
        latency += [ends[number] - started for number in range(len(batch))]
    return {
        "seconds": time.perf_counter() - began,
        "first_token_seconds": first_token,
        "latency_seconds": latency,
        "peak_memory_bytes": peak_memory_bytes(device_type) if told_apart else None,
        "loading_peak_bytes": loading_peak,
        "answers": [
            {"completion": one.text, "finish_reason": one.finish_reason, "num_tokens": one.num_tokens}
            for one in completions
        ],
    }


def _load(job: dict[str, Any], variant: VariantConfig) -> tuple[nn.Module, Chat, str]:
    values = job["model"]
    config = ModelConfig(
        **{
            **values,
            "source": ModelSource(values["source"]),
            "dtype": variant.dtype,
            "attention": Attention(values["attention"]),
            "quantization": Quantization(values["quantization"]),
        }
    )
    runtime = RuntimeConfig(**{**job["runtime"], "device": DeviceName(job["runtime"]["device"])})
    base = BaseModel(**{**job["base"], "folder": Path(job["base"]["folder"])})
    device = choose_device(runtime)
    model: Any = load_base(base, config, runtime, variant.dtype)
    if job["adapter"] is not None:
        model = load_adapter(model, Path(job["adapter"]))
        if variant.merged or variant.int8:
            model = model.merge_and_unload()
    if variant.int8:
        if device.type != "cpu":
            raise ValueError("int8 is measured on a CPU; set runtime.device=cpu or leave the variant out")
        model = to_int8(model)
    return model, load_chat(base.folder, config), device.type


def to_int8(model: nn.Module) -> nn.Module:
    """Quantise the linear layers below the output head, weights per tensor to 8 bits and activations as they come."""
    head = output_head(model).weight
    names = {
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module.weight is not head
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this will move to a package of its own
        quantised: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {name: torch.ao.quantization.default_dynamic_qconfig for name in names}, dtype=torch.qint8
        )
    return quantised


def main(arguments: Sequence[str]) -> None:
    """Read the job, measure, and write the result."""
    job, result = map(Path, arguments)
    measured = measure(json.loads(job.read_text(encoding="utf-8")))
    result.write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
