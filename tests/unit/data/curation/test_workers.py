"""Pieces of files and processes change nothing but the time."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.data import CurateConfig, DataConfig, Engine, FilterConfig, SourceConfig, SourceFormat, SourceSplit
from pipeline.data.curation import executors, plan
from pipeline.errors import DataError
from tests.curating import COMPARISONS, DEMONSTRATIONS, PROMPTS, Bench, Made, pair
from tests.unit.data.curation.test_placing import changed, text, versus


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def everything(bench: Bench) -> list[SourceConfig]:
    """Sources with a row of every fate, spread over many pieces."""
    chance = random.Random(0)
    own: list[Any] = [pair(text(n), text(5000 + n), id=f"d{n}") for n in range(300)]
    own += [pair(changed(text(n), 7), changed(text(5000 + n), 30), id=f"near{n}") for n in range(0, 300, 9)]
    own += [pair(text(n), text(5000 + n), id=f"same{n}") for n in range(0, 300, 11)]
    own += [pair(text(700 + n), "So.", id=f"d{n}") for n in range(0, 300, 50)]  # ids that others have
    own += (
        [pair(f"Dear {{{{name}}}} {n}", "So.") for n in range(20)] + ["{bad"] * 5 + [pair(text(n)) for n in (901, 902)]
    )
    chance.shuffle(own)
    tests = [{"id": f"t{n}", "prompt": text(n)} for n in range(0, 300, 17)]
    pairs = [versus(text(n), text(6000 + n), text(7000 + n), id=f"c{n}") for n in range(0, 400, 3)]
    return [
        bench.source("d", own, weight=1.5, max_rows=100),
        bench.source("limited", [pair(text(2000 + n // 2), id=f"l{n}") for n in range(200)], limit=60),
        bench.source("t", tests, PROMPTS, split=SourceSplit.test),
        bench.source("c", pairs, COMPARISONS),
    ]


def digests(made: Made) -> dict[str, str]:
    files = sorted(path for path in made.folder.rglob("*") if path.is_file())
    return {path.relative_to(made.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def told(made: Made) -> str:
    return json.dumps([made.counts, made.curated.examples, made.removed, made.bad])


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
