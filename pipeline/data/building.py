"""From the fields of a record to a checked row."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection
from typing import Any, TypeVar

from pipeline.artifacts.hashing import canonical_json
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
    check_reply,
    check_text,
    content_key,
    is_blank,
    normalise,
    split_demonstration,
)
from pipeline.data.transcripts import is_transcript, parse_transcript, parse_transcript_pair, split_pair, split_texts
from pipeline.data.turns import as_turns, plain_turns, with_system

Named = TypeVar("Named", Demonstration, Prompt, Comparison)
# Columns beside the conversation that change what a reply means. A row in which they hold something is refused.
MEANINGFUL_COLUMNS = ("history", "tools", "functions")
MAX_SCORE = 1e9  # of a margin or a score; what is beyond is an id or a time in the wrong column
_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{1,20})?")  # in the cells of a CSV file, where even numbers are text


def build_row(
    fields: dict[str, Any], mapping: Mapping, source: SourceConfig, name: str
) -> Demonstration | Prompt | Comparison:
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
    if source.table is TableName.comparisons:
        return _comparison(fields, mapping, source, name)
    turns, num_prompt = _conversation(fields, mapping, source)
    reference = _reference(fields, mapping)
    if source.reference_after is not None:
        reference = _reference_after(turns, source.reference_after)
    topic = _optional(fields, mapping, "topic")
    row_id = _given_id(fields, mapping)
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
        check_reply(turns)
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


def _given_id(fields: dict[str, Any], mapping: Mapping) -> str:
    """Return the id that the record has, or nothing."""
    given = fields.get(mapping.columns["id"]) if "id" in mapping.columns else None
    return "" if given is None or given == "" else check_id(given)


def _comparison(fields: dict[str, Any], mapping: Mapping, source: SourceConfig, name: str) -> Comparison:
    """Build a row of a file that states one preference for each row, so that nobody's doubt is known."""
    prompt, chosen, rejected = _pair(fields, mapping)
    if [normalise(turn["content"]) for turn in chosen] == [normalise(turn["content"]) for turn in rejected]:
        raise BadRowError(Reason.same_pair, "chosen and rejected are the same text")
    return with_id(
        Comparison(
            id=_given_id(fields, mapping),
            source=name,
            licence=source.licence,
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            confidence=1.0,
            num_votes=1,
            margin=_margin(fields, mapping),
            topic=_optional(fields, mapping, "topic"),
        )
    )


def _pair(fields: dict[str, Any], mapping: Mapping) -> tuple[list[Message], list[Message], list[Message]]:
    """Return prompt, chosen and rejected completion, all checked."""
    asked = None if mapping.shape is Shape.implicit_preference else _asked(fields, mapping)
    sides = {field: _required(fields, mapping, field) for field in ("chosen", "rejected")}
    return preference(sides, asked=asked, system=_optional(fields, mapping, "system"))


def preference(
    sides: dict[str, Any], *, asked: list[Any] | None, system: str | None
) -> tuple[list[Message], list[Message], list[Message]]:
    """Check a preference between two completions.

    Args:
        sides: The completions by the names of their columns, the better one first; each is text, a turn or turns.
        asked: Turns of the prompt, unchecked; None where both sides begin with it.
        system: Text of a system turn that stands apart.

    Returns:
        Prompt, better and worse completion.

    Raises:
        BadRowError: They are no completions of one prompt.
    """
    if asked is None and all(isinstance(side, str) for side in sides.values()):
        split = parse_transcript_pair if all(map(is_transcript, sides.values())) else split_texts
        context, chosen, rejected = split(*sides.values())
        return with_system(system, context), chosen, rejected
    turns = {
        field: as_turns([side] if isinstance(side, dict) else side, "assistant", field) for field, side in sides.items()
    }
    if asked is None or all(_is_whole(side) for side in turns.values()):
        context, chosen, rejected = split_pair(*(check_conversation(side, field) for field, side in turns.items()))
        if asked and any(turn not in context for turn in check_conversation(asked, "prompt")):
            raise BadRowError(Reason.schema, "chosen is a whole conversation, and the prompt is no part of it")
        return with_system(system, context), chosen, rejected
    prompt = check_prompt(check_conversation(with_system(system, asked), "prompt"))
    whole = [check_conversation([*prompt, *side], f"prompt and {field}") for field, side in turns.items()]
    for conversation in whole:
        split_demonstration(conversation)
    return prompt, whole[0][len(prompt) :], whole[1][len(prompt) :]


def _is_whole(side: list[Any]) -> bool:
    """Whether a completion repeats its prompt, as conversations in preference files do."""
    return isinstance(side[0], dict) and side[0].get("role") in ("system", "user")


def _margin(fields: dict[str, Any], mapping: Mapping) -> float | None:
    """Return how much better the chosen completion is, given as such or as two scores."""
    margin = _number(fields, mapping, "margin")
    scores = [_number(fields, mapping, field) for field in ("score_chosen", "score_rejected")]
    if scores[0] is not None and scores[1] is not None:
        margin = scores[0] - scores[1]
    if margin is not None and margin < 0:
        raise BadRowError(Reason.label, f"the margin is {margin:g}: by it the rejected completion is the better one")
    return margin


def _number(fields: dict[str, Any], mapping: Mapping, field: str) -> float | None:
    """Return a number, or None where the row leaves it out."""
    value = fields.get(mapping.columns[field]) if field in mapping.columns else None
    if value is None or value == "":
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRowError(Reason.schema, f"{field} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRowError(Reason.nonfinite, f"{field} is {value}")
    if abs(value) > MAX_SCORE:
        raise BadRowError(Reason.range, f"{field} is beyond {MAX_SCORE:g}")
    return float(value)


def _conversation(fields: dict[str, Any], mapping: Mapping, source: SourceConfig) -> tuple[list[Message], int]:
    """Return all turns, checked, and how many of them are the prompt."""
    if mapping.shape is Shape.messages:
        turns = check_conversation(plain_turns(_required(fields, mapping, "messages")))
        if source.table is TableName.prompts and source.reference_after is not None and len(turns) > 1:
            return turns, len(turns) - 1  # the last reply is there for its reference
        return turns, len(turns)
    prompt = with_system(_optional(fields, mapping, "system"), _asked(fields, mapping))
    completion: list[Any] = []
    texts = [_required(fields, mapping, "prompt")]
    if "completion" in mapping.columns:
        texts.append(_required(fields, mapping, "completion"))
        completion = as_turns(texts[1], "assistant", "completion")
    if all(isinstance(text, str) for text in texts) and not is_transcript(texts[0]):
        return [*prompt, *completion], len(prompt)  # in order, and each was checked when it became a turn
    return check_conversation([*prompt, *completion]), len(prompt)


def _asked(fields: dict[str, Any], mapping: Mapping) -> list[Any]:
    """Return the turns of the prompt, unchecked."""
    value = _required(fields, mapping, "prompt")
    if isinstance(value, dict) and "messages" in value:  # OpenAI's preference format
        refuse_meaningful_columns(value, ())
        value = value["messages"]
    if isinstance(value, str) and is_transcript(value):
        return list(parse_transcript(value.removesuffix("\n\nAssistant:"), "prompt"))
    extra = _optional(fields, mapping, "input")
    turns = as_turns(value, "user", "prompt")
    if extra is not None and not is_blank(extra):
        turns[0] = {"role": "user", "content": f"{check_text(value, 'instruction')}\n\n{extra}"}
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


def _reference(fields: dict[str, Any], mapping: Mapping) -> str | None:
    """Return the reference answer; a list or an object, such as an item's own checks, as canonical JSON."""
    value = fields.get(mapping.columns["reference"]) if "reference" in mapping.columns else None
    if isinstance(value, list | dict):
        return check_text(canonical_json(value), "reference")
    return _optional(fields, mapping, "reference")


def _reference_after(turns: list[Message], marker: str) -> str:
    """Return what follows the last marker in the last turn."""
    _, found, reference = turns[-1]["content"].rpartition(marker)
    if turns[-1]["role"] != "assistant" or not found or is_blank(reference):
        raise BadRowError(Reason.schema, f"the reply has no reference answer after {marker!r}")
    return reference.strip()


def with_id(row: Named) -> Named:
    """Name a row that has no id of its own after its content."""
    return row if row.id else dataclasses.replace(row, id=f"{row.source}:{content_key(row)[:12]}")
