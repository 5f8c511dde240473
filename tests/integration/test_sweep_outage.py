"""A tracking server that hangs in the middle of a sweep is waited for by one trial, and everything arrives later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import make_project, run_sweep, sweep_environment
from tracked_runs import API_KEY
from wandb_server import WandbServer

pytestmark = pytest.mark.integration


def test_one_trial_waits_for_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path)
    with WandbServer(api_key=API_KEY) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        server.break_on("CreateArtifact", "hang")
        done = run_sweep(project, "seed=1,2,3", "sft.num_epochs=1", "tracking=online", "tracking.project=tests")
        assert done.returncode == 0, done.stdout + done.stderr
        runs = project / "outputs" / "runs"
        logs = [path.read_text() for path in sorted(runs.glob("*_sweep_*/run.log"))]
        assert ["offline from here on" in log for log in logs] == [True, False, False]
        assert done.stdout.count("W&B: offline for the trials that follow") == 1
        modes = {
            folder.name[-1]: {json.loads(path.read_text())["mode"] for path in folder.glob("wandb/*.run.json")}
            for folder in runs.glob("*_sweep_*")
        }
        assert modes["1"] == modes["2"] == {"offline"}
        server.heal()
        sync = subprocess.run(
            [sys.executable, "-m", "pipeline", "runs", "sync"],
            capture_output=True, text=True, check=False, cwd=project, env=sweep_environment(project),
        )  # fmt: skip
        assert sync.returncode == 0, sync.stdout + sync.stderr
        recorded = {json.loads(path.read_text())["run_id"] for path in runs.glob("*/wandb/*.run.json")}
        assert recorded == set(server.runs)
        assert all(json.loads(path.read_text())["delivered"] for path in runs.glob("*/wandb/*.run.json"))
