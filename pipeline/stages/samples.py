"""Sampling: what one policy does with the items of one suite, kept item by item so that every number can be redone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteConfig, SuiteKind, own_source
from pipeline.config.shared import ModelConfig
from pipeline.config.stages import OverlengthPolicy
from pipeline.data.encode import Chat, Dropped, Encoded, encode_demonstration, encode_prompt, load_chat
from pipeline.data.rows import Demonstration, Prompt, prompt_hash
from pipeline.data.suite_rows import read_suite_rows
from pipeline.data.tables import read_table
from pipeline.errors import DataError
from pipeline.evaluation.samples import SAMPLES_FILE, GenerationSample, LikelihoodSample, Sample, write_samples
from pipeline.models.generation import generate
from pipeline.models.loading import load_base, load_policy
from pipeline.models.scoring import score
from pipeline.runtime.device import choose_device
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.runtime.signals import StopRequest
from pipeline.stages.partial import append_partial, read_partial
from pipeline.stages.training import resolve_dtype
from pipeline.tracking.job import StageJob


@dataclass(frozen=True, kw_only=True)
class Item:
    """A row of the suite's table and its tokens; ``unscored`` says why there are none."""

    row: Prompt | Demonstration
    tokens: list[int]
    encoded: Encoded | None = None  # for likelihood
    unscored: str | None = None


def sample_policy(job: StageJob) -> StageOutcome:
    """Let a policy answer or score every item of a suite and seal the results.

    Batches are fixed by the items alone, because the composition of a batch moves rounding: an interrupted run goes on
    behind its last complete batch and ends with the same bytes.
    """
    suite = cast(SuiteConfig, job.params["suite"])
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    device = choose_device(job.runtime)
    dtype = resolve_dtype(job, device)
    items = load_items(job, suite, chat)
    batches = fixed_batches([item for item in items if item.unscored is None], suite.batch_size)
    done = read_partial(job)
    model = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    policy = job.one("policy")
    if policy is not None:
        model = load_policy(model, policy)
    measure = _answers if suite.kind is SuiteKind.generation else _likelihoods
    started, num_tokens = time.perf_counter(), 0
    with StopRequest() as stop:
        for number, batch in enumerate(batches, start=1):
            if not all(item.row.id in done for item in batch):
                results = measure(model, chat, suite, batch)
                num_tokens += sum(int(result["tokens" if "tokens" in result else "num_tokens"]) for result in results)
                append_partial(job, results)
                done.update((result["id"], result) for result in results)
            job.run.progress(len(batches), number)
            if stop.signal_number is not None and number < len(batches):
                raise stop.interrupted(f"stopped after batch {number} of {len(batches)}; its answers are saved")
    seconds = time.perf_counter() - started
    rows = [_sample(suite, item, done.get(item.row.id)) for item in items]
    write_samples(job.staging / SAMPLES_FILE, rows)
    costs = {
        "wall_seconds": round(seconds, 3),
        "tokens": num_tokens,
        "tokens_per_second": round(num_tokens / seconds, 1) if seconds > 0 and num_tokens else None,
        "peak_memory_bytes": peak_memory_bytes(device.type),
        "device": str(device),
        "batch_size": suite.batch_size,
    }
    write_durably(job.staging / "costs.json", json.dumps(costs, indent=1, sort_keys=True) + "\n")
    unscored = sum(item.unscored is not None for item in items)
    metrics = {"items": len(items), "unscored": unscored}
    return StageOutcome(
        parts={"samples": sha256_file(job.staging / SAMPLES_FILE)}, metrics=metrics, resolved={"dtype": dtype.value}
    )


def load_items(job: StageJob, suite: SuiteConfig, chat: Chat) -> list[Item]:
    """Read and encode the suite's rows; rows that cannot be encoded stay, unscored, with their reason.

    Raises:
        DataError: the data set is missing, or no item can be scored.
    """
    rows = _rows(job, suite)
    chosen = sorted(rows, key=_place)[: suite.limit]
    encode = _encode_likelihood if suite.kind is SuiteKind.likelihood else _encode_prompt
    items = [encode(row, chat, job.base.context_length, suite) for row in sorted(chosen, key=_row_id)]
    reasons = [item.unscored for item in items if item.unscored is not None]
    counted = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons))) or "none"
    job.run.notice(f"{suite.name}: {len(rows)} rows, {len(items)} items taken, unscored: {counted}")
    if len(reasons) == len(items):
        raise DataError(f"The suite {suite.name} has no item that can be scored ({counted} of {len(items)} items).")
    return items


def _rows(job: StageJob, suite: SuiteConfig) -> Sequence[Prompt | Demonstration]:
    """Read the suite's own file, else its table of the data set."""
    if (source := own_source(suite)) is not None:
        return read_suite_rows(source, suite.name)
    dataset = job.one("dataset")
    if dataset is None:
        raise DataError(
            f"The suite {suite.name} got no data set. Name `curate` in `stages`, or set `inputs.evaluate.dataset`."
        )
    if suite.table is TableName.demonstrations:
        return read_table(dataset, suite.table.value, suite.split, Demonstration)
    return read_table(dataset, suite.table.value, suite.split, Prompt)


def _place(row: Prompt | Demonstration) -> str:
    """Order rows by something that says nothing about them, so that the first few are a fair sample."""
    return hashlib.sha256(row.id.encode("utf-8", "surrogatepass")).hexdigest()


def _encode_prompt(row: Prompt | Demonstration, chat: Chat, context_length: int, suite: SuiteConfig) -> Item:
    try:
        tokens = encode_prompt(row.prompt, chat)
    except DataError:
        return Item(row=row, tokens=[], unscored="template_not_prefix")
    fits = len(tokens) + suite.sampling.max_new_tokens <= context_length
    return Item(row=row, tokens=tokens, unscored=None if fits else "overlength")


def _row_id(row: Prompt | Demonstration) -> str:
    return row.id


def _encode_likelihood(row: Prompt | Demonstration, chat: Chat, context_length: int, suite: SuiteConfig) -> Item:
    if not isinstance(row, Demonstration):
        raise TypeError(f"the suite {suite.name} scores {type(row).__name__} rows, which have no completion")
    encoded = encode_demonstration(row, chat, context_length, OverlengthPolicy["drop"])
    if isinstance(encoded, Dropped):
        return Item(row=row, tokens=[], unscored=encoded.reason)
    return Item(row=row, tokens=encoded.input_ids, encoded=encoded)


def fixed_batches(items: Sequence[Item], batch_size: int) -> list[list[Item]]:
    """Return batches of similar length, longest first; the same items always give the same batches."""
    ordered = sorted(items, key=lambda item: (-len(item.tokens), item.row.id))
    return [list(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]


def _answers(model: PreTrainedModel, chat: Chat, suite: SuiteConfig, batch: list[Item]) -> list[dict[str, Any]]:
    completions = generate(
        model, chat, [item.tokens for item in batch], suite.sampling, len(batch), keys=[item.row.id for item in batch]
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


def _likelihoods(model: PreTrainedModel, chat: Chat, suite: SuiteConfig, batch: list[Item]) -> list[dict[str, Any]]:
    rows = [item.encoded for item in batch if item.encoded is not None]
    with torch.no_grad():
        scores = score(model, rows, len(rows))
    return [
        {"id": item.row.id, "nats": -scored.nats, "tokens": scored.tokens}
        for item, scored in zip(batch, scores, strict=True)
    ]


def _sample(suite: SuiteConfig, item: Item, result: dict[str, Any] | None) -> Sample:
    row = item.row
    prompt = [{"role": message["role"], "content": message["content"]} for message in row.prompt]
    common: dict[str, Any] = {
        "id": row.id,
        "cluster": prompt_hash(row.prompt),
        "prompt": prompt,
        "reference": row.reference,
        "topic": row.topic,
        "unscored": item.unscored,
    }
    if suite.kind is SuiteKind.generation:
        answer = result or {"completion": "", "finish_reason": None, "num_tokens": 0}
        return GenerationSample(
            **common, **{name: answer[name] for name in ("completion", "finish_reason", "num_tokens")}
        )
    assert isinstance(row, Demonstration)
    written = [message["content"] for message in row.completion if message["role"] == "assistant"]
    return LikelihoodSample(
        **common,
        completion=[{"role": message["role"], "content": message["content"]} for message in row.completion],
        nats=result["nats"] if result else None,
        tokens=result["tokens"] if result else 0,
        bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in written),
    )
