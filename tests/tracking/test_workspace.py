"""A workspace for a sweep, made by W&B's own package and sent by the real client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import API_KEY, Invocation, files_below, row
from wandb_server import WandbServer

from pipeline.commands.runs import run_command
from pipeline.config.shared import TrackingMode
from pipeline.errors import ConfigError, TrackingError
from pipeline.sweeps.record import SweepRecord, Trial
from pipeline.tracking.workspace import metric_key

PLANTED = "correct-horse-battery-staple-4711"
SPACE = {
    "sft.optimizer.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True, "integer": False},
    "sft.lora.rank": {"choices": [4, 8]},
}


def recorded_sweep(outputs: Path, mode: TrackingMode, group: str = "rates_sweep") -> SweepRecord:
    """A sweep of one trial, whose training was mirrored."""
    record = SweepRecord(
        path=outputs / "runs" / "rates_sweep", identity="0" * 64, command="train", experiment="sft", method="tpe",
        objectives=[
            {"name": "sft/validation_loss", "direction": "minimize"},
            {"name": "house_style/all_checks/sft", "direction": "maximize"},
        ],
        space=SPACE,
        trials=[Trial(number=0, params={"sft.lora.rank": 4}, overrides=["sft.lora.rank=4"], folder="rates_sweep_0")],
    )  # fmt: skip
    record.save()
    with Invocation(outputs, "rates_sweep_0", mode, group=group) as invocation:
        run = invocation.start("sft", "b" * 64)
        run.log(row(1), 1)
        run.finish(invocation.seal())
    return record


def panels_of(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    return [(panel["viewType"], panel["config"]) for section in sections for panel in section["panels"]]


def test_the_workspace_of_a_sweep_is_saved_on_the_server(
    server: WandbServer, outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", PLANTED)
    recorded_sweep(outputs, TrackingMode.online)
    # What a stage has sealed stands in the summary of its run, where a workspace finds it.
    (run,) = server.runs.values()
    assert run.summary["rows"] == 3
    assert run.summary["loss"] == row(1)["loss"]
    assert run_command(["workspace", "rates_sweep", f"runtime.outputs={outputs}"]) == 0
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("loopback", "pipeline", "rates_sweep")
    assert f"rates_sweep: {server.url}/loopback/pipeline?nw=" in capsys.readouterr().out
    spec = json.loads(view["spec"])
    (runs,) = spec["section"]["runSets"]
    assert [(entry["key"]["name"], entry["op"], entry["value"]) for entry in runs["filters"]["filters"]] == [
        ("group", "=", "rates_sweep")
    ]
    panels = panels_of(spec)
    columns = [[column["accessor"] for column in config["columns"]] for kind, config in panels if "Parallel" in kind]
    rate, rank = "config:sft.value.optimizer.learning_rate", "config:sft.value.lora.rank"
    assert columns == [
        [rate, rank, "summary:validation_loss"], [rate, rank, "summary:house_style/all_checks/sft"],
    ]  # fmt: skip
    scatter = [config for kind, config in panels if kind == "Scatter Plot"]
    assert [(config["xAxis"], config.get("xAxisLogScale")) for config in scatter] == 2 * [(rate, True), (rank, None)]
    assert {config["targetKey"] for kind, config in panels if kind == "Parameter Importance"} == {
        "validation_loss", "house_style/all_checks/sft",
    }  # fmt: skip
    assert not [name for name, content in files_below(outputs).items() if API_KEY.encode() in content]
    # A secret of the environment that stands in what is sent is taken out of it.
    assert server.leaks([API_KEY, PLANTED]) == []
    assert server.leaks(["rates_sweep"])


def test_the_workspace_shows_the_group_that_the_runs_are_in(server: WandbServer, outputs: Path) -> None:
    recorded_sweep(outputs, TrackingMode.online, group="mine")
    assert run_command(["workspace", "rates_sweep", f"runtime.outputs={outputs}"]) == 0
    (run,), (view,) = server.runs.values(), server.views
    (shown,) = json.loads(view["spec"])["section"]["runSets"]
    assert [entry["value"] for entry in shown["filters"]["filters"]] == [run.attributes["groupName"]] == ["mine"]
    assert view["displayName"] == "rates_sweep"


def test_a_workspace_says_what_it_lacks(server: WandbServer, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["workspace", "rates_sweep", f"runtime.outputs={outputs}"]
    recorded_sweep(outputs, TrackingMode.disabled)
    with pytest.raises(TrackingError, match="No trial of rates_sweep is mirrored"):
        run_command(command)
    recorded_sweep(outputs, TrackingMode.offline)
    server.fault = "error"
    with pytest.raises(TrackingError, match="was not saved"):
        run_command(command)
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(TrackingError, match="No API key"):
        run_command(command)
    monkeypatch.setattr("pipeline.tracking.workspace.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"extra `workspaces`: pip install"):
        run_command(command)
    with pytest.raises(ConfigError, match="needs the name of a sweep"):
        run_command(["workspace"])


def test_an_objective_is_found_under_its_name_in_wandb() -> None:
    assert metric_key("sft/validation_loss") == "validation_loss"
    assert metric_key("house_style/all_checks/sft") == "house_style/all_checks/sft"
