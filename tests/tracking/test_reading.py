"""What W&B has, compared: the same numbers as from the folders, from a server and from files that its client wrote."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from compared_runs import write_trial
from tracked_runs import Invocation
from wandb_server import WandbServer

from pipeline.comparison.building import build_comparison
from pipeline.comparison.selecting import choose
from pipeline.config.shared import TrackingMode
from pipeline.errors import ConfigError, TrackingError
from pipeline.tracking.delivery import sync

pytestmark = pytest.mark.slow
RATES = (1e-5, 3e-5)


def mirrored(outputs: Path, tmp_path: Path, mode: TrackingMode) -> dict[str, Any]:
    """Mirror two trials of one group; return the local comparison."""
    for number, rate in enumerate(RATES):
        local = write_trial(tmp_path / "local", number, 0.4 + number / 10, optimizer={"learning_rate": rate})
        logged = {"command": f"train rate={rate}", "seed": 17, "dpo": {"optimizer": {"learning_rate": rate}},
                  "inputs": {"sft": {"policy": None}}}  # fmt: skip
        with Invocation(outputs, f"run-{number}", mode, logged=logged, group="group") as invocation:
            if number:  # the first one's policy was there already, and reused stages log no run
                invocation.stage_run("sft", str(number), steps=range(1, 4))
            files = {name: (local / name).read_bytes() for name in ("report.json", "items.json")}
            invocation.report_run(str(number), files)
    return build_comparison(choose([], tmp_path / "local"))


def same_numbers(found: dict[str, Any], local: dict[str, Any]) -> bool:
    return found["metrics"] == local["metrics"] and found["ranking"] == local["ranking"] | {
        "sentences": found["ranking"]["sentences"]  # which name the runs
    }


def test_a_group_of_the_server_is_compared_item_by_item(server: WandbServer, outputs: Path, tmp_path: Path) -> None:
    local = mirrored(outputs, tmp_path, TrackingMode.auto)
    sync(outputs, say=lambda text: None)  # a machine that is busy may have gone offline in between
    found = build_comparison(choose(["wandb:loopback/pipeline/group"], tmp_path))
    assert same_numbers(found, local)
    assert found["config"]["keys"] == {"dpo.optimizer.learning_rate": list(RATES)}
    assert [len(points["loss"]) for points in found["curves"].values()] == [3]
    with pytest.raises(TrackingError, match="no run of the group 'nothing'"):
        choose(["wandb:loopback/pipeline/nothing"], tmp_path)


def test_files_that_the_client_wrote_offline_are_compared(outputs: Path, tmp_path: Path) -> None:
    local = mirrored(outputs, tmp_path, TrackingMode.offline)
    with Invocation(outputs, "another", TrackingMode.offline, logged={"command": "y"}, group="other") as invocation:
        invocation.stage_run("sft", "e", steps=[1])
    with Invocation(outputs, "died", TrackingMode.offline, logged={"command": "x"}, group="group") as invocation:
        invocation.start("sft", "f" * 64).fail(RuntimeError("out of memory"))
    moved = tmp_path / "copied"
    for folder in (outputs / "runs").iterdir():
        shutil.copytree(folder / "wandb", moved / folder.name, ignore=shutil.ignore_patterns("client", "*.run.json"))
    found = build_comparison(choose([str(moved)], tmp_path))
    assert same_numbers(found, local)
    assert sorted(run["status"] for run in found["runs"]) == ["failed", "finished", "finished", "no report"]
    assert [len(points["loss"]) for points in found["curves"].values()] == [3]
    grouped = choose([f"group:{moved}/group"], tmp_path)
    assert {(run.name.rpartition("-")[0], run.group) for run in grouped.runs} == {("group", "group")}
    assert build_comparison(grouped)["ranking"] == found["ranking"]
    assert [run.status for run in choose([f"group:{moved}/other"], tmp_path).runs] == ["no report"]
    with pytest.raises(ConfigError, match=r"no run in .* is of the group 'grup'. Did you mean `group`\?"):
        choose([f"group:{moved}/grup"], tmp_path)
    for report in (outputs / "artifacts").glob("report-*/items.json"):
        report.unlink()
    later = choose([str(moved)], tmp_path)
    assert {run.status for run in later.runs} == {
        "unreadable",
        "failed",
        "no report",
    }  # the files were never copied by the client


def test_a_server_that_cannot_be_used_is_one_clear_line(server: WandbServer, tmp_path: Path) -> None:
    server.fault = "error"
    with pytest.raises(TrackingError, match="wandb:loopback/pipeline/group cannot be read"):
        choose(["wandb:loopback/pipeline/group"], tmp_path)
    with pytest.raises(TrackingError, match="write wandb:ENTITY/PROJECT/GROUP"):
        choose(["wandb:group"], tmp_path)


def test_without_a_key_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TrackingError, match="Set WANDB_API_KEY"):
        choose(["wandb:a/b/c"], tmp_path)
