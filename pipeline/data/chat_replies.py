"""What is asked of a chat endpoint, and what of its answer is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.rows import Message

TURN_TOKENS = 16  # most tokens that a template writes around a turn


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One completion to ask for."""

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_logprobs: int = 0  # likeliest first tokens to return with their log-probabilities; 0 asks for none
    draw: int = 0  # tells apart several answers to the same request

    def max_prompt_tokens(self) -> int:
        """Return a bound on the tokens of the prompt: a token is at least one byte."""
        return sum(len(turn["content"].encode("utf-8", "surrogatepass")) + TURN_TOKENS for turn in self.messages)


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """What came of a request."""

    status: str  # ok, refused, timeout or error
    text: str = ""
    finish_reason: str | None = None  # as the server says it: "stop", "length", …
    top_logprobs: dict[str, float] | None = None  # text of a likely first token -> its log-probability in nats
    prompt_tokens: int | None = None  # None where the server does not say
    completion_tokens: int | None = None
    detail: str = ""  # what went wrong
    cached: bool = False


def parse_reply(content: bytes) -> ChatReply:
    """Read an answer of the chat-completions protocol.

    Raises:
        ValueError: It is none.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("it has no choices")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError("its first choice has no message")
    text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    if not isinstance(text, str | None) or not isinstance(finish, str | None):
        raise ValueError("its message or its finish_reason is no text")
    refused = bool(refusal) or finish == "content_filter"
    if text is None and not refused:
        raise ValueError("its message has no content")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    return ChatReply(
        status="refused" if refused else "ok",
        text=text or "",
        finish_reason=finish,
        top_logprobs=_first_token(choice.get("logprobs")),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        detail=str(refusal)[:300] if refusal else "",
    )


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """Return the likeliest first tokens; of two with the same text, the likelier."""
    try:
        listed = logprobs["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]), float(entry["logprob"])) for entry in listed]
    except (TypeError, KeyError, IndexError, ValueError):
        return None
    found: dict[str, float] = {}
    for token, value in pairs:
        if not math.isnan(value):
            found[token] = max(value, found.get(token, -math.inf), -9999.0)  # JSON knows no infinity
    return found


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
