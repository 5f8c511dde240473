"""Pieces of files and processes change nothing but the time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from curating import DEMONSTRATIONS, PROMPTS, Bench, digests, everything, pair, told

from pipeline.config.data import CurateConfig, DataConfig, Engine, FilterConfig, SourceConfig, SourceFormat
from pipeline.data.curation import executors, plan
from pipeline.errors import DataError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.slow
def test_pieces_and_processes_change_no_byte(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {"filters": [FilterConfig(name="placeholders")], "test_fraction": 0.2}
    whole = bench.curate(*everything(bench), **config)
    fates = set(whole.fates().values())
    assert fates == {"duplicate", "near_duplicate", "leak", "filtered", "over_cap"}
    assert whole.accounts[1].num_quarantined > 5
    first = told(whole), digests(whole)
    monkeypatch.setattr(plan, "SHARD_BYTES", 10_000)
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    data = DataConfig(name="desk", sources=everything(bench))
    assert len(plan.cut(plan.plan_sources(data, CurateConfig(), None))) > 15
    for num_workers in (1, 2):
        bench.bad = []
        again = bench.curate(*everything(bench), num_workers=num_workers, **config)
        assert (told(again), digests(again)) == first


def test_lines_and_offsets_are_those_of_the_whole_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 500)
    rows: list[Any] = [pair(f"Question {n}?", "x" * 50, id=f"r{n}") for n in range(60)]
    rows[40] = "{bad"
    rows[50] = ""  # a blank line is no row, and is counted as a line
    rows[55] = pair("Question 1?", "other", id="r1")
    made = bench.curate(bench.source("a", rows))
    assert [(entry["line"], entry["reason"]) for entry in made.bad] == [(41, "E_JSON"), (56, "E_ID")]
    content = (bench.folder / "a.jsonl").read_bytes()
    assert content[made.bad[0]["offset"] :].startswith(b"{bad")
    assert content[made.bad[1]["offset"] :].startswith(b'{"prompt": "Question 1?"')
    assert made.accounts[0].read == 59


@pytest.mark.slow
def test_a_row_is_in_one_piece_wherever_a_file_is_cut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair(f"Question {n}?", "x" * (n % 7), id=f"r{n}") for n in range(1, 30)]
    source = bench.source("a", rows)
    for size in (1, 40, 67, 150):
        monkeypatch.setattr(plan, "SHARD_BYTES", size)
        made = bench.curate(source, test_fraction=0.0, validation_fraction=0.0)
        assert made.accounts[0].read == 29
        assert [row.id for row in made.rows(DEMONSTRATIONS, "train")] == [f"r{n}" for n in range(1, 30) if n % 7]


def test_a_bad_source_stops_the_run_and_is_cleared_away(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "array.json").write_text('[{"prompt": "a"}, {', encoding="utf-8")
    with pytest.raises(DataError, match=r"E_JSON.*array\.json"):
        bench.curate(SourceConfig(table=PROMPTS, path=str(tmp_path / "array.json"), format=SourceFormat.json))
    assert [path for path in tmp_path.glob("work-*/*")] == []


def test_every_core_is_used_unless_told_otherwise() -> None:
    with executors.open_executor(Engine.local, 1, 1 << 40) as executor:
        assert isinstance(executor, executors.Inline)
    with executors.open_executor(Engine.local, 2, 1000) as executor:
        assert isinstance(executor, executors.Inline)
    with executors.open_executor(Engine.local, 2, 1 << 40) as executor:
        assert isinstance(executor, executors.Processes)
        assert list(executor.map(abs, [-1, 2, -3])) == [1, 2, 3]


@pytest.mark.slow
def test_processes_begin_before_anybody_asks_for_results(tmp_path: Path) -> None:
    with executors.open_executor(Engine.local, 2, 1 << 40) as executor:
        results = executor.map(Path.mkdir, [tmp_path / "first", tmp_path / "second"])
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
        assert list(results) == [None, None]


@pytest.mark.slow
def test_a_process_that_dies_is_told_of() -> None:
    with (
        pytest.raises(DataError, match="A worker process of `curate` was killed"),
        executors.open_executor(Engine.local, 2, 1 << 40) as executor,
    ):
        list(executor.map(os._exit, [1, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_that_stops_while_rows_are_written_leaves_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 10_000)
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    rows = [pair(f"Question {n}?", "x" * 50, id=f"r{n}") for n in range(400)] + ["{bad"] * 100
    source = bench.source("a", rows, limit=10_000)  # of a source with a limit the bad rows are counted last
    with pytest.raises(DataError, match="100 of 500 rows"):
        bench.curate(source, num_workers=num_workers, max_quarantined_fraction=0.1)
    assert len(bench.bad) == 100
    assert [path for path in tmp_path.glob("work-*/*")] == [path for path in tmp_path.glob("made-*/**/*")] == []
