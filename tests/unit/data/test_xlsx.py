"""Excel workbooks, written by openpyxl: every cell the text that a CSV file would hold, or a row set aside."""

from __future__ import annotations

import datetime
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from pipeline.config.data import SourceFormat
from pipeline.data import xlsx_reader
from pipeline.data.readers import read_file
from pipeline.data.records import Record
from pipeline.errors import DataError


def workbook(path: Path, *sheets: list[list[Any]], errors: tuple[str, ...] = ()) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in rows:
            sheet.append(row)
    for place in errors:
        book.worksheets[0][place].data_type = "e"
    book.save(path)
    return path


def records(path: Path) -> list[Record]:
    return list(read_file(path, SourceFormat.auto))


def test_cells_are_the_text_that_csv_would_hold(tmp_path: Path) -> None:
    values = [
        1, 2.0, 0.1, True, "007", " a\nb ", "N/A", "=1", 123456789012345, datetime.datetime(2024, 1, 2, 3, 4, 5),
        datetime.timedelta(minutes=1, seconds=30),
    ]  # fmt: skip
    names = [f"c{number}" for number in range(len(values))]
    path = tmp_path / "rows.xlsx"
    book = openpyxl.Workbook()
    book.active.append(names)
    book.active.append(values)
    book.active["H2"].data_type = "s"  # a text that begins with an equals sign
    book.save(path)
    [row] = records(path)
    assert row.problem is None
    assert list((row.fields or {}).values()) == [
        "1", "2", "0.1", "true", "007", " a\nb ", "N/A", "=1", "123456789012345", "2024-01-02T03:04:05", "90",
    ]  # fmt: skip


def test_rows_keep_their_numbers_and_short_ones_are_filled(tmp_path: Path) -> None:
    path = workbook(tmp_path / "rows.xlsx", [["a", "b"], ["x", "y"], [], ["z"]], [])
    assert [(row.line, row.fields) for row in records(path)] == [(2, {"a": "x", "b": "y"}), (4, {"a": "z", "b": ""})]


def test_errors_formulas_and_surplus_cells_are_set_aside(tmp_path: Path) -> None:
    rows = [["a", "b"], ["#REF!", "y"], ["=1+1", "y"], ["x", "y", "z"], ["x", "#N/A"], ["x", "y"]]
    found = records(workbook(tmp_path / "rows.xlsx", rows, errors=("A2",)))
    assert [None if row.problem is None else str(row.problem) for row in found] == [
        "E_SCHEMA: the cell A2 is the error #REF!",
        "E_SCHEMA: the cell A3 is a formula; replace it by its value",
        "E_SCHEMA: 3 cells, and the header names 2 columns",
        "E_SCHEMA: the cell B5 is the error #N/A",
        None,
    ]
    assert found[0].raw == b'["#REF!", "y"]'


@pytest.mark.parametrize(
    ("sheets", "message"),
    [
        ([[["a"], ["x"]], [["a"], ["y"]]], "rows in several sheets: 'Sheet 0', 'Sheet 1'"),
        ([[["a", "a"], ["x", "y"]]], ":1 names columns twice: 'a'"),
        ([[["a", None, "b"], ["x", "y", "z"]]], ":1 is not a header .a column has no name."),
        ([[["a"]]], "holds no rows"),
        ([[]], "holds no rows"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, sheets: list[list[list[Any]]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        records(workbook(tmp_path / "rows.xlsx", *sheets))


def test_the_one_sheet_with_rows_is_read_wherever_it_stands(tmp_path: Path) -> None:
    assert [row.fields for row in records(workbook(tmp_path / "rows.xlsx", [], [["a"], ["x"]]))] == [{"a": "x"}]


def test_damaged_and_swollen_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match="E_ARCHIVE: .* is not a zip archive, as .xlsx files are"):
        records(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook>")
    with pytest.raises(DataError, match="E_FORMAT: .* cannot be read as an Excel workbook"):
        records(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * (65 << 20))
    with pytest.raises(DataError, match="E_ARCHIVE: .* grows more than 250-fold"):
        records(path)
    workbook(path, [["a"], ["x"]])
    assert len(records(path)) == 1
    monkeypatch.setattr(xlsx_reader, "MAX_WORKBOOK_BYTES", 1000)
    with pytest.raises(DataError, match="E_ARCHIVE: .* unpacks to more than 1,000 bytes"):
        records(path)


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "rows.xlsx", [["a"], ["x"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"pip install 'finetune-pipeline\[xlsx\]', or save it as CSV"):
        records(path)
