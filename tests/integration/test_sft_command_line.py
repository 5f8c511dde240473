"""One SIGTERM and one SIGKILL on the embedded model, through the command line that users type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sft_jobs import tensors

from pipeline.artifacts.base_model import embedded_file
from pipeline.errors import ModelError

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS, STOP_AT = 6, 3

try:
    embedded_file()
except ModelError as error:
    pytestmark = [pytest.mark.integration, pytest.mark.skip(reason=str(error))]
else:
    pytestmark = pytest.mark.integration


class Place:
    """A working directory with outputs of its own; the converted model and the rows are shared."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        folder.mkdir()

    def start(self) -> subprocess.Popen[str]:
        """Begin the run, or go on with it: the command is the same."""
        command = [
            sys.executable, "-m", "pipeline", "train", "+experiment=sft", "data=jsonl", "tracking=disabled",
            f"data.path={self.cache / 'rows.jsonl'}", "evaluate.suites=[heldout]",
            "evaluate.limit=2", f"sft.max_steps={NUM_STEPS}", "sft.batch_size=2", "sft.microbatch_size=1",
            "sft.validate_every=2", "sft.lora.dropout=0.1", "runtime.num_threads=1", f"runtime.cache={self.cache}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, text=True)

    @property
    def log(self) -> str:
        """Everything that was printed."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def last_step(self) -> int:
        """The newest step in the record of the half-finished stage."""
        records = list((self.folder / "outputs" / "work").glob("sft-*/metrics.jsonl"))
        lines = records[0].read_bytes().split(b"\n")[:-1] if records else []
        return max((json.loads(line)["step"] for line in lines), default=0)

    def adapter(self) -> Path:
        """The adapter of the sealed policy; there is one."""
        (policy,) = (path for path in (self.folder / "outputs/artifacts").glob("sft-*/") if path.is_dir())
        return policy / "adapter"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model, and rows that nobody edits while the test runs."""
    folder = tmp_path_factory.mktemp("cache")
    lines = (ROOT / "data/helpdesk/demonstrations.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Place:
    place = Place(tmp_path_factory.mktemp("reference") / "run", cache)
    assert place.start().wait(timeout=1800) == 0, place.log[-3000:]
    return place


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_run_that_was_stopped_ends_at_the_same_policy(
    uninterrupted: Place, cache: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    place = Place(tmp_path / "run", cache)
    process = place.start()
    while place.last_step() < STOP_AT:
        assert process.poll() is None, place.log[-3000:]
        time.sleep(0.05)
    process.send_signal(number)
    asked = time.perf_counter()
    assert process.wait(timeout=600) == status, place.log[-3000:]
    waited = time.perf_counter() - asked
    if number is signal.SIGTERM:
        assert "Stopped by SIGTERM after step" in place.log
        print(f"saved and ended {waited:.1f} s after the signal")
    assert not list((place.folder / "outputs/artifacts").glob("sft-*/"))
    assert place.start().wait(timeout=1800) == 0, place.log[-3000:]
    assert "going on from the checkpoint of step" in place.log
    ours, wanted = tensors(place.adapter()), tensors(uninterrupted.adapter())
    assert ours.keys() == wanted.keys()
    assert all(np.array_equal(ours[name], wanted[name]) for name in wanted)
    assert any(np.abs(wanted[name]).max() > 0 for name in wanted if "lora_B" in name), "nothing was trained"
