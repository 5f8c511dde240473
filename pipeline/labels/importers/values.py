"""What stands in a cell or a field of an export: labels, numbers, times, turns."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.data.json_reader import StrictParser
from pipeline.data.rows import (
    BadRowError,
    Message,
    Reason,
    check_conversation,
    check_prompt,
    check_text,
    split_demonstration,
)
from pipeline.data.turns import as_turns

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
LARGEST = 1e15  # no rating, place or time is larger, and up to here a float holds every whole number
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_102_444_800  # 2000 to 2100: no vote on a language model lies outside


def label_text(value: Any) -> str:
    """Return a label as the text that a CSV cell would hold, in lower case: true, 1, tie."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


def number(value: Any, what: str) -> float:
    """Return a number, also one written as text.

    Raises:
        BadRowError: E_LABEL for anything else, such as `four`, `4/5` or true.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise BadRowError(Reason.label, f"{what} is {shown(value)}, not a number")
    return float(value)


def utc(value: Any) -> str | None:
    """Return a time as ISO 8601 in UTC: from ISO 8601, or from seconds or milliseconds since 1970; None stays None.

    A time without a zone is taken as UTC, which moves all times of a file alike.

    Raises:
        BadRowError: E_TIME for what is no time between 2000 and 2100.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise BadRowError(Reason.time, f"{shown(value)} is no time in ISO 8601") from error
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    else:
        try:
            seconds = number(value, "the time")
        except BadRowError as error:
            raise BadRowError(Reason.time, error.detail) from error
        if seconds > LAST_SECOND:
            seconds /= 1000
    if not FIRST_SECOND <= seconds < LAST_SECOND:
        raise BadRowError(Reason.time, f"{shown(value)} does not lie between 2000 and 2100")
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def shown(value: Any) -> str:
    """Write a value for a message: short, and without what could steer a terminal."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(value: Any, field: str) -> list[Any]:
    """Return a list, also one written as JSON in a cell of text.

    Raises:
        BadRowError: E_SCHEMA where it is neither.
    """
    if isinstance(value, str):
        try:
            value, end, problem = StrictParser().parse(value.strip())
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadRowError(Reason.schema, f"{field} is not a list") from error
        if problem is not None:
            raise problem
    if not isinstance(value, list):
        raise BadRowError(Reason.schema, f"{field} is {shown(value)}, not a list")
    return value


def text_or_none(value: Any, field: str) -> str | None:
    """Return text, or None where there is none."""
    return None if value is None or value == "" else check_text(value, field)


def completion_turns(value: Any, field: str) -> list[Any]:
    """Return a completion, given as text, as one turn or as a list of turns, as a list of turns."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": check_text(value, field)}]
    return as_turns([value] if isinstance(value, dict) else value, "assistant", field)


def exchange(prompt: Sequence[Any], completions: Sequence[Sequence[Any]]) -> tuple[list[Message], list[list[Message]]]:
    """Check a prompt with each of its completions.

    A completion of one turn may be blank: that a model wrote nothing was judged too, and the vote tells about its
    annotator. Aggregation makes no comparison of it, and `Ballots.demonstration` refuses it.

    Raises:
        BadRowError: The prompt does not end with a user's turn, or a completion does not continue it with a reply.
    """
    checked: list[list[Message]] = []
    turns = check_conversation(list(prompt), "prompt")
    check_prompt(turns)
    for completion in completions:
        whole = check_conversation([*turns, *completion], last_may_be_blank=len(completion) == 1)
        split_demonstration(whole)
        checked.append(whole[len(turns) :])
    return turns, checked
