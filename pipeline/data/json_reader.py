"""Strict reading of JSON Lines and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.data.lines import MAX_ROW_BYTES, lines, read_text, refuse_array
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.errors import DataError

MAX_NUMBER_DIGITS = 1000  # of a whole number; Python itself refuses to read more than 4300


def parse_json(text: str, start: int = 0) -> tuple[Any, int, BadRowError | None]:
    """Parse one JSON value that begins at ``start``.

    Returns:
        The value, where it ends, and what is wrong with it although it parses.

    Raises:
        json.JSONDecodeError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    problems: list[BadRowError] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            problems.append(BadRowError(Reason.duplicate_key, f"the key {twice[:80]!r} stands twice in one object"))
        return found

    def constant(name: str) -> float:
        problems.append(BadRowError(Reason.nonfinite, f"{name} is not JSON"))
        return math.nan

    def number(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            problems.append(BadRowError(Reason.range, f"the number {digits[:40]} is beyond every float"))
        return value

    def whole(digits: str) -> int:
        if len(digits) > MAX_NUMBER_DIGITS:
            problems.append(BadRowError(Reason.range, f"a whole number of {len(digits)} digits"))
            return 0
        return int(digits)

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_float=number, parse_int=whole)
    value, end = decoder.raw_decode(text, start)
    return value, end, problems[0] if problems else None


def read_jsonl(path: Path) -> Iterator[Record]:
    """Read one JSON object per line. Lines end at a line feed and nowhere else; blank lines are not rows."""
    refuse_array(path)
    for line, offset, raw in lines(path):
        if not raw.strip():
            continue
        fields, problem = None, None
        try:
            fields = _json_object(raw)
        except BadRowError as error:
            problem = error
        yield Record(line=line, offset=offset, raw=raw.rstrip(b"\r\n"), fields=fields, problem=problem)


def _json_object(content: bytes) -> dict[str, Any]:
    """Parse the one JSON object of a line."""
    if len(content) > MAX_ROW_BYTES:
        raise BadRowError(Reason.too_long, f"the row has more than {MAX_ROW_BYTES:,} bytes")
    try:
        text = content.decode("utf-8").strip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise BadRowError(Reason.encoding, f"not UTF-8 at byte {error.start} of the row") from error
    try:
        value, end, problem = parse_json(text)
    except json.JSONDecodeError as error:
        control = "\x00" in text or error.msg.startswith("Invalid control character")
        reason = Reason.encoding if control else Reason.json
        raise BadRowError(reason, f"{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise BadRowError(Reason.depth, "nested too deeply") from error
    if text[end:].strip():
        raise BadRowError(Reason.json, f"more text after the object, at column {end + 1}")
    return _fields(value, problem)


def _fields(value: Any, problem: BadRowError | None) -> dict[str, Any]:
    """Return a parsed row's fields, or raise what is wrong with it."""
    if problem is not None:
        raise problem
    if not isinstance(value, dict):
        raise BadRowError(Reason.schema, "the row is not an object with named fields")
    return value


def read_json(path: Path) -> Iterator[Record]:
    """Read a JSON array of objects, or a single object."""
    text = read_text(path)
    position = _skip(text, int(text.startswith("\ufeff")))
    is_array = text.startswith("[", position)
    position = _skip(text, position + is_array)
    line, offset, counted = 1, 0, 0
    while position < len(text) and text[position] != "]":
        line += text.count("\n", counted, position)
        offset += len(text[counted:position].encode())
        counted = position
        try:
            value, end, problem = parse_json(text, position)
        except (json.JSONDecodeError, RecursionError) as error:
            raise _broken_json(path, line, error) from error
        fields = None
        try:
            fields = _fields(value, problem)
        except BadRowError as error:
            problem = error
        yield Record(line=line, offset=offset, raw=text[position:end].encode(), fields=fields, problem=problem)
        position = _skip(text, end)
        if not is_array:
            break
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
            if text[position : position + 1] == "]":
                raise _broken_json(path, line, "a comma before the closing bracket")
        elif text[position : position + 1] != "]":
            raise _broken_json(path, line, "no comma or closing bracket after this row")
    if is_array and text[position : position + 1] != "]":
        raise _broken_json(path, line, "the array is not closed")
    if rest := text[position + is_array :].strip():
        hint = "" if is_array else " If there is one object per line, set `format: jsonl`."
        raise _broken_json(path, line, f"{rest[:20]!r} follows the end.{hint}")


def _broken_json(path: Path, line: int, problem: object) -> DataError:
    """A JSON file has no rows to set aside: behind a syntax error nothing has a certain meaning."""
    return DataError(f"E_JSON: {path}:{line}: {problem}. Mend the file; no row after this place can be trusted.")


def _skip(text: str, position: int) -> int:
    """Return the place of the next character that is not JSON's white space."""
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
