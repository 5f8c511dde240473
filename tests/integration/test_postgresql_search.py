"""A search that keeps its study in a real PostgreSQL server: shared, killed, and cut off from its storage."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from postgresql_server import PostgresqlServer, find_programs, running_server
from sweeping import make_project, sweep_command, sweep_environment
from tracked_runs import files_below

from pipeline.config.space import Axis
from pipeline.config.sweep import SweepConfig, SweepMethod
from pipeline.sweeps.search import Search

pytestmark = pytest.mark.integration

FAKE = Path(__file__).resolve().parents[1] / "fake_trial.py"
SPACE = (
    "sft.optimizer.learning_rate=tag(log,interval(1e-5,1e-2))",
    "sweep.method=random",
    "objective=[{metric: validation_loss}]",
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'finetune-pipeline[postgresql]'")
    with running_server(programs) as running:
        yield running


def start(command: list[str], folder: Path, server: PostgresqlServer, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**sweep_environment(folder), **server.environment, **environment},
    )  # fmt: skip


def end(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    out, err = process.communicate()
    assert process.returncode == status, out + err
    assert "Traceback" not in out + err
    return out, err


def quick(server: PostgresqlServer, database: str) -> list[str]:
    """The words of a search whose trials take a second or two and train nothing."""
    return [
        sys.executable, "-m", "pipeline", "train", "-m", "+experiment=sft", "tracking=disabled", *SPACE,
        "sweep.trials=3", "runtime.outputs=outputs",
        f"sweep.launch=[{sys.executable},{FAKE}]", f"sweep.storage={server.storage(database)}",
    ]  # fmt: skip


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "outputs" / "runs").glob("*/sweep.json"))]


def statuses(folder: Path) -> list[str]:
    return [str(trial["status"]) for record in records(folder) for trial in record["trials"]]


def states(server: PostgresqlServer, database: str) -> list[str]:
    """How the trials of the study stand in the database."""
    return [state for _, state in server.query(database, "SELECT number, state FROM trials ORDER BY number")]


def wait_for(process: subprocess.Popen[str], arrived: Callable[[], bool]) -> None:
    while not arrived():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def assert_no_password(folder: Path, server: PostgresqlServer, *said: str) -> None:
    left = files_below(folder / "outputs")
    assert any(server.storage("").encode().split(b"@")[1] in content for content in left.values())  # it is looked at
    assert [name for name, content in left.items() if server.password.encode() in content] == []
    assert not any(server.password in text for text in said)


def test_two_commands_of_a_search_run_its_trials_together_and_none_twice(
    tmp_path: Path, server: PostgresqlServer
) -> None:
    server.create("shared")
    project = make_project(tmp_path)
    command = sweep_command(project, *SPACE, f"sweep.storage={server.storage('shared')}", "sweep.trials=4")
    said = [end(process) for process in [start(command, project, server) for _ in range(2)]]
    both = records(project)
    assert len(both) == 2
    trials = [trial for record in both for trial in record["trials"]]
    assert all(record["trials"] for record in both)
    assert statuses(project) == ["finished"] * 4
    assert len({str(trial["params"]) for trial in trials}) == 4
    told = {(trial["study_number"], trial["objectives"][0]) for trial in trials}
    stored = server.query(
        "shared", "SELECT number, value FROM trials JOIN trial_values USING (trial_id) WHERE state = 'COMPLETE'"
    )
    assert {(int(number), float(value)) for number, value in stored} == told
    assert len(stored) == 4
    folders = {record["sweep"] for record in both}
    again, _ = end(start(command, project, server))
    assert "going on with" in again
    assert records(project) == [record | {"status": "complete"} for record in both]
    assert {record["sweep"] for record in records(project)} == folders
    # More trials of the same command go on with the same search.
    end(start([*command[:-1], "sweep.trials=5"], project, server))
    assert statuses(project) == ["finished"] * 5
    assert_no_password(project, server, again, *(text for pair in said for text in pair))


def test_commands_that_find_an_empty_database_at_the_same_moment_all_open_it(
    tmp_path: Path, server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    axes = [Axis(key="sft.lora.rank", low=1, high=64, log=True, integer=True)]

    def open_search(number: int) -> str:
        config = SweepConfig(method=SweepMethod.random, storage=server.storage(database))
        search = Search(tmp_path / str(number), config, axes, ["minimize"], "study")
        return str(search.study.study_name)

    for database in ("empty1", "empty2", "empty3"):
        server.create(database)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(open_search, range(4))) == ["study"] * 4
        assert server.query(database, "SELECT study_name FROM studies") == [["study"]]


def test_a_search_that_was_killed_goes_on_and_keeps_its_place(tmp_path: Path, server: PostgresqlServer) -> None:
    server.create("killed")
    command = quick(server, "killed")
    process = start(command, tmp_path, server, FAKE_PAUSE="0.3")
    wait_for(process, lambda: statuses(tmp_path) == ["finished", "running"])
    process.kill()
    process.communicate()
    [before] = records(tmp_path)
    orphan = tmp_path / "outputs" / "runs" / before["trials"][1]["folder"] / "objective.json"
    while not orphan.exists():  # the trial has lost its sweep and ends by itself
        time.sleep(0.05)
    assert states(server, "killed") == ["COMPLETE", "RUNNING"]
    out, err = end(start(command, tmp_path, server))
    [after] = records(tmp_path)
    assert statuses(tmp_path) == ["finished"] * 3
    assert after["trials"][0] == before["trials"][0]
    assert after["trials"][1]["params"] == before["trials"][1]["params"]
    assert states(server, "killed") == ["COMPLETE"] * 3
    assert_no_password(tmp_path, server, out, err)


def test_a_server_that_stops_ends_the_search_with_one_error_and_it_goes_on(
    tmp_path: Path, server: PostgresqlServer
) -> None:
    server.create("stopped")
    command = quick(server, "stopped")
    process = start(command, tmp_path, server, FAKE_PAUSE="0.5")
    wait_for(process, lambda: statuses(tmp_path) == ["finished", "running"])
    server.stop()
    try:
        out, err = end(process, status=7)
        [error] = err.splitlines()
        assert error.startswith("StorageError: sweep.storage: postgresql+psycopg does not answer any more: ")
        assert error.endswith("the same command goes on once the storage answers.")
        assert statuses(tmp_path) == ["finished", "finished"]  # the trial that was running has ended and is recorded
        _, early = end(start(command, tmp_path, server), status=2)  # not back yet
        [error] = early.splitlines()
        assert error.startswith("ConfigError: sweep.storage: postgresql+psycopg cannot be opened: ")
    finally:
        server.start()
    [before] = records(tmp_path)
    assert states(server, "stopped") == ["COMPLETE", "RUNNING"]
    again, _ = end(start(command, tmp_path, server))
    [after] = records(tmp_path)
    assert after["trials"][:2] == before["trials"]
    assert statuses(tmp_path) == ["finished"] * 3
    assert states(server, "stopped") == ["COMPLETE"] * 3
    assert_no_password(tmp_path, server, out, err, early, again)


def test_a_wrong_password_is_one_error_that_does_not_show_it(tmp_path: Path, server: PostgresqlServer) -> None:
    server.create("refused")
    wrong = "not-the-password-4711"
    _, err = end(start(quick(server, "refused"), tmp_path, server, PGPASSWORD=wrong), status=2)
    [error] = err.splitlines()
    assert "password authentication failed" in error
    assert wrong not in err
