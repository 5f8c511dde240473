"""Strict reading of JSON Lines and JSON."""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from pipeline.data.archives import Content
from pipeline.data.lines import MAX_ROW_BYTES, lines, refuse_array
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.errors import DataError

MAX_NUMBER_DIGITS = 1000  # of a whole number; Python itself refuses to read more than 4300
MAX_DEPTH = 200  # far below where Python's own parser gives up, which depends on who calls it
CHUNK = 1 << 20  # bytes of a JSON file that are read at a time


class StrictParser:
    """JSON's own parser with its liberties taken away. Not for two threads at once."""

    def __init__(self) -> None:
        self._problem: BadRowError | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._whole,
        )

    def parse(self, text: str, start: int = 0) -> tuple[Any, int, BadRowError | None]:
        """Parse one JSON value that begins at ``start``.

        Returns:
            The value, where it ends, and what is wrong with it although it parses.

        Raises:
            json.JSONDecodeError: It is not JSON.
            RecursionError: It is nested more deeply than Python's parser goes.
        """
        self._problem = None
        value, end = self._decoder.raw_decode(text, start)
        # Counting brackets is cheap and clears nearly every row; only the others are walked through.
        if text.count("{", start, end) + text.count("[", start, end) > MAX_DEPTH and _is_deep(value):
            self._note(Reason.depth, f"nested more than {MAX_DEPTH} deep")
        return value, end, self._problem

    def _note(self, reason: Reason, detail: str) -> None:
        if self._problem is None:
            self._problem = BadRowError(reason, detail)

    def _pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            twice = next(key for key, times in Counter(key for key, _ in items).items() if times > 1)
            self._note(Reason.duplicate_key, f"the key {twice[:80]!r} stands twice in one object")
        return found

    def _constant(self, name: str) -> float:
        self._note(Reason.nonfinite, f"{name} is not JSON")
        return math.nan

    def _float(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            self._note(Reason.range, f"the number {digits[:40]} is beyond every float")
        return value

    def _whole(self, digits: str) -> int:
        if len(digits) > MAX_NUMBER_DIGITS:
            self._note(Reason.range, f"a whole number of {len(digits)} digits")
            return 0
        return int(digits)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def read_jsonl(content: Content) -> Iterator[Record]:
    """Read one JSON object per line. Lines end at a line feed and nowhere else; blank lines are not rows."""
    if not content.begin:
        refuse_array(content)
    parser = StrictParser()
    for line, offset, raw in lines(content):
        if not raw.strip():
            continue
        fields, problem = None, None
        try:
            fields = _json_object(raw, parser)
        except BadRowError as error:
            problem = error
        yield Record(
            line=line, offset=offset, raw=raw.rstrip(b"\r\n"), fields=fields, problem=problem, member=content.member
        )


def _json_object(raw: bytes, parser: StrictParser) -> dict[str, Any]:
    """Parse the one JSON object of a line."""
    if len(raw) > MAX_ROW_BYTES:
        raise BadRowError(Reason.too_long, f"the row has more than {MAX_ROW_BYTES:,} bytes")
    try:
        text = raw.decode("utf-8").strip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise BadRowError(Reason.encoding, f"not UTF-8 at byte {error.start} of the row") from error
    try:
        value, end, problem = parser.parse(text)
    except json.JSONDecodeError as error:
        control = "\x00" in text or error.msg.startswith("Invalid control character")
        reason = Reason.encoding if control else Reason.json
        raise BadRowError(reason, f"{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise BadRowError(Reason.depth, f"nested more than {MAX_DEPTH} deep") from error
    if end != len(text):
        raise BadRowError(Reason.json, f"more text after the object, at column {end + 1}")
    return _fields(value, problem)


def _fields(value: Any, problem: BadRowError | None) -> dict[str, Any]:
    """Return a parsed row's fields, or raise what is wrong with it."""
    if problem is not None:
        raise problem
    if not isinstance(value, dict):
        raise BadRowError(Reason.schema, "the row is not an object with named fields")
    return value


def read_json(content: Content) -> Iterator[Record]:
    """Read a JSON array of objects, or a single object, a piece of the file at a time.

    Raises:
        DataError: The file breaks JSON's grammar, behind which nothing has a certain meaning.
    """
    with content.open() as stream:
        window = _Window(content, stream)
        is_array = window.next_character() == "["
        if is_array:
            window.pass_over()
        while window.next_character() not in ("]", ""):
            yield window.row()
            if not is_array:
                break
            after = window.next_character()
            if after == ",":
                window.pass_over()
                if window.next_character() == "]":
                    raise window.broken("a comma before the closing bracket")
            elif after != "]":
                raise window.broken(
                    "no comma or closing bracket after this row" if after else "the array is not closed"
                )
        if is_array:
            if window.next_character() != "]":
                raise window.broken("the array is not closed")
            window.pass_over()
        if rest := window.next_character():
            hint = "" if is_array else " If there is one object per line, set `format: jsonl`."
            raise window.broken(f"{rest!r} follows the end.{hint}")


class _Window:
    """The part of a JSON file that is in memory, and the place in it up to which it is read."""

    def __init__(self, content: Content, stream: IO[bytes]) -> None:
        self._content, self._stream = content, stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._parser = StrictParser()
        self._text, self._position, self._is_whole = "", 0, False
        self._line, self._offset, self._counted = 1, 0, 0
        self._num_read = 0
        self._read_more(CHUNK)
        self._position = int(self._text.startswith("\ufeff"))  # a byte order mark

    def next_character(self) -> str:
        """Return what follows JSON's white space; empty at the end of the file."""
        while True:
            while self._position < len(self._text) and self._text[self._position] in " \t\r\n":
                self._position += 1
            if self._position < len(self._text):
                return self._text[self._position]
            if self._is_whole:
                return ""
            self._read_more(CHUNK)

    def pass_over(self) -> None:
        """Go on behind the next character."""
        self._position += 1

    def row(self) -> Record:
        """Read the value that begins here, and go on behind it."""
        size = CHUNK
        while True:
            try:
                value, end, problem = self._parser.parse(self._text, self._position)
                if end < len(self._text) or self._is_whole:
                    break
            except (json.JSONDecodeError, RecursionError) as error:
                # What is broken may only be cut off. A row that is longer than every row is broken either way.
                if self._is_whole or len(self._text) - self._position > MAX_ROW_BYTES:
                    raise self.broken(error) from error
            self._read_more(size)
            size *= 2
        self._count()
        fields, raw = None, self._text[self._position : end].encode("utf-8")
        try:
            if len(raw) > MAX_ROW_BYTES:
                raise BadRowError(Reason.too_long, f"the row has more than {MAX_ROW_BYTES:,} bytes")
            fields = _fields(value, problem)
        except BadRowError as error:
            problem = error
        self._position = end
        return Record(
            line=self._line, offset=self._offset, raw=raw, fields=fields, problem=problem, member=self._content.member
        )

    def broken(self, problem: object) -> DataError:
        """A JSON file has no rows to set aside: behind a syntax error nothing has a certain meaning."""
        self._count()
        what = "nested too deeply" if isinstance(problem, RecursionError) else getattr(problem, "msg", problem)
        return DataError(
            f"E_JSON: {self._content}:{self._line}: {what}. Mend the file; no row after this place can be trusted."
        )

    def _count(self) -> None:
        """Bring line and offset up to the position."""
        self._line += self._text.count("\n", self._counted, self._position)
        self._offset += len(self._text[self._counted : self._position].encode("utf-8"))
        self._counted = self._position

    def _read_more(self, size: int) -> None:
        """Read on, and forget what lies before the position."""
        self._count()
        chunk = self._stream.read(size)
        try:
            more = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            byte = self._num_read - (len(error.object) - len(chunk)) + error.start
            raise DataError(f"E_ENCODING: {self._content} is not UTF-8 at byte {byte}. Convert it to UTF-8.") from error
        self._num_read += len(chunk)
        self._is_whole = not chunk
        self._text = self._text[self._position :] + more
        self._position = self._counted = 0
