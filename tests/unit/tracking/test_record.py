"""`metrics.jsonl`: appended, cut, and read after a crash."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.tracking.mirror_process import Mirror
from pipeline.tracking.record import Record, decode_row


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_digit_is_kept_and_every_line_is_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Record(path).append({"loss": 0.1 + 0.2, "rows": 3, "norm": np.float32(1.5), "count": np.int64(7)}, 1)
    text = path.read_text()
    assert text == '{"step": 1, "loss": 0.30000000000000004, "rows": 3, "norm": 1.5, "count": 7}\n'


def test_what_is_not_finite_stays_json_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Record(path).append({"a": math.nan, "b": math.inf, "c": -math.inf}, 1)
    written = lines(path)[0]
    assert written == {"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    decoded = decode_row(written)
    assert math.isnan(decoded["a"])
    assert (decoded["b"], decoded["c"]) == (math.inf, -math.inf)


def test_a_cut_drops_later_rows_and_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    record = Record(path)
    for step in range(1, 6):
        record.append({"loss": float(step)}, step)
    with path.open("a") as file:
        file.write('{"step": 6, "los')
    fresh = Record(path)
    assert [row["step"] for row in fresh.rows()] == [1, 2, 3, 4, 5]
    assert fresh.cut(3) == 2
    assert [row["step"] for row in lines(path)] == [1, 2, 3]
    assert fresh.cut(3) == 0
    assert [path.name] == [entry.name for entry in tmp_path.iterdir()]


def test_a_cut_that_drops_only_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert Record(path).cut(9) == 0
    assert path.read_text() == '{"step": 1}\n'


def test_a_run_that_starts_again_without_a_cut_leaves_no_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    record = Record(path)
    for step in range(1, 6):
        record.append({"loss": 1.0}, step)
    again = Record(path)
    again.append({"loss": 2.0}, 2)
    again.append({"validation_loss": 3.0}, 2)
    assert lines(path) == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "validation_loss": 3.0},
    ]  # fmt: skip


def test_going_back_needs_a_cut(tmp_path: Path) -> None:
    record = Record(tmp_path / "metrics.jsonl")
    record.append({"loss": 1.0}, 5)
    with pytest.raises(ValueError, match="Step 4 after step 5"):
        record.append({"loss": 1.0}, 4)
    record.cut(3)
    record.append({"loss": 1.0}, 4)
    with pytest.raises(ValueError, match="must not name `step`"):
        record.append({"step": 1}, 5)


def test_a_row_waits_for_the_texts_that_were_moved_before_they_were_read(tmp_path: Path) -> None:
    """When a stage is sealed its record and what the policy wrote move, perhaps between two looks of the mirror."""
    folder = tmp_path / "work"
    folder.mkdir()
    record, written = Record(folder / "metrics.jsonl"), Record(folder / "written.jsonl")
    mirror = Mirror.__new__(Mirror)  # without a client
    mirror.record, mirror.written, mirror._written_bytes, mirror._texts = record.path, written.path, 0, []
    record.append({"loss": 1.0}, 1)
    assert mirror._read_texts()  # nothing was written
    written.append({"completion": "x"}, 2)
    record.append({"loss": 1.0}, 2)
    assert mirror._read_texts()
    assert [row["completion"] for row in mirror._texts] == ["x"]
    folder.rename(tmp_path / "sealed")
    assert not mirror._read_texts()
    mirror.record, mirror.written = tmp_path / "sealed" / "metrics.jsonl", tmp_path / "sealed" / "written.jsonl"
    assert mirror._read_texts()
