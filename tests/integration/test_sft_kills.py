"""Killing the stage `sft` at every named point of its save path and at random times: the policy is always the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sft_jobs import Workshop, make_workshop, metric_rows, tensors

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.durable import KILL_POINTS

pytestmark = pytest.mark.integration
SERVER = Path(__file__).with_name("sft_fork_server.py")
# The same step is never saved twice unless a checkpoint was found damaged after its successor was written.
NOT_ON_THE_WAY = {"checkpoint.set_aside"}
NUM_RANDOM_KILLS = 59  # none failing bounds the rate of failures below 5 % with 95 % confidence
TIMINGS = {"tokens_per_second", "memory_gb"}


@dataclass
class Server:
    """A process that forks one child per attempt."""

    process: subprocess.Popen[str]
    folder: Path

    def attempt(
        self,
        name: str,
        *,
        kill_at: str | None = None,
        kill_after: float | None = None,
        watch: Path | None = None,
    ) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"folder": str(self.folder), "name": name, "kill_at": kill_at, "kill_after": kill_after}
        if watch is not None:
            request["watch"] = str(watch)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")[-3000:]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def server(workshop: Workshop) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"ready": True}
    yield Server(process, workshop.outputs.parent)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


@pytest.fixture(scope="module")
def reference(workshop: Workshop, server: Server) -> tuple[Artifact, float]:
    """What an attempt that nobody kills makes, and how long it takes from its first row of metrics on."""
    server.attempt("warm-up")
    answer = server.attempt("reference", watch=work_of(workshop, "reference") / "metrics.jsonl")
    assert answer["status"] == 0, server.log("reference")
    artifact = workshop.store.current("sft", workshop.fingerprint("reference"))
    assert artifact is not None
    return artifact, answer["seconds"]


def work_of(workshop: Workshop, name: str) -> Path:
    """The work folder of a run."""
    return workshop.outputs / "work" / f"sft-{workshop.fingerprint(name)[:16]}"


def require_no_half_sealed(workshop: Workshop) -> None:
    """Whatever has an artifact's name opens and verifies."""
    for folder in workshop.store.folders():
        assert Artifact.open(folder).problems() == []


def require_equal(workshop: Workshop, name: str, reference: Artifact) -> None:
    """The sealed policy and its record are those of a run that nobody killed."""
    artifact = workshop.store.current("sft", workshop.fingerprint(name))
    assert artifact is not None
    ours, wanted = tensors(artifact.path / "adapter"), tensors(reference.path / "adapter")
    assert ours.keys() == wanted.keys()
    assert all(np.array_equal(ours[key], wanted[key]) for key in wanted)
    assert artifact.manifest.parts == reference.manifest.parts
    rows, expected = (
        [
            {key: value for key, value in row.items() if key not in TIMINGS}
            for row in metric_rows(one.path / "metrics.jsonl")
        ]
        for one in (artifact, reference)
    )
    assert rows == expected
    assert not work_of(workshop, name).exists(), "work is left over"


def finish(server: Server, name: str, attempts: int = 1) -> None:
    """Run again until it ends by itself, as the same command would."""
    for _ in range(attempts):
        answer = server.attempt(name)
    assert answer["status"] == 0, server.log(name)


@pytest.mark.parametrize("passage", [1, 2, 3])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at_a_named_point(
    workshop: Workshop, server: Server, reference: tuple[Artifact, float], point: str, passage: int
) -> None:
    name = f"{point}-{passage}"
    answer = server.attempt(name, kill_at=f"{point}:{passage}")
    reached = answer["status"] == -signal.SIGKILL
    assert reached or answer["status"] == 0, server.log(name)
    assert reached or passage > 1 or point in NOT_ON_THE_WAY, f"{point} was not reached"
    require_no_half_sealed(workshop)
    finish(server, name)
    require_equal(workshop, name, reference[0])


def test_killed_at_random_times(
    workshop: Workshop, server: Server, reference: tuple[Artifact, float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the first row of metrics and the end of sealing, where there is something to lose."""
    generator = random.Random(20)
    lost = []
    for trial in range(NUM_RANDOM_KILLS):
        name, status = f"random-{trial}", 0
        while status == 0:  # an attempt that ended before its time was up is made again, in a folder of its own
            name += "+"
            work, delay = work_of(workshop, name), generator.uniform(0, reference[1])
            status = server.attempt(name, kill_after=delay, watch=work / "metrics.jsonl")["status"]
        assert status == -signal.SIGKILL, server.log(name)
        require_no_half_sealed(workshop)
        rows = whole_rows(work / "metrics.jsonl") if (work / "metrics.jsonl").is_file() else []
        saved = [int(path.name.removeprefix("step-")) for path in (work / "checkpoints").glob("step-*")]
        if rows:  # else the artifact is sealed already
            lost.append(max(0, max(row["step"] for row in rows) - max(saved, default=0)))
        finish(server, name)
        require_equal(workshop, name, reference[0])
    with capsys.disabled():
        print(f"\n{NUM_RANDOM_KILLS} random kills, every run went on to the same policy")
        print(f"optimizer steps that were made again, for the {len(lost)} killed while training: {sorted(lost)}")
    assert len(lost) > NUM_RANDOM_KILLS // 2, "most kills fell after the end of training"
    assert max(lost) <= 2, "more is lost than lies between two checkpoints"
    assert len(set(lost)) > 1, "the kills did not fall at different moments"


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a record whose last line a kill may have cut."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def test_killed_again_and_again(workshop: Workshop, server: Server, reference: tuple[Artifact, float]) -> None:
    """One run that is killed three times, each time right after it has saved a checkpoint."""
    for _ in range(3):
        assert server.attempt("stubborn", kill_at="checkpoint.committed:1")["status"] == -signal.SIGKILL
    finish(server, "stubborn")
    require_equal(workshop, "stubborn", reference[0])


def test_the_comparison_sees_another_policy(
    workshop: Workshop, server: Server, reference: tuple[Artifact, float]
) -> None:
    """The control: had a resumed run begun anew with another order of rows, this would fail."""
    changed = {key: value + np.float32(1e-7) for key, value in tensors(reference[0].path / "adapter").items()}
    assert not all(np.array_equal(changed[key], value) for key, value in tensors(reference[0].path / "adapter").items())
