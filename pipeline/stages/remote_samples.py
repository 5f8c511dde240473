"""Sampling from a model behind HTTP: the same items and the same rows, without weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

from pipeline.artifacts.base_model import cache_folder
from pipeline.artifacts.hashing import sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.evaluation import SuiteConfig
from pipeline.data.chat_client import ChatClient, answer_cache
from pipeline.data.chat_replies import ChatReply, ChatRequest
from pipeline.data.rows import Demonstration, Prompt
from pipeline.errors import EndpointError
from pipeline.stages.items import Item, Result, fixed_batches, load_items, run_batches, stage_samples
from pipeline.tracking.job import StageJob


def sample_endpoint(job: StageJob) -> StageOutcome:
    """Ask the endpoint every item of a suite and seal its answers.

    The answers stand for what the server said then: neither its weights nor its rounding are known, so a run that
    starts anew may be answered otherwise.
    """
    suite, endpoint = cast(SuiteConfig, job.params["suite"]), cast(EndpointConfig, job.params["endpoint"])
    items = load_items(job, suite, lambda row: Item(row=row, tokens=[]))
    refused = 0
    with ChatClient(endpoint, answer_cache(cache_folder(job.runtime))) as client:

        def measure(batch: Sequence[Item], end_if_asked: Callable[[], None]) -> list[Result]:
            nonlocal refused
            requests = [_request(item.row, suite) for item in batch]
            replies = client.complete_all(requests, lambda place, reply: end_if_asked())
            _require_answers(endpoint, replies)
            refused += sum(reply.status == "refused" for reply in replies)
            return [_result(item, reply) for item, reply in zip(batch, replies, strict=True)]

        done, seconds = run_batches(job, fixed_batches(items, suite.batch_size), measure)
    spending = client.spending
    job.run.notice(
        f"{suite.name}: {spending.requests} requests to {endpoint.model}, {spending.retries} of them again, "
        f"{spending.cached} answers from the cache, {refused} refusals, cost {spending.cost:.4g}"
    )
    costs = {
        "wall_seconds": round(seconds, 3),
        "requests": spending.requests,
        "retries": spending.retries,
        "cached": spending.cached,
        "prompt_tokens": spending.prompt_tokens,
        "tokens": spending.completion_tokens,
        "cost": spending.cost,
    }
    address = {"base_url": client.url, "model": endpoint.model}
    return stage_samples(
        job, suite, items, done, tokenizer=sha256_json(address), costs=costs,
        resolved={"policy": f"{endpoint.model} at {client.url}"},
    )  # fmt: skip


def _request(row: Prompt | Demonstration, suite: SuiteConfig) -> ChatRequest:
    """Ask with the sampling of the suite; ``top_k`` is no part of the protocol and is left to the server."""
    sampling = suite.sampling
    return ChatRequest(
        messages=list(row.prompt),
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )


def _require_answers(endpoint: EndpointConfig, replies: Sequence[ChatReply]) -> None:
    """Refuse to seal a hole: a time-out says nothing about the model, and the next run may do better.

    Raises:
        EndpointError: An item has no answer; the others are in the cache.
    """
    failed = Counter(reply.status for reply in replies if reply.status not in ("ok", "refused"))
    if failed:
        detail = next(reply.detail for reply in replies if reply.status in failed)
        counted = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
        raise EndpointError(
            f"{endpoint.base_url} left {failed.total()} of {len(replies)} items without an answer ({counted}; "
            f"{detail}). Answers so far are kept: run the same command again, with a longer `timeout_seconds` or a "
            "lower `requests_per_minute`."
        )


def _result(item: Item, reply: ChatReply) -> Result:
    """Turn a reply into a row. A refusal is an answer: leaving it out would reward it."""
    return {
        "id": item.row.id,
        "completion": reply.text or (reply.detail if reply.status == "refused" else ""),
        "finish_reason": "length" if reply.finish_reason == "length" else "stop",
        "num_tokens": reply.completion_tokens or 0,
    }
