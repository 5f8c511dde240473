"""The judge behind an HTTP endpoint: any model that speaks the chat-completions protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline.artifacts.base_model import cache_folder
from pipeline.config.endpoints import EndpointConfig
from pipeline.data.chat_client import ChatClient, answer_cache
from pipeline.data.chat_replies import ChatReply, ChatRequest
from pipeline.errors import ConfigError
from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge
from pipeline.evaluation.judges.wording import (
    by_json,
    messages_for,
    nonce_of,
    rated_by_json,
    read_rating,
    read_verdict,
)


@register_judge("http")
def http(*, max_tokens: int = 64) -> Judge:
    """A model behind `endpoint` compares two completions and answers with one JSON object."""
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be at least 1, not {max_tokens}.")

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        config, endpoint = context.config, context.config.endpoint
        if endpoint is None:
            raise ConfigError(f"judge `{config.name}`: it has no `endpoint`.")
        with ChatClient(endpoint, answer_cache(cache_folder(context.job.runtime))) as client:

            def ask(questions: Sequence[Question]) -> list[Answer]:
                nonces = [nonce_of(config, question) for question in questions]
                requests = [
                    ChatRequest(
                        messages=messages_for(config, question, by_json(nonce), rated_by_json(nonce)),
                        max_tokens=max_tokens,
                    )
                    for question, nonce in zip(questions, nonces, strict=True)
                ]
                replies = client.complete_all(requests)
                readers = [read_verdict if question.criterion is None else read_rating for question in questions]
                return [
                    _answer(reply, nonce, endpoint, read)
                    for reply, nonce, read in zip(replies, nonces, readers, strict=True)
                ]

            yield ask

    return Judge(open=opened, rates=True)


def _answer(reply: ChatReply, nonce: str, endpoint: EndpointConfig, read_text: Callable[[str, str], Answer]) -> Answer:
    if reply.status != "ok":
        return Answer(score=None, status=Status(reply.status), detail=reply.detail or None)
    read, written = reply.prompt_tokens or 0, reply.completion_tokens or 0
    cost = (read * endpoint.input_price + written * endpoint.output_price) / 1e6
    return replace(read_text(reply.text, nonce), tokens=read + written, cost=cost)
