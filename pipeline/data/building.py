"""From the fields of a record to a checked row."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

from pipeline.config.data import SourceConfig, TableName
from pipeline.data.columns import Mapping, Shape
from pipeline.data.rows import (
    BadRowError,
    Comparison,
    Demonstration,
    Message,
    Prompt,
    Reason,
    check_conversation,
    check_id,
    check_prompt,
    check_text,
    content_key,
    is_blank,
    split_demonstration,
)

Named = TypeVar("Named", Demonstration, Prompt, Comparison)
# Columns beside the conversation that change what a reply means. A row in which they hold something is refused.
MEANINGFUL_COLUMNS = ("history", "tools", "functions")
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip


def build_row(fields: dict[str, Any], mapping: Mapping, source: SourceConfig, name: str) -> Demonstration | Prompt:
    """Build the row that a record holds.

    Args:
        fields: The record's columns.
        mapping: Which column is which field.
        source: The source's configuration.
        name: What the row's ``source`` is to say.

    Raises:
        BadRowError: The record breaks a rule.
    """
    refuse_meaningful_columns(fields, mapping.columns.values())
    turns, num_prompt = _conversation(fields, mapping, source)
    reference = _optional(fields, mapping, "reference")
    if source.reference_after is not None:
        reference = _reference_after(turns, source.reference_after)
    topic = _optional(fields, mapping, "topic")
    given = fields.get(mapping.columns["id"]) if "id" in mapping.columns else None
    row_id = "" if given is None or given == "" else check_id(given)
    if source.table is TableName.prompts:
        prompt = check_prompt(turns[:num_prompt])
        return with_id(
            Prompt(id=row_id, source=name, licence=source.licence, prompt=prompt, reference=reference, topic=topic)
        )
    if num_prompt == len(turns) and mapping.shape is Shape.messages:
        prompt, completion = split_demonstration(turns)
    else:
        prompt, completion = turns[:num_prompt], turns[num_prompt:]
        check_prompt(prompt)
        split_demonstration(turns)
    return with_id(
        Demonstration(
            id=row_id,
            source=name,
            licence=source.licence,
            prompt=prompt,
            completion=completion,
            reference=reference,
            topic=topic,
        )
    )


def refuse_meaningful_columns(fields: dict[str, Any], read: Collection[str]) -> None:
    """Refuse a record whose reply depends on a column that is not read."""
    for column in MEANINGFUL_COLUMNS:
        if fields.get(column) not in (None, "", [], {}) and column not in read:
            raise BadRowError(Reason.schema, f"the column {column!r} holds something, which training here would ignore")


def _conversation(fields: dict[str, Any], mapping: Mapping, source: SourceConfig) -> tuple[list[Message], int]:
    """Return all turns, checked, and how many of them are the prompt."""
    if mapping.shape is Shape.messages:
        turns = check_conversation(plain_turns(_required(fields, mapping, "messages")))
        if source.table is TableName.prompts and source.reference_after is not None and len(turns) > 1:
            return turns, len(turns) - 1  # the last reply is there for its reference
        return turns, len(turns)
    prompt = as_turns(_required(fields, mapping, "prompt"), "user", "prompt")
    if mapping.shape is Shape.instruction and (extra := fields.get(mapping.columns.get("input", ""))) is not None:
        extra = check_text(extra, "input")
        if not is_blank(extra):
            prompt[0]["content"] = f"{check_text(prompt[0]['content'], 'instruction')}\n\n{extra}"
    system = _optional(fields, mapping, "system")
    if system is not None:
        if any(isinstance(turn, dict) and turn.get("role") == "system" for turn in prompt):
            raise BadRowError(Reason.schema, "there are two system turns, one in the prompt and one in its own column")
        prompt = [{"role": "system", "content": system}, *prompt]
    completion: list[Any] = []
    if "completion" in mapping.columns:
        completion = as_turns(_required(fields, mapping, "completion"), "assistant", "completion")
    return check_conversation([*prompt, *completion]), len(prompt)


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


def _required(fields: dict[str, Any], mapping: Mapping, field: str) -> Any:
    """Return a field that every row has."""
    column = mapping.columns[field]
    if fields.get(column) is None:
        raise BadRowError(Reason.schema, f"the column {column!r} is {'null' if column in fields else 'missing'}")
    return fields[column]


def _optional(fields: dict[str, Any], mapping: Mapping, field: str) -> str | None:
    """Return a text field, or None where the row leaves it out or empty."""
    value = fields.get(mapping.columns[field]) if field in mapping.columns else None
    if value is None:
        return None
    return check_text(value, field) or None


def _reference_after(turns: list[Message], marker: str) -> str:
    """Return what follows the last marker in the last turn."""
    _, found, reference = turns[-1]["content"].rpartition(marker)
    if turns[-1]["role"] != "assistant" or not found or is_blank(reference):
        raise BadRowError(Reason.schema, f"the reply has no reference answer after {marker!r}")
    return reference.strip()


def with_id(row: Named) -> Named:
    """Name a row that has no id of its own after its content."""
    return row if row.id else dataclasses.replace(row, id=f"{row.source}:{content_key(row)[:12]}")
