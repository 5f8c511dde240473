"""Files as they come: every bad input has one expected reason, and what is sound is read to the character."""

from __future__ import annotations

import base64
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.data import SourceFormat
from pipeline.data import archives, json_reader, lines
from pipeline.data.readers import detect_format, read_file
from pipeline.data.records import Record
from pipeline.errors import DataError

GOOD = b'{"prompt": "Why?", "completion": "So."}'


def records(tmp_path: Path, name: str, content: bytes, format: SourceFormat = SourceFormat.auto) -> list[Record]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(read_file(path, format))


def reasons(found: list[Record]) -> list[str | None]:
    return [None if record.problem is None else record.problem.reason.value for record in found]


BAD_LINES: list[tuple[str, bytes, str]] = [
    ("latin-1 byte", b'{"prompt": "caf\xe9"}', "E_ENCODING"),
    ("overlong slash", b'{"prompt": "\xc0\xaf"}', "E_ENCODING"),
    ("truncated multibyte", b'{"prompt": "\xe6\x97"}', "E_ENCODING"),
    ("raw NUL", b'{"prompt": "a\x00b"}', "E_ENCODING"),
    ("raw control character", b'{"prompt": "a\x01b"}', "E_ENCODING"),
    ("trailing comma", b'{"prompt": "a",}', "E_JSON"),
    ("single quotes", b"{'prompt': 'a'}", "E_JSON"),
    ("comment", b'{"prompt": "a"} // why', "E_JSON"),
    ("two objects", b'{"prompt": "a"}{"prompt": "b"}', "E_JSON"),
    ("two objects after a lone CR", b'{"prompt": "a"}\r{"prompt": "b"}', "E_JSON"),
    ("truncated", b'{"prompt": "a', "E_JSON"),
    ("array", b'["a"]', "E_SCHEMA"),
    ("scalar", b"5", "E_SCHEMA"),
    ("null", b"null", "E_SCHEMA"),
    ("duplicate key", b'{"prompt": "a", "prompt": "b"}', "E_DUPKEY"),
    ("nested duplicate key", b'{"m": [{"role": "user", "role": "system"}]}', "E_DUPKEY"),
    ("NaN", b'{"prompt": NaN}', "E_NONFINITE"),
    ("minus Infinity", b'{"prompt": -Infinity}', "E_NONFINITE"),
    ("1e999", b'{"prompt": 1e999}', "E_RANGE"),
    ("5000 digits", b'{"prompt": ' + b"7" * 5000 + b"}", "E_RANGE"),
    ("depth", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "E_DEPTH"),
]


@pytest.mark.parametrize(("line", "reason"), [case[1:] for case in BAD_LINES], ids=[case[0] for case in BAD_LINES])
def test_a_bad_line_is_set_aside_and_its_neighbours_are_read(tmp_path: Path, line: bytes, reason: str) -> None:
    found = records(tmp_path, "rows.jsonl", GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    assert reasons(found) == [None, reason, None]
    assert found[1].line == 2
    assert found[1].offset == len(GOOD) + 1
    assert found[1].raw == line
    assert found[2].offset == len(GOOD) + 1 + len(line) + 1


def test_a_line_that_is_too_long_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_BYTES", 100)
    monkeypatch.setattr(json_reader, "MAX_ROW_BYTES", 100)
    found = records(tmp_path, "rows.jsonl", b'{"prompt": "' + b"x" * 500 + b'"}\n' + GOOD + b"\n")
    assert reasons(found) == ["E_TOOLONG", None]
    assert len(found[0].raw) < 110
    assert (found[1].line, found[1].offset) == (2, 515)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\xef\xbb\xbf{"p": "a"}\n{"p": "b"}\n', ["a", "b"]),  # a byte order mark says nothing about the rows
        (b'{"p": "a"}\r\n{"p": "b"}\n', ["a", "b"]),
        (b'{"p": "a"}\n\n  \n{"p": "b"}', ["a", "b"]),  # blank lines are not rows; the last line needs no end
        ('{"p": "a\u2028b\u0085c"}\n'.encode(), ["a\u2028b\u0085c"]),  # only a line feed ends a line
        (b'{"p": "2024-01-31"}\n{"p": "None"}', ["2024-01-31", "None"]),
        (b'{"p": 9223372036854775808}', [2**63]),  # no digit is lost
        (b'{"p": "\\ud83d\\ude42"}', ["\U0001f642"]),
    ],
)
def test_sound_json_lines_are_read_to_the_character(tmp_path: Path, content: bytes, expected: list[Any]) -> None:
    found = records(tmp_path, "rows.jsonl", content)
    assert [record.fields["p"] for record in found if record.fields] == expected
    assert reasons(found) == [None] * len(expected)


BAD_FILES: list[tuple[str, str, bytes, str]] = [
    ("empty", "rows.jsonl", b"", "E_FORMAT"),
    ("UTF-16", "rows.jsonl", '{"p": "a"}'.encode("utf-16"), "E_ENCODING"),
    ("HTML page", "rows.jsonl", b"<!DOCTYPE html><title>502</title>", "E_FORMAT"),
    ("Git LFS pointer", "rows.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "E_FORMAT"),
    ("gzip without .gz", "rows.jsonl", gzip.compress(GOOD), "E_ARCHIVE"),
    ("zip", "rows.jsonl", b"PK\x03\x04" + b"\x00" * 30, "E_ARCHIVE"),
    ("Parquet as JSONL", "rows.jsonl", b"PAR1" + b"\x00" * 30, "E_FORMAT"),
    (".gz without gzip", "rows.jsonl.gz", GOOD, "E_ARCHIVE"),
    ("truncated gzip", "rows.jsonl.gz", gzip.compress(GOOD * 100)[:-9], "E_ARCHIVE"),
    ("garbage after gzip", "rows.jsonl.gz", gzip.compress(GOOD) + b"garbage", "E_ARCHIVE"),
    ("HTML in gzip", "rows.jsonl.gz", gzip.compress(b"<html>"), "E_FORMAT"),
    ("pretty-printed array", "rows.jsonl", b'[\n  {"p": "a"}\n]\n', "E_FORMAT"),
    ("JSON lines as JSON", "rows.json", GOOD + b"\n" + GOOD + b"\n", "E_JSON"),
    ("open array", "rows.json", b"[" + GOOD, "E_JSON"),
    ("trailing comma", "rows.json", b"[" + GOOD + b",]", "E_JSON"),
    ("no comma", "rows.json", b"[" + GOOD + GOOD + b"]", "E_JSON"),
    ("Latin-1 JSON", "rows.json", b'[{"p": "caf\xe9"}]', "E_ENCODING"),
    ("not Parquet", "rows.parquet", GOOD, "E_FORMAT"),
    ("unknown ending", "rows.txt", GOOD, "E_FORMAT"),
    ("duplicate header", "rows.csv", b"p,c,p\n1,2,3\n", "E_FORMAT"),
    ("semicolons", "rows.csv", b"p;c\n1;2\n", "E_FORMAT"),
    ("open quote", "rows.csv", b'p,c\n1,"2\n3,4\n', "E_FORMAT"),
]


@pytest.mark.parametrize(
    ("name", "content", "code"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES]
)
def test_a_file_that_is_not_what_it_says_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    with pytest.raises(DataError, match=code) as caught:
        records(tmp_path, name, content)
    assert name in str(caught.value)


def test_a_gzip_bomb_stops_at_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (GOOD + b"\n") * 1000
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", len(content))
    assert len(records(tmp_path, "rows.jsonl.gz", gzip.compress(content))) == 1000
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", len(content) - 1)
    with pytest.raises(DataError, match="E_ARCHIVE"):
        records(tmp_path, "rows.jsonl.gz", gzip.compress(content))


def test_two_gzip_members_are_one_file(tmp_path: Path) -> None:
    found = records(tmp_path, "rows.jsonl.gz", gzip.compress(GOOD + b"\n") + gzip.compress(GOOD + b"\n"))
    assert reasons(found) == [None, None]


def test_what_is_not_a_plain_file_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("folder.jsonl", "pipe.jsonl"):
        with pytest.raises(DataError, match="not a plain file"):
            list(read_file(tmp_path / name, SourceFormat.auto))


def test_an_array_sets_aside_single_rows_and_knows_their_places(tmp_path: Path) -> None:
    content = '[\n  {"p": "é"},\n  {"p": 1, "p": 2},\n  7,\n  {"p": NaN}\n]\n'.encode()
    found = records(tmp_path, "rows.json", content)
    assert reasons(found) == [None, "E_DUPKEY", "E_SCHEMA", "E_NONFINITE"]
    assert [record.line for record in found] == [2, 3, 4, 5]
    assert found[1].offset is not None
    assert content[found[1].offset :].startswith(b'{"p": 1, "p": 2}')


@pytest.mark.parametrize("content", [b'{"p": "a"}', b'\xef\xbb\xbf {"p": "a"}\n', b'[{"p": "a"}]'])
def test_a_json_file_is_an_array_or_one_object(tmp_path: Path, content: bytes) -> None:
    (record,) = records(tmp_path, "rows.json", content)
    assert record.fields == {"p": "a"}


def test_cells_stay_the_text_that_they_are(tmp_path: Path) -> None:
    content = (
        b'\xef\xbb\xbfid,prompt,completion\r\n007,None,"a, ""b""\nc"\r\nN/A,null,=1+1\r\n\r\n2024-01-31,true, x\r\n'
    )
    found = records(tmp_path, "rows.csv", content)
    assert [record.fields for record in found] == [
        {"id": "007", "prompt": "None", "completion": 'a, "b"\nc'},
        {"id": "N/A", "prompt": "null", "completion": "=1+1"},
        {"id": "2024-01-31", "prompt": "true", "completion": " x"},
    ]
    assert [record.line for record in found] == [2, 4, 6]
    assert found[1].offset == content.index(b"N/A")


def test_bad_csv_rows_are_set_aside_one_by_one(tmp_path: Path) -> None:
    content = b'p,c\n1,2\n1\n1,2,3\ncaf\xe9,2\n"a"b,2\n5,6\n'
    found = records(tmp_path, "rows.csv", content)
    assert reasons(found) == [None, "E_SCHEMA", "E_SCHEMA", "E_ENCODING", "E_FORMAT", None]
    assert found[3].raw == b"caf\xe9,2"


def test_a_large_cell_is_read(tmp_path: Path) -> None:
    (record,) = records(tmp_path, "rows.csv", b"p\n" + b"x" * 200_000 + b"\n")
    assert record.fields == {"p": "x" * 200_000}


def test_tabs_part_the_columns_of_tsv(tmp_path: Path) -> None:
    (record,) = records(tmp_path, "rows.tsv", b"p\tc\na,b\t007\n")
    assert record.fields == {"p": "a,b", "c": "007"}


def test_parquet_values_keep_their_types(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "Hi"}]]
    pq.write_table(pa.table({"id": ["007"], "n": [2**40], "messages": turns}), tmp_path / "rows.parquet")
    (record,) = read_file(tmp_path / "rows.parquet", SourceFormat.auto)
    assert record.fields == {"id": "007", "n": 2**40, "messages": turns[0]}


def test_text_in_parquet_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9", b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"p": texts}), tmp_path / "rows.parquet")
    assert reasons(list(read_file(tmp_path / "rows.parquet", SourceFormat.auto))) == [None, "E_ENCODING", None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.JSONL", "jsonl"), ("a.b.json.gz", "json"), ("a.ndjson", "jsonl"), ("a.tsv.gz", "tsv"), ("a.csv", "csv")],
)
def test_the_ending_names_the_format(name: str, expected: str) -> None:
    assert detect_format(Path(name), SourceFormat.auto) == expected
    assert detect_format(Path(name), SourceFormat.parquet) == "parquet"


def test_the_kept_bytes_of_a_bad_row_decode_to_the_row() -> None:
    from pipeline.data.accounts import SourceAccount
    from pipeline.data.rows import BadRowError, Reason

    account = SourceAccount(source="s", path="p.jsonl", table="prompts", protected=False)
    entry = account.set_aside(Record(line=3, offset=9, raw=b"\xff" * 5000), BadRowError(Reason.encoding, "not UTF-8"))
    assert base64.b64decode(entry["raw_base64"]) == b"\xff" * 4096
    assert entry["num_bytes"] == 5000
    assert json.loads(json.dumps(entry))["line"] == 3
