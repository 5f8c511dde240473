"""The record of an evaluation survives writing and reading, and a damaged one is not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from help_desk import generated, scored

from pipeline.errors import ArtifactError, DataError
from pipeline.evaluation.samples import GenerationSample, LikelihoodSample, read_samples, write_samples

HOSTILE = 'line\u2028separator \r\n "quotes" \x00 \ud800 <script> 🙂'


def test_rows_come_back_as_they_were_in_the_order_of_their_ids(tmp_path: Path) -> None:
    rows = [generated("b", HOSTILE), generated("a", "", finish_reason=None, unscored="overlength")]
    path, again = tmp_path / "samples.jsonl", tmp_path / "again.jsonl"
    write_samples(path, rows)
    write_samples(again, reversed(rows))
    assert read_samples(path, GenerationSample) == rows[::-1]
    assert path.read_bytes() == again.read_bytes()
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([generated("a", "x"), generated("a", "y")], "the id occurs twice"),
        ([generated("a", "x", finish_reason="done")], "finish_reason is 'done'"),
        ([generated("a", "x", unscored="overlength")], "an unscored item has a completion"),
        ([scored("a", float("nan"))], "nats is nan"),
        ([scored("a", -1.0)], "nats is -1.0"),
        ([scored("a", None)], "nats is None"),
        ([scored("a", 1.0, tokens=0)], "tokens is 0"),
        ([scored("a", 1.0, unscored="overlength")], "an unscored item has nats"),
    ],
)
def test_rows_that_contradict_themselves_are_not_written(
    tmp_path: Path, rows: list[GenerationSample | LikelihoodSample], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_samples(tmp_path / "samples.jsonl", rows)
    assert not (tmp_path / "samples.jsonl").exists()


def good_line(**changes: object) -> bytes:
    row = {
        "id": "a", "cluster": "a", "prompt": [{"role": "user", "content": "?"}], "reference": None, "topic": None,
        "completion": "x", "finish_reason": "stop", "num_tokens": 1, "unscored": None,
    }  # fmt: skip
    return json.dumps(row | changes).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (good_line() + good_line(), ":2: the id 'a' does not come after 'a'"),
        (good_line()[:-1], ":1: it ends without a newline"),
        (b"{\n", ":1: no JSON"),
        (b"[]\n", ":1: a GenerationSample has .* not list"),
        (good_line(extra=1), ":1: a GenerationSample has"),
        (good_line(num_tokens=True), ":1: num_tokens cannot be True"),
        (good_line(num_tokens=1.5), ":1: num_tokens cannot be 1.5"),
        (good_line(id=None), ":1: id cannot be None"),
        (good_line(prompt=[{"role": "user"}]), ":1: prompt cannot be"),
        (good_line(completion=[]), ":1: completion cannot be"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(good_line())
    assert len(read_samples(path, GenerationSample)) == 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_samples(path, GenerationSample)
