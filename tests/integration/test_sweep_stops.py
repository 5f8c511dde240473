"""A search with real trials on a tiny model: stopped in the middle of one, gone on with, and pruned."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from sweeping import make_project, sweep_command, sweep_environment

pytestmark = pytest.mark.integration

SPACE = ("sft.optimizer.learning_rate=tag(log,interval(1e-5,1e-2))", "sweep.method=tpe", "sweep.trials=3")
WATCHED = ("objective=[{metric: validation_loss}]", "sweep.pruner=median", "sweep.startup_trials=2", "sft.num_epochs=5")


def trials(project: Path) -> list[dict[str, Any]]:
    """The trials as they are recorded at the moment."""
    found = list((project / "outputs" / "runs").glob("*/sweep.json"))
    recorded: list[dict[str, Any]] = json.loads(found[0].read_text())["trials"] if found else []
    return recorded


def log_of(project: Path, trial: dict[str, Any]) -> str:
    """What a trial told."""
    return (project / "outputs" / "runs" / str(trial["folder"]) / "run.log").read_text()


def test_a_search_is_stopped_in_a_trial_and_goes_on(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    command = sweep_command(project, *SPACE, *WATCHED)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=project, env=sweep_environment(project)
    )
    while not (len(trials(project)) == 2 and len(trials(project)[1]["intermediate"]) >= 2):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143, out + err
    stopped = trials(project)
    assert [trial["status"] for trial in stopped] == ["finished", "stopped"]
    assert stopped[1]["exit_status"] == 143
    first = log_of(project, stopped[0])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=project, env=sweep_environment(project)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ended = trials(project)
    assert len(ended) == 3
    assert ended[0] == stopped[0]
    assert log_of(project, ended[0]) == first
    assert ended[1]["params"] == stopped[1]["params"]
    assert "from the checkpoint of step" in log_of(project, ended[1])
    assert {trial["status"] for trial in ended} <= {"finished", "pruned"}
    for trial in ended:
        course = [value for _, value in trial["intermediate"]]
        if trial["status"] == "finished":  # the adapter that is kept is that of the lowest validation loss
            assert trial["objectives"] == [pytest.approx(min(course))]
        else:
            assert trial["exit_status"] == 143
            assert len(course) < len(ended[0]["intermediate"])
    assert len({str(trial["params"]) for trial in ended}) == 3
    made = [path.name for path in (project / "outputs" / "artifacts").iterdir() if path.is_dir()]
    assert sum(name.startswith("curate-") for name in made) == 1
