"""Which mirrored runs are delivered, and which still go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.temporary import machine_since_its_start
from pipeline.tracking import delivery
from pipeline.tracking.delivery import Delivery, sync
from pipeline.tracking.mirror import MirrorFailed
from pipeline.tracking.mirrored import MirroredRun, any_offline

ELSEWHERE = "00000000"


class Courier:
    """Stands in for the way to a server, and remembers what it was given."""

    given: list[str]

    def __init__(self, outputs: Path, seconds: float) -> None:
        Courier.given = []

    def __enter__(self) -> Courier:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def deliver(self, run: MirroredRun) -> Delivery:
        Courier.given.append(run.run_id)
        return Delivery(run_id=run.run_id, name=run.name, run_folder=run.run_folder, state="delivered")


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(outputs: Path, name: str, *, silent: float, **facts: Any) -> None:
    """Describe a run that began three hours ago and wrote its last row `silent` seconds ago."""
    record = outputs / "work" / name / "metrics.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text('{"step": 1, "loss": 2.0}\n')
    os.utime(record, (time.time() - silent,) * 2)
    values: dict[str, Any] = {
        "run_id": name, "project": "p", "entity": None, "group": "g", "job_type": "sft", "name": name, "tags": [],
        "config": {}, "upload_artifacts": False, "inputs": [], "run_folder": f"runs/{name}",
        "record": f"work/{name}/metrics.jsonl", "pid": os.getpid(), "started": time.time() - 3 * 3600,
        "mode": "offline", **facts,
    }  # fmt: skip
    MirroredRun(**values).save(outputs)


def test_what_still_runs_is_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    monkeypatch.setattr(delivery, "_Courier", Courier)
    monkeypatch.setattr(delivery, "_require_server", lambda: None)
    here = machine_since_its_start()
    before = f"{here.partition('-')[0]}-another"  # this machine before it was started anew
    # The number of a process means nothing elsewhere or from before, whether one of that number lives here or not.
    write(tmp_path, "elsewhere-writes", silent=60, machine=ELSEWHERE, pid=dead)
    write(tmp_path, "elsewhere-silent", silent=3700, machine=ELSEWHERE)
    write(tmp_path, "elsewhere-ended", silent=60, machine=ELSEWHERE, exit_code=0)
    write(tmp_path, "here-died", silent=60, machine=here, pid=dead)
    write(tmp_path, "here-lives", silent=3700, machine=here)
    write(tmp_path, "here-ended", silent=60, machine=here, exit_code=0)
    write(tmp_path, "before-silent", silent=3700, machine=before)
    states = {entry.run_id: entry.state for entry in sync(tmp_path)}
    assert states == {
        "elsewhere-writes": "still running", "elsewhere-silent": "delivered", "elsewhere-ended": "delivered",
        "here-died": "delivered", "here-lives": "still running", "here-ended": "delivered",
        "before-silent": "delivered",
    }  # fmt: skip
    assert sorted(Courier.given) == sorted(name for name, state in states.items() if state == "delivered")


WHOLE = {"last_step": 4, "num_rows": 3, "artifact_digest": "d", "inputs": ["curate-1"]}


@pytest.mark.parametrize(
    ("found", "finished", "lacks"),
    [
        ({}, {}, None),
        ({"last_step": 2}, {}, "rows after step 2 (the record ends at step 4)"),
        ({"last_step": None}, {}, "rows after step None (the record ends at step 4)"),
        ({"num_rows": 2}, {}, "1 of 3 rows"),  # the last one is there, and one in the middle is not
        ({"artifact_digest": None}, {}, "the artifact sft-1, which was not committed"),
        ({"artifact_digest": "e"}, {}, "the artifact sft-1, which was not committed"),
        ({"inputs": []}, {}, "the link to the input curate-1"),
        ({}, {"registered": []}, "the link from r/models to dpo-1"),
    ],
)
def test_what_the_server_lacks_is_named(
    tmp_path: Path, found: dict[str, Any], finished: dict[str, Any], lacks: str | None
) -> None:
    write(
        tmp_path, "run", silent=0, output={"id": "sft-1", "bytes": 1}, inputs=[{"id": "curate-1"}],
        registry="r/models", registered=[{"id": "dpo-1"}],
    )  # fmt: skip
    (path,) = tmp_path.glob("runs/*/wandb/*.run.json")
    run = MirroredRun.load(path)
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "validation_loss": 1.0}, {"step": 4}]
    (tmp_path / run.record).write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = ({"artifact_digest": "d", "registered": ["dpo-1"]} | finished, WHOLE | found)
    if lacks is None:
        delivery._require_arrival(run, tmp_path, *answers)
        return
    with pytest.raises(MirrorFailed) as failed:
        delivery._require_arrival(run, tmp_path, *answers)
    assert str(failed.value) == f"the server lacks {lacks}"


def test_where_everything_still_runs_no_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    monkeypatch.setattr(delivery, "_require_server", lambda: pytest.fail("a server was asked"))
    write(tmp_path, "elsewhere", silent=60, machine=ELSEWHERE, pid=dead)
    assert [entry.state for entry in sync(tmp_path)] == ["still running"]


def test_only_runs_since_a_moment_say_that_the_server_has_failed(tmp_path: Path) -> None:
    folder, now = tmp_path / "runs" / "trial", time.time()
    assert not any_offline(folder, now)
    write(tmp_path, "before", silent=0, run_folder="runs/trial", started=now - 60)  # of an earlier attempt
    write(tmp_path, "online", silent=0, run_folder="runs/trial", started=now + 1, mode="online")
    assert not any_offline(folder, now)
    assert any_offline(folder, now - 61)
    write(tmp_path, "since", silent=0, run_folder="runs/trial", started=now + 2)
    assert any_offline(folder, now)
