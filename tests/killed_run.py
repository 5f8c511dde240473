"""A run of the embedded model through the command line that users type, which a test stops and starts again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sft_jobs import tensors

ROOT = Path(__file__).resolve().parents[1]


def write_rows(folder: Path, number: int = 24) -> Path:
    """Write the first demonstrations of the help desk, which nobody edits while a test runs."""
    lines = (ROOT / "data/helpdesk/demonstrations.jsonl").read_text(encoding="utf-8").splitlines()[:number]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


class Place:
    """A working directory with outputs of its own; the converted model and the rows are shared."""

    def __init__(self, folder: Path, cache: Path, stage: str, overrides: Sequence[str]) -> None:
        """`stage` is the one that is killed, and whose policy counts."""
        self.folder, self.cache, self.stage, self.overrides = folder, cache, stage, list(overrides)
        folder.mkdir()

    def start(self) -> subprocess.Popen[str]:
        """Begin the run, or go on with it: the command is the same."""
        command = [
            sys.executable, "-m", "pipeline", "train", f"+experiment={self.stage}", "data=jsonl", "tracking=disabled",
            f"data.path={self.cache / 'rows.jsonl'}", "evaluate.suites=[heldout]", "evaluate.limit=2",
            "runtime.num_threads=1", f"runtime.cache={self.cache}", *self.overrides,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, text=True)

    @property
    def log(self) -> str:
        """Everything that was printed."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def finish(self) -> None:
        """Run to the end."""
        assert self.start().wait(timeout=1800) == 0, self.log[-3000:]

    def run_until(self, step: int) -> subprocess.Popen[str]:
        """Start, and return while the stage is at work on what follows a step of its record."""
        process = self.start()
        while self._last_step() < step:
            assert process.poll() is None, self.log[-3000:]
            time.sleep(0.05)
        return process

    def _last_step(self) -> int:
        """The newest step in the record of the half-finished stage; -1 before the first row."""
        records = list((self.folder / "outputs" / "work").glob(f"{self.stage}-*/metrics.jsonl"))
        lines = records[0].read_bytes().split(b"\n")[:-1] if records else []
        return max((json.loads(line)["step"] for line in lines), default=-1)

    @property
    def sealed(self) -> list[Path]:
        """The artifacts of the stage."""
        return [path for path in (self.folder / "outputs/artifacts").glob(f"{self.stage}-*/") if path.is_dir()]

    def require_same_policy(self, other: Place) -> None:
        """Compare the one adapter of each, bit by bit, and require that something was trained."""
        (own,), (others,) = self.sealed, other.sealed
        ours, wanted = tensors(own / "adapter"), tensors(others / "adapter")
        assert ours.keys() == wanted.keys()
        assert all(np.array_equal(ours[name], wanted[name]) for name in wanted)
        assert any(np.abs(wanted[name]).max() > 0 for name in wanted if "lora_B" in name), "nothing was trained"
