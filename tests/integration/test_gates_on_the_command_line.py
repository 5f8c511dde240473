"""What `train` ends with where a hard gate passes, fails, or is left open; the run is complete all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_model
from tracked_runs import API_KEY
from wandb_server import WandbServer

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration

BETTER = "+evaluate.gates={learned: {kind: superiority, suite: heldout, hard: true}}"
PERFECT = "+evaluate.gates={perfect: {kind: at_most, suite: heldout, bound: 0.001, hard: true}}"


def make_project(folder: Path) -> None:
    """Write rows and a tiny model."""
    rows = [
        {"prompt": f"What is {number} plus one?", "completion": f"It is {number + 1}. Next step: none."}
        for number in range(200)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    make_tiny_model(folder / "model", text=[row[key] for row in rows for key in row])


def train(
    folder: Path, *overrides: str, tracking: str = "disabled", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Fine-tune a tiny model for a few steps, and compare it with itself before."""
    command = [
        sys.executable, "-m", "pipeline", "train", "+experiment=sft", "data=jsonl", f"tracking={tracking}", "model=hub",
        f"model.id={folder / 'model'}", f"data.path={folder / 'rows.jsonl'}", "evaluate.suites=[heldout]",
        "sft.max_steps=12", "sft.batch_size=4", "sft.microbatch_size=4", "sft.max_length=128",
        "sft.optimizer.learning_rate=1e-2", "runtime.num_threads=1", f"runtime.cache={folder / 'cache'}", *overrides,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def deliver(folder: Path, variables: dict[str, str]) -> None:
    """Send what a machine that is busy has kept: it goes offline where an answer takes long."""
    command = [sys.executable, "-m", "pipeline", "runs", "sync"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, check=True)


def test_a_hard_gate_moves_the_exit_status_of_a_run_that_is_complete(tmp_path: Path) -> None:
    make_project(tmp_path)
    passed = train(tmp_path, BETTER)
    assert passed.returncode == 0, passed.stderr[-2000:]
    assert "gates: 1 PASS" in passed.stdout

    failed = train(tmp_path, PERFECT)
    assert failed.returncode == 30, failed.stderr[-2000:]
    assert "GateFailedError: 1 hard gate failed; everything was made and sealed all the same." in failed.stderr
    again = train(tmp_path, PERFECT)
    assert again.returncode == 30  # also where the report is an old one
    soft = train(tmp_path, "+evaluate.gates={perfect: {kind: at_most, suite: heldout, bound: 0.001}}")
    assert soft.returncode == 0
    assert "gates: 1 FAIL" in soft.stdout

    left_open = train(tmp_path, BETTER, "evaluate.limit=1")
    assert left_open.returncode == 31, left_open.stderr[-2000:]
    assert "learned: sft is better than base on bits per byte (heldout): " in left_open.stderr
    runs = sorted((tmp_path / "outputs" / "runs").iterdir())
    assert len(runs) == 5
    assert all((run / "report.html").exists() and (run / "report.json").exists() for run in runs)


def test_a_policy_whose_hard_gate_passes_is_linked_into_the_registry_and_no_other(tmp_path: Path) -> None:
    make_project(tmp_path)
    registry = "tracking.registry=wandb-registry-model/arithmetic"
    (tmp_path / "home").mkdir()
    with WandbServer(api_key=API_KEY) as server:
        tracked = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY, "HOME": str(tmp_path / "home")}
        failed = train(tmp_path, PERFECT, registry, tracking="online", **tracked)
        assert failed.returncode == 30, failed.stderr[-2000:]
        deliver(tmp_path, tracked)
        assert server.links == []
        assert {alert["title"] for alert in server.alerts} == {"Gate perfect: FAIL"}
        passed = train(tmp_path, BETTER, registry, tracking="online", **tracked)  # of the same policy
        assert passed.returncode == 0, passed.stderr[-2000:]
        deliver(tmp_path, tracked)
        assert server.problems == []
    (link,) = server.links
    assert (link["artifactPortfolioName"], link["projectName"]) == ("arithmetic", "wandb-registry-model")
    assert [alias["alias"] for alias in link["aliases"]] == ["passed"]
    (sealed,) = (tmp_path / "outputs" / "artifacts").glob("sft-*-*/manifest.json")
    linked = server.artifacts[link["artifactID"]]
    assert (linked.name, linked.kind) == (sealed.parent.name, "policy")
    aliases = [set(artifact.aliases) for artifact in server.artifacts.values() if artifact.kind == "report"]
    assert [sorted(alias for alias in own if alias.startswith("gates-")) for own in aliases] == [
        ["gates-fail"], ["gates-pass"],
    ]  # fmt: skip
