"""The items of a suite: which rows they are, what a policy makes of them batch by batch, and what is sealed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteConfig, SuiteKind, own_source
from pipeline.config.stages import OverlengthPolicy
from pipeline.data.encode import Chat, Dropped, Encoded, encode_demonstration, encode_prompt
from pipeline.data.rows import Demonstration, Prompt, prompt_hash
from pipeline.data.suite_rows import read_suite_rows
from pipeline.data.tables import read_table
from pipeline.errors import DataError
from pipeline.evaluation.samples import SAMPLES_FILE, GenerationSample, LikelihoodSample, Sample, write_samples
from pipeline.runtime.signals import StopRequest
from pipeline.stages.partial import append_partial, read_partial
from pipeline.tracking.job import StageJob

Result = dict[str, Any]  # what a policy made of one item, with its id; kept as one line of JSON


@dataclass(frozen=True, kw_only=True)
class Item:
    """A row of the suite's table and its tokens; ``unscored`` says why there are none."""

    row: Prompt | Demonstration
    tokens: list[int]
    encoded: Encoded | None = None  # for likelihood
    unscored: str | None = None


def load_items(job: StageJob, suite: SuiteConfig, encode: Callable[[Prompt | Demonstration], Item]) -> list[Item]:
    """Read the suite's rows; those that cannot be asked stay, unscored, with their reason.

    Raises:
        DataError: the data set is missing, or no item can be scored.
    """
    rows = _rows(job, suite)
    chosen = sorted(rows, key=_place)[: suite.limit]
    items = [encode(row) for row in sorted(chosen, key=_row_id)]
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


def _row_id(row: Prompt | Demonstration) -> str:
    return row.id


def encoder(suite: SuiteConfig, chat: Chat, context_length: int) -> Callable[[Prompt | Demonstration], Item]:
    """Return what turns a row into tokens for a suite."""
    encode = _encode_likelihood if suite.kind is SuiteKind.likelihood else _encode_prompt
    return lambda row: encode(row, chat, context_length, suite)


def _encode_prompt(row: Prompt | Demonstration, chat: Chat, context_length: int, suite: SuiteConfig) -> Item:
    try:
        tokens = encode_prompt(row.prompt, chat)
    except DataError:
        return Item(row=row, tokens=[], unscored="template_not_prefix")
    fits = len(tokens) + suite.sampling.max_new_tokens <= context_length
    return Item(row=row, tokens=tokens, unscored=None if fits else "overlength")


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


def run_batches(
    job: StageJob,
    batches: Sequence[Sequence[Item]],
    measure: Callable[[Sequence[Item], Callable[[], None]], list[Result]],
) -> tuple[dict[str, Result], float]:
    """Measure batch by batch, keeping the results of each, and go on behind those that an earlier attempt kept.

    Args:
        job: The stage's.
        batches: The same at every attempt.
        measure: Given a batch, and what to call now and then: it raises where a signal has asked for the end.

    Returns:
        The results by item, and the seconds that this attempt took.

    Raises:
        Interrupted: A signal asked for the end; what is measured is kept.
    """
    done = read_partial(job)
    started = time.perf_counter()
    with StopRequest() as stop:
        for number, batch in enumerate(batches, start=1):
            if not all(item.row.id in done for item in batch):
                results = measure(batch, partial(_end_if_asked, stop, number - 1, len(batches)))
                append_partial(job, results)
                done.update((result["id"], result) for result in results)
            job.run.progress(len(batches), number)
            if number < len(batches):
                _end_if_asked(stop, number, len(batches))
    return done, time.perf_counter() - started


def _end_if_asked(stop: StopRequest, done: int, total: int) -> None:
    if stop.signal_number is not None:
        raise stop.interrupted(f"stopped after batch {done} of {total}; answers up to there are saved")


def stage_samples(
    job: StageJob,
    suite: SuiteConfig,
    items: Sequence[Item],
    done: Mapping[str, Result],
    *,
    tokenizer: str,
    costs: Mapping[str, Any],
    resolved: Mapping[str, Any],
) -> StageOutcome:
    """Write the rows and what they took.

    Args:
        job: The stage's.
        suite: Decides the kind of rows.
        items: All of the suite, also those that have no result.
        done: Results by item.
        tokenizer: Digest of what counted the tokens: only equal ones can be compared per token.
        costs: Timings, which are no part of the content.
        resolved: What open choices came to.
    """
    write_samples(job.staging / SAMPLES_FILE, [sample_row(suite, item, done.get(item.row.id)) for item in items])
    write_durably(job.staging / "costs.json", json.dumps(dict(costs), indent=1, sort_keys=True) + "\n")
    unscored = sum(item.unscored is not None for item in items)
    return StageOutcome(
        parts={"samples": sha256_file(job.staging / SAMPLES_FILE), "tokenizer": tokenizer},
        metrics={"items": len(items), "unscored": unscored},
        resolved=dict(resolved),
    )


def sample_row(suite: SuiteConfig, item: Item, result: dict[str, Any] | None) -> Sample:
    """Return the row of an item; without a result it says why there is none."""
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
