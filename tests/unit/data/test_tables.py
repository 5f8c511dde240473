"""Tables on disk: typed rows come back as they went, and digests follow the rows, not the bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.data.rows import Comparison, Demonstration, Message, Prompt, Row
from pipeline.data.tables import part_name, read_table, row_json, rows_digest, write_table
from pipeline.errors import DataError

QUESTION, REPLY = Message(role="user", content="Why? \u2028 日本"), Message(role="assistant", content="So.\r\n")
ROWS = [
    Demonstration(id="007", source="x/a", licence="MIT", prompt=[QUESTION], completion=[REPLY], reference="None"),
    Demonstration(
        id="b", source="x/a", licence=None, prompt=[QUESTION], completion=[REPLY, QUESTION, REPLY], topic="t"
    ),
]
PROMPT = Prompt(id="p", source="x/p", licence=None, prompt=[QUESTION])


def test_rows_come_back_as_they_went(tmp_path: Path) -> None:
    path = write_table(tmp_path, "demonstrations", "train", ROWS)
    write_table(tmp_path, "prompts", "test", [PROMPT])
    assert path.relative_to(tmp_path).as_posix() == "demonstrations/train.parquet"
    assert read_table(tmp_path, "demonstrations", "train", Demonstration) == ROWS
    assert read_table(tmp_path, "prompts", "test", Prompt) == [PROMPT]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_table(tmp_path / "a", "demonstrations", "train", ROWS).read_bytes()
    assert write_table(tmp_path / "b", "demonstrations", "train", ROWS).read_bytes() == first
    assert write_table(tmp_path / "c", "demonstrations", "train", ROWS[::-1]).read_bytes() != first


def test_the_digest_is_that_of_canonical_lines() -> None:
    line = (
        '{"id":"p","licence":null,"prompt":[{"content":"Why? \u2028 日本","role":"user"}],'
        '"reference":null,"source":"x/p","topic":null}\n'
    )
    assert rows_digest([PROMPT]) == hashlib.sha256(line.encode()).hexdigest()
    assert rows_digest([]) == hashlib.sha256(b"").hexdigest()
    assert rows_digest([replace(PROMPT, topic="t")]) != rows_digest([PROMPT])
    assert rows_digest(ROWS) != rows_digest(ROWS[::-1])


def test_a_row_is_written_as_canonical_json() -> None:
    odd = "".join(map(chr, range(1, 256))) + "\u2028\\/🙂日"
    turn = Message(role="user", content=odd)
    rows: list[Row] = [
        replace(ROWS[1], id=odd, topic=odd),
        replace(PROMPT, prompt=[]),
        Comparison(
            id="c", source="s", licence=None, prompt=[turn, REPLY, turn], chosen=[REPLY], rejected=[QUESTION],
            confidence=2 / 3, num_votes=5, margin=-0.0, tie=1e-300, fold=4,
        ),
    ]  # fmt: skip
    for row in rows:
        expected = json.dumps(asdict(row), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert row_json(row) == expected
    with pytest.raises(ValueError, match="JSON"):
        row_json(replace(rows[2], margin=float("nan")))


def test_a_missing_split_names_what_there_is(tmp_path: Path) -> None:
    write_table(tmp_path, "prompts", "test", [PROMPT])
    with pytest.raises(DataError, match=r"no rows in demonstrations/train; it has prompts/test"):
        read_table(tmp_path, "demonstrations", "train", Demonstration)
    with pytest.raises(DataError, match="Demonstration has"):
        read_table(tmp_path, "prompts", "test", Demonstration)


def test_an_empty_table_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prompts/train has no rows"):
        write_table(tmp_path, "prompts", "train", [])
    assert part_name("prompts", "train") == "prompts/train"
