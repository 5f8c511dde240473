"""What `train` ends with where a hard gate passes, fails, or is left open; the run is complete all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Fine-tune a tiny model for a few steps, and compare it with itself before."""
    command = [
        sys.executable, "-m", "pipeline", "train", "+experiment=sft", "data=jsonl", "tracking=disabled", "model=hub",
        f"model.id={folder / 'model'}", f"data.path={folder / 'rows.jsonl'}", "evaluate.suites=[heldout]",
        "sft.max_steps=12", "sft.batch_size=4", "sft.microbatch_size=4", "sft.max_length=128",
        "sft.optimizer.learning_rate=1e-2", "runtime.num_threads=1", f"runtime.cache={folder / 'cache'}", *overrides,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_hard_gate_moves_the_exit_status_of_a_run_that_is_complete(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {number} plus one?", "completion": f"It is {number + 1}. Next step: none."}
        for number in range(200)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    make_tiny_model(tmp_path / "model", text=[row[key] for row in rows for key in row])
    better = "+evaluate.gates={learned: {kind: superiority, suite: heldout, hard: true}}"
    passed = train(tmp_path, better)
    assert passed.returncode == 0, passed.stderr[-2000:]
    assert "gates: 1 PASS" in passed.stdout

    failed = train(tmp_path, "+evaluate.gates={perfect: {kind: at_most, suite: heldout, bound: 0.001, hard: true}}")
    assert failed.returncode == 30, failed.stderr[-2000:]
    assert "GateFailedError: 1 hard gate failed; everything was made and sealed all the same." in failed.stderr
    again = train(tmp_path, "+evaluate.gates={perfect: {kind: at_most, suite: heldout, bound: 0.001, hard: true}}")
    assert again.returncode == 30  # also where the report is an old one
    soft = train(tmp_path, "+evaluate.gates={perfect: {kind: at_most, suite: heldout, bound: 0.001}}")
    assert soft.returncode == 0
    assert "gates: 1 FAIL" in soft.stdout

    left_open = train(tmp_path, better, "evaluate.limit=1")
    assert left_open.returncode == 31, left_open.stderr[-2000:]
    assert "learned: sft is better than base on bits per byte (heldout): " in left_open.stderr
    runs = sorted((tmp_path / "outputs" / "runs").iterdir())
    assert len(runs) == 5
    assert all((run / "report.html").exists() and (run / "report.json").exists() for run in runs)
