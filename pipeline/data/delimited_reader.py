"""Strict reading of CSV and TSV: every cell is text and stays the text that it is."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator

from pipeline.data.archives import Content
from pipeline.data.lines import MAX_ROW_BYTES, lines
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.errors import DataError


def read_delimited(content: Content, delimiter: str) -> Iterator[Record]:
    """Read CSV or TSV with a header. Every cell stays the text that it is."""
    feed = _LineFeed(content)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    csv.field_size_limit(MAX_ROW_BYTES)  # for good: putting it back would cut a reader that runs beside this one
    while True:
        feed.begin_row()
        cells: list[str] = []
        problem = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(f"E_FORMAT: {content}:{feed.line}: a quote opens here and never closes.") from error
            problem = BadRowError(Reason.quoting, str(error))
        if header is None:
            header = _header(content, cells, problem, feed)
            continue
        if not cells and problem is None:
            continue  # a blank line
        problem = problem or _row_problem(cells, header, feed)
        fields = None if problem else dict(zip(header, cells, strict=True))
        yield Record(
            line=feed.line,
            offset=feed.offset,
            raw=feed.row_bytes(),
            fields=fields,
            problem=problem,
            member=content.member,
        )


class _LineFeed:
    """Feeds lines to the CSV parser and remembers the bytes of the row that it is reading."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._lines = lines(content)
        self._taken: list[bytes] = []
        self._num_taken = 0
        self.line, self.offset = 1, 0  # where the row begins
        self.is_utf8 = True  # all of the row

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, offset, raw = next(self._lines)
        if not self._taken:
            self.line, self.offset = line, offset
        self._taken.append(raw)
        self._num_taken += len(raw)
        if self._num_taken > MAX_ROW_BYTES:
            raise DataError(
                f"E_FORMAT: {self._content}:{self.line}: the row that begins here has more than {MAX_ROW_BYTES:,} "
                f"bytes. A closing quote may be missing."
            )
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.is_utf8 = False
            return raw.decode("utf-8", errors="replace")  # to go on to the end of the row, which is then set aside

    def begin_row(self) -> None:
        """Forget the last row."""
        self._taken, self._num_taken, self.is_utf8 = [], 0, True

    def row_bytes(self) -> bytes:
        """Return the bytes taken since the row began."""
        return b"".join(self._taken).rstrip(b"\r\n")


def _header(content: Content, cells: list[str], problem: BadRowError | None, feed: _LineFeed) -> list[str]:
    """Check the first row, which names the columns."""
    if not feed.is_utf8:
        raise DataError(f"E_ENCODING: {content} is not UTF-8 in its header. Convert it to UTF-8.")
    if problem is not None or not cells:
        raise DataError(f"E_FORMAT: {content}:1 is not a header ({problem or 'it is blank'}). Name the columns there.")
    check_names(content, cells, 1)
    if len(cells) == 1 and any(mark in cells[0] for mark in ";\t|"):
        raise DataError(
            f"E_FORMAT: {content}:1 is one column named {cells[0][:80]!r}. Columns are parted by commas in .csv and by "
            f"tabs in .tsv: save the file again, or set the source's `format`."
        )
    return cells


def check_names(content: object, cells: list[str], line: int) -> list[str]:
    """Refuse a header that names two columns alike."""
    if twice := sorted(repr(name[:40]) for name, times in Counter(cells).items() if times > 1):
        raise DataError(
            f"E_FORMAT: {content}:{line} names columns twice: {', '.join(twice[:20])}. Give each a name of its own."
        )
    return cells


def _row_problem(cells: list[str], header: list[str], feed: _LineFeed) -> BadRowError | None:
    """Say what is wrong with a row."""
    if not feed.is_utf8:
        return BadRowError(Reason.encoding, "not UTF-8")
    if len(cells) != len(header):
        return BadRowError(Reason.schema, f"{len(cells)} cells, and the header names {len(header)} columns")
    return None
