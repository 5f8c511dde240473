"""Turns of a conversation as files write them: text alone, lists of turns, other names for role and content."""

from __future__ import annotations

from typing import Any

from pipeline.data.rows import BadRowError, Reason, check_text, is_blank

SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip


def with_system(system: str | None, turns: list[Any]) -> list[Any]:
    """Put the system turn of a column of its own before the others."""
    if system is None:
        return turns
    if any(isinstance(turn, dict) and turn.get("role") == "system" for turn in turns):
        raise BadRowError(Reason.schema, "there are two system turns, one in the prompt and one in its own column")
    return [{"role": "system", "content": system}, *turns]


def as_turns(value: Any, role: str, field: str) -> list[Any]:
    """Return text as one turn, and a list of turns as it is."""
    if isinstance(value, list):
        if not value:
            raise BadRowError(Reason.empty, f"{field} has no turns")
        plain: list[Any] = plain_turns(value)
        return plain
    text = check_text(value, field)
    if is_blank(text):
        raise BadRowError(Reason.empty, f"{field} has no visible text")
    return [{"role": role, "content": text}]


def plain_turns(value: Any) -> Any:
    """Write turns of the form {from, value} as {role, content}; anything else is left for the check."""
    if not isinstance(value, list):
        return value
    turns: list[Any] = []
    for turn in value:
        if not (isinstance(turn, dict) and "from" in turn and "role" not in turn):
            turns.append(turn)
            continue
        others = {key: item for key, item in turn.items() if key not in {"from", "value"}}
        sender = turn["from"]
        role = SHAREGPT_ROLES.get(sender, sender) if isinstance(sender, str) else sender
        turns.append({**others, "role": role, **({"content": turn["value"]} if "value" in turn else {})})
    return turns
