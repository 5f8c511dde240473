"""The engine Ray, started on this machine, makes the data set that local processes make."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from curating import DEMONSTRATIONS, Bench, digests, everything, pair, told

from pipeline.config.data import Engine, FilterConfig, SourceConfig
from pipeline.data.curation import plan
from pipeline.errors import ConfigError, DataError

pytestmark = [
    pytest.mark.integration,
    # Ray 2.60 asks for settings of its next release, and leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    pytest.importorskip("ray", reason="needs Ray: pip install ray")
    return Bench(tmp_path)


def test_ray_changes_no_byte(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {"filters": [FilterConfig(name="placeholders")], "test_fraction": 0.2}
    local = bench.curate(*everything(bench), **config)
    expected = told(local), digests(local)
    monkeypatch.setattr(plan, "SHARD_BYTES", 20_000)
    bench.bad = []
    made = bench.curate(*everything(bench), engine=Engine.ray, num_workers=2, **config)
    assert (told(made), digests(made)) == expected


def test_what_a_task_raises_is_raised_as_it_is(bench: Bench) -> None:
    path = bench.folder / "d.json"
    path.write_text("[" + '{"prompt": "a", "completion": "b"}, ' * 200 + "{", encoding="utf-8")
    with pytest.raises(DataError, match=r"E_JSON.*d\.json"):
        bench.curate(SourceConfig(table=DEMONSTRATIONS, path=str(path)), engine=Engine.ray, num_workers=1)


def test_a_run_that_stops_while_rows_are_written_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 10_000)
    rows = [pair(f"Question {n}?", "x" * 50, id=f"r{n}") for n in range(400)] + ["{bad"] * 100
    source = bench.source("a", rows, limit=10_000)  # of a source with a limit the bad rows are counted last
    with pytest.raises(DataError, match="100 of 500 rows"):
        bench.curate(source, engine=Engine.ray, num_workers=1, max_quarantined_fraction=0.1)
    assert [path for path in tmp_path.glob("work-*/*")] == [path for path in tmp_path.glob("made-*/**/*")] == []


def test_a_cluster_that_is_not_there_is_told_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, and nothing listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        source = bench.source("a", [pair("Question?", "An answer.")])
        for given in (address, f"ray://{address}"):
            monkeypatch.setenv("RAY_ADDRESS", given)
            began = time.monotonic()
            with pytest.raises(ConfigError, match=f"no cluster answers under RAY_ADDRESS={given} .*refused"):
                bench.curate(source, engine=Engine.ray, num_workers=1)
            assert time.monotonic() - began < 60  # Ray itself asks for minutes
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:many")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=127.0.0.1:many"):
        bench.curate(source, engine=Engine.ray, num_workers=1)
