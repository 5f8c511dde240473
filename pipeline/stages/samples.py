"""Sampling: what one policy does with the items of one suite, kept item by item so that every number can be redone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.shared import DType, ModelConfig
from pipeline.data.encode import Chat, load_chat
from pipeline.models.generation import generate
from pipeline.models.loading import load_adapter, load_base, load_policy
from pipeline.models.scoring import score
from pipeline.runtime.device import choose_device
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.stages.items import Item, Result, encoder, fixed_batches, load_items, run_batches, stage_samples
from pipeline.stages.training import resolve_dtype
from pipeline.tracking.job import StageJob

# Generation works on several batches at a time, so that a row that is done makes room for the next prompt.
BATCHES_AT_A_TIME = 4


def sample_policy(job: StageJob) -> StageOutcome:
    """Let a policy answer or score every item of a suite and seal the results.

    Batches are fixed by the items alone, because the composition of a batch moves rounding: an interrupted run goes on
    behind its last complete batch and ends with the same bytes.
    """
    suite = cast(SuiteConfig, job.params["suite"])
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    device = choose_device(job.runtime)
    dtype = resolve_dtype(job, device)
    items = load_items(job, suite, encoder(suite, chat, job.base.context_length))
    generates = suite.kind is SuiteKind.generation
    size = suite.batch_size * BATCHES_AT_A_TIME if generates else suite.batch_size
    batches = fixed_batches([item for item in items if item.unscored is None], size)
    model = load_evaluated(job, dtype)
    num_tokens = 0

    def measure(batch: Sequence[Item], end_if_asked: Callable[[], None]) -> list[Result]:
        nonlocal num_tokens
        results = answers(model, chat, suite, batch, end_if_asked) if generates else _likelihoods(model, batch)
        num_tokens += sum(int(result["num_tokens" if generates else "tokens"]) for result in results)
        return results

    done, seconds = run_batches(job, batches, measure)
    costs = {
        "wall_seconds": round(seconds, 3),
        "tokens": num_tokens,
        "tokens_per_second": round(num_tokens / seconds, 1) if seconds > 0 and num_tokens else None,
        "peak_memory_bytes": peak_memory_bytes(device.type),
        "device": str(device),
        "batch_size": suite.batch_size,
    }
    return stage_samples(
        job, suite, items, done, tokenizer=job.base.tokenizer_digest, costs=costs,
        resolved={"dtype": dtype.value, **foreign_policy(job)},
    )  # fmt: skip


def load_evaluated(job: StageJob, dtype: DType) -> PreTrainedModel:
    """Load the policy that the job names: the base, with the adapter of an artifact or of a plain folder."""
    model = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    policy = job.one("policy")
    if policy is not None:
        return load_policy(model, policy)
    return model if job.adapter is None else load_adapter(model, job.adapter)


def answers(
    model: PreTrainedModel,
    chat: Chat,
    suite: SuiteConfig,
    batch: Sequence[Item],
    end_if_asked: Callable[[], None],
) -> list[Result]:
    """Let the model write a completion for every item."""
    completions = generate(
        model,
        chat,
        [item.tokens for item in batch],
        suite.sampling,
        suite.batch_size,
        keys=[item.row.id for item in batch],
        on_step=lambda finished: end_if_asked(),
    )
    return [
        {
            "id": item.row.id,
            "completion": completion.text,
            "finish_reason": completion.finish_reason,
            "num_tokens": completion.num_tokens,
        }
        for item, completion in zip(batch, completions, strict=True)
    ]


def _likelihoods(model: PreTrainedModel, batch: Sequence[Item]) -> list[Result]:
    rows = [item.encoded for item in batch if item.encoded is not None]
    with torch.no_grad():
        scores = score(model, rows, len(rows))
    return [
        {"id": item.row.id, "nats": -scored.nats, "tokens": scored.tokens}
        for item, scored in zip(batch, scores, strict=True)
    ]


def foreign_policy(job: StageJob) -> dict[str, Any]:
    """Return what a policy that is neither the base nor an artifact was, for the report."""
    if job.adapter is not None:
        return {"policy": f"adapter {job.adapter.resolve().name} of {job.base.name}"}
    if job.params.get("is_foreign"):
        return {"policy": f"{job.base.name} ({job.base.digest[:12]})"}
    return {}
