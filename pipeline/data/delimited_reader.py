"""Strict reading of CSV and TSV: every cell is text and stays the text that it is."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.lines import MAX_ROW_BYTES, lines
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.errors import DataError


def read_delimited(path: Path, delimiter: str) -> Iterator[Record]:
    """Read CSV or TSV with a header. Every cell stays the text that it is."""
    feed = _LineFeed(path)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    previous = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        while True:
            line, offset = feed.begin_row()
            cells: list[str] = []
            problem = None
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise DataError(f"E_FORMAT: {path}:{line}: a quote opens here and never closes.") from error
                problem = BadRowError(Reason.quoting, str(error))
            if header is None:
                header = _header(path, cells, problem)
                continue
            if not cells and problem is None:
                continue  # a blank line
            problem = problem or _cell_problem(cells, header)
            fields = None if problem else dict(zip(header, cells, strict=True))
            yield Record(line=line, offset=offset, raw=feed.row_bytes(), fields=fields, problem=problem)
    finally:
        csv.field_size_limit(previous)


class _LineFeed:
    """Feeds lines to the CSV parser and remembers the bytes of the row that it is reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = lines(path)
        self._taken: list[bytes] = []
        self._next = (1, 0)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, offset, raw = next(self._lines)
        if len(raw) > MAX_ROW_BYTES:
            raise DataError(
                f"E_FORMAT: {self._path}:{line} has more than {MAX_ROW_BYTES:,} bytes. A quote may be missing."
            )
        self._taken.append(raw)
        self._next = (line + 1, offset + len(raw))
        # Bytes that are not UTF-8 become lone surrogates, which the check of each cell finds.
        return raw.decode("utf-8", errors="surrogateescape")

    def begin_row(self) -> tuple[int, int]:
        """Forget the last row's bytes; return line and offset of what comes next."""
        self._taken = []
        return self._next

    def row_bytes(self) -> bytes:
        """Return the bytes taken since the row began."""
        return b"".join(self._taken).rstrip(b"\r\n")


def _header(path: Path, cells: list[str], problem: BadRowError | None) -> list[str]:
    """Check the first row, which names the columns."""
    if problem is not None or not cells:
        raise DataError(f"E_FORMAT: {path}:1 is not a header ({problem or 'it is blank'}). Name the columns there.")
    if twice := sorted({name for name in cells if cells.count(name) > 1}):
        raise DataError(f"E_FORMAT: {path}:1 names columns twice: {', '.join(twice)}. Give each a name of its own.")
    if len(cells) == 1 and any(mark in cells[0] for mark in ";\t|"):
        raise DataError(
            f"E_FORMAT: {path}:1 is one column named {cells[0][:80]!r}. Columns are parted by commas in .csv and by "
            f"tabs in .tsv: save the file again, or set the source's `format`."
        )
    return cells


def _cell_problem(cells: list[str], header: list[str]) -> BadRowError | None:
    """Say what is wrong with the cells of a row."""
    if len(cells) != len(header):
        return BadRowError(Reason.schema, f"{len(cells)} cells, and the header names {len(header)} columns")
    if any("\ud800" <= character <= "\udfff" for cell in cells for character in cell):
        return BadRowError(Reason.encoding, "not UTF-8")
    return None
