"""Rows with given texts, for tests that care for nothing else."""

from __future__ import annotations

from typing import Any

from pipeline.data.rows import Comparison, Demonstration, Message, Prompt


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def assistant(text: str) -> list[Message]:
    return [Message(role="assistant", content=text)]


def demonstration(completion: str, prompt: str = "What does the leak alert mean?", **more: Any) -> Demonstration:
    values: dict[str, Any] = {"id": "d", "source": "made", "licence": None} | more
    return Demonstration(prompt=user(prompt), completion=assistant(completion), **values)


def only_prompt(text: str, **more: Any) -> Prompt:
    values: dict[str, Any] = {"id": "p", "source": "made", "licence": None} | more
    return Prompt(prompt=user(text), **values)


def comparison(chosen: str, rejected: str, prompt: str = "What does the leak alert mean?", **more: Any) -> Comparison:
    values: dict[str, Any] = {"id": "c", "source": "made", "licence": None, "confidence": 1.0, "num_votes": 1} | more
    return Comparison(prompt=user(prompt), chosen=assistant(chosen), rejected=assistant(rejected), **values)
