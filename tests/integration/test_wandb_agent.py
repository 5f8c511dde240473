"""W&B's own agent runs trials of a space of ours, against a server on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import make_project, sweep_command, sweep_environment
from tracked_runs import API_KEY
from wandb_server import WandbServer

pytestmark = pytest.mark.integration

PLANTED = {
    "DATABASE_PASSWORD": "correct-horse-battery-staple-4711",
    "HF_TOKEN": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345",
}


def test_the_agent_runs_the_trials_and_the_server_learns_their_results(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (tmp_path / "home").mkdir()
    with WandbServer(api_key=API_KEY) as server:
        environment = {
            **sweep_environment(project), "HOME": str(tmp_path / "home"), "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": API_KEY, **PLANTED, "WANDB_DIR": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path / "cache"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

        def call(*words: str) -> str:
            done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=project, env=environment)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            return done.stdout + done.stderr

        written = call(*[word for word in sweep_command(
            project, "sft.optimizer.learning_rate=1e-3,1e-2", "objective=[{metric: validation_loss}]",
            "sweep.wandb_file=sweep.yaml", "sft.max_steps=2",
        ) if word != "tracking=disabled"])  # fmt: skip
        assert "wandb sweep sweep.yaml" in written
        registered = call(sys.executable, "-m", "wandb", "sweep", "--project", "pipeline", "sweep.yaml")
        assert "wandb agent loopback/pipeline/sweep0" in registered
        assert server.sweeps["sweep0"]["metric"] == {"name": "objective", "goal": "minimize"}
        rates = server.sweeps["sweep0"]["parameters"]["sft.optimizer.learning_rate"]["values"]
        assert rates == [1e-3, 1e-2]
        # The server's part: it chooses the values. The third trial is one that was there, so nothing is trained in it.
        server.trials = [{"sft.optimizer.learning_rate": {"value": rate}} for rate in (*rates, rates[0])]
        call(sys.executable, "-m", "wandb", "agent", "loopback/pipeline/sweep0")
        assert server.problems == []
        trials = {name: run for name, run in server.runs.items() if name.startswith("trial")}
        assert len(trials) == 3
        assert all(run.attributes["sweep"] == "sweep0" and run.state == "finished" for run in trials.values())
        results = [trials[f"trial{number}"].summary["objective"] for number in (3, 2, 1)]
        assert results[0] == results[2] != results[1]
        assert trials["trial3"].config["sft.optimizer.learning_rate"] == 1e-3
        stages = [run for name, run in server.runs.items() if not name.startswith("trial")]
        # Every stage has a run of its own, none of them in the agent's, all in the sweep's group.
        assert sorted(run.attributes["jobType"] for run in stages) == [
            "curate", "report", "report", "samples", "samples", "samples", "sft", "sft",
        ]  # fmt: skip
        assert {run.attributes["groupName"] for run in stages} == {"sweep0"}
        assert all(not run.attributes.get("sweep") for run in stages)
        assert server.leaks([API_KEY, *PLANTED.values()]) == []
        assert server.leaks(["validation_loss"])
