"""Strict reading of Excel workbooks: one sheet with a header, every cell as the text that a CSV file would hold.

Spreadsheet readers tend to fill in what they cannot read: python-calamine, which is far faster, gives an empty text for
`#REF!`. So the cells are read with openpyxl, which tells errors and formulas from values.
"""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline.data.archives import ZIP_ERRORS, check_archive
from pipeline.data.delimited_reader import check_names
from pipeline.data.lines import MAX_ROW_BYTES
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.errors import DataError

MAX_WORKBOOK_BYTES = 1 << 30  # after decompression: all texts of a workbook are in memory at once
# What openpyxl raises for XML that is damaged, or that is no workbook.
_BROKEN = (*ZIP_ERRORS, SyntaxError, LookupError, TypeError, AttributeError, OverflowError, OSError)


def read_xlsx(path: Path) -> Iterator[Record]:
    """Read the only sheet with rows, whose first row names the columns. Empty rows are passed over.

    Raises:
        DataError: The extra is not installed, the file is no workbook, holds too much, or has rows in several sheets.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(f"{path} needs openpyxl: pip install 'finetune-pipeline[xlsx]', or save it as CSV.") from error
    if sum(info.file_size for info in check_archive(path)) > MAX_WORKBOOK_BYTES:
        raise DataError(f"E_ARCHIVE: {path} unpacks to more than {MAX_WORKBOOK_BYTES:,} bytes. Save it as CSV.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and charts
            workbook = openpyxl.load_workbook(path, read_only=True, keep_links=False)
            sheets = [sheet for sheet in workbook.worksheets if _has_rows(sheet)]
        try:
            if len(sheets) > 1:
                names = ", ".join(repr(sheet.title[:40]) for sheet in sheets[:10])
                raise DataError(f"E_FORMAT: {path} has rows in several sheets: {names}. Keep one, or save each as CSV.")
            for sheet in sheets:
                yield from _read_sheet(path, sheet)
        finally:
            workbook.close()
    except _BROKEN as error:
        detail = f"{type(error).__name__}: {error}"[:200]
        raise DataError(f"E_FORMAT: {path} cannot be read as an Excel workbook ({detail}). Save it as CSV.") from error


def _has_rows(sheet: Any) -> bool:
    sheet.reset_dimensions()  # what a workbook says of its own size may be wrong
    return any(cell.value is not None for row in sheet.iter_rows() for cell in row)


def _read_sheet(path: Path, sheet: Any) -> Iterator[Record]:
    """Read the rows of a sheet."""
    header: list[str] | None = None
    for number, cells in enumerate(_rows(sheet), start=1):
        if all(cell.value is None for cell in cells):
            continue
        try:
            texts, problem = [_text(cell) for cell in cells], None
        except BadRowError as error:
            texts, problem = [str(cell.value) for cell in cells], error
        while texts and not texts[-1]:
            texts.pop()
        if header is None:
            if problem is not None or "" in texts:
                raise DataError(
                    f"E_FORMAT: {path}:{number} is not a header ({problem or 'a column has no name'}). "
                    f"Name every column there."
                )
            header = check_names(path, texts, number)
            continue
        raw = json.dumps(texts, ensure_ascii=True).encode()
        problem = problem or _row_problem(texts, header, raw)
        fields = None if problem else dict(zip_longest(header, texts, fillvalue=""))
        yield Record(line=number, offset=None, raw=raw, fields=fields, problem=problem)


def _rows(sheet: Any) -> Iterator[Sequence[Any]]:
    """Yield the cells of each row; openpyxl warns of dates that are none and calls them errors, which is enough."""
    rows = sheet.iter_rows()
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = next(rows, None)
        if row is None:
            return
        yield row


def _text(cell: Any) -> str:
    """Return a cell as text.

    Raises:
        BadRowError: E_SCHEMA for an error such as `#REF!` and for a formula, whose value is not in doubt only where it
            was computed last.
    """
    value = cell.value
    if value is None:
        return ""
    if cell.data_type in ("e", "f"):
        what = "a formula; replace it by its value" if cell.data_type == "f" else f"the error {str(value)[:20]}"
        raise BadRowError(Reason.schema, f"the cell {cell.coordinate} is {what}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():g}"
    return str(value)


def _row_problem(texts: Sequence[str], header: Sequence[str], raw: bytes) -> BadRowError | None:
    """Say what is wrong with a row."""
    if len(texts) > len(header):
        return BadRowError(Reason.schema, f"{len(texts)} cells, and the header names {len(header)} columns")
    if len(raw) > MAX_ROW_BYTES:
        return BadRowError(Reason.too_long, f"the row has more than {MAX_ROW_BYTES:,} bytes")
    return None
