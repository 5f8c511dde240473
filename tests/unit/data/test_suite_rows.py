"""A suite's own file: read whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.data import SourceConfig, TableName
from pipeline.data.rows import Demonstration, Prompt
from pipeline.data.suite_rows import read_suite_rows
from pipeline.errors import DataError


def file_of(folder: Path, *lines: str) -> str:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_rows_become_prompts_with_their_references(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        json.dumps({"id": "a", "prompt": "Name a colour.", "reference": "red", "topic": "art"}),
        json.dumps({"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}),
    )
    first, second = read_suite_rows(SourceConfig(table=TableName.prompts, path=path), "mine")
    assert isinstance(first, Prompt)
    assert (first.id, first.reference, first.topic) == ("a", "red", "art")
    assert first.prompt == [{"role": "user", "content": "Name a colour."}]
    assert second.id.startswith("mine:")
    assert [turn["role"] for turn in second.prompt] == ["system", "user"]


def test_a_likelihood_suite_reads_completions(tmp_path: Path) -> None:
    path = file_of(tmp_path, json.dumps({"frage": "Hi", "antwort": "Hello."}))
    columns = {"prompt": "frage", "completion": "antwort"}
    source = SourceConfig(table=TableName.demonstrations, path=path, columns=columns)
    (row,) = read_suite_rows(source, "mine")
    assert isinstance(row, Demonstration)
    assert row.completion == [{"role": "assistant", "content": "Hello."}]


def test_every_bad_row_is_told_with_its_line_and_none_is_left_out(tmp_path: Path) -> None:
    good = json.dumps({"id": "a", "prompt": "One"})
    path = file_of(tmp_path, good, '{"prompt": "  "}', "{oops", good)
    with pytest.raises(DataError) as caught:
        read_suite_rows(SourceConfig(table=TableName.prompts, path=path), "mine")
    message = str(caught.value)
    assert message.startswith(f"suite mine: 3 of 4 rows of {path} are bad:")
    assert f"{path}:2  E_EMPTY" in message
    assert f"{path}:3  E_JSON" in message
    assert f"{path}:4  E_ID  the id 'a' belongs to an earlier row" in message


def test_a_column_that_is_not_there_gets_a_near_miss(tmp_path: Path) -> None:
    path = file_of(tmp_path, json.dumps({"question": "Hi"}))
    source = SourceConfig(table=TableName.prompts, path=path, columns={"prompt": "qestion"})
    with pytest.raises(
        DataError, match=r"suite mine\.columns\.prompt: .* no column 'qestion'\. Did you mean `question`"
    ):
        read_suite_rows(source, "mine")


def test_an_items_own_checks_may_be_written_as_json(tmp_path: Path) -> None:
    checks = [{"name": "max_words", "params": {"limit": 5}}]
    path = file_of(
        tmp_path,
        json.dumps({"prompt": "One", "reference": checks}),
        json.dumps({"prompt": "Two", "reference": json.dumps(checks)}),
        json.dumps({"prompt": "Three", "reference": 3}),
    )
    source = SourceConfig(table=TableName.prompts, path=path)
    with pytest.raises(DataError, match=r"mine\.jsonl:3  E_SCHEMA"):
        read_suite_rows(source, "mine")
    Path(path).write_text("\n".join(Path(path).read_text().split("\n")[:2]))
    rows = read_suite_rows(source, "mine")
    assert [json.loads(row.reference or "") for row in rows] == [checks, checks]
