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

    def attempt(self, name: str, *, kill_at: str | None = None, kill_after: float | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"folder": str(self.folder), "name": name, "kill_at": kill_at, "kill_after": kill_after}
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
    """What an attempt that nobody kills makes, and how long it takes."""
    server.attempt("warm-up")
    answer = server.attempt("reference")
    assert answer["status"] == 0, server.log("reference")
    artifact = workshop.store.current("sft", workshop.fingerprint("reference"))
    assert artifact is not None
    return artifact, answer["seconds"]


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
    assert not list((workshop.outputs / "work").glob(f"sft-{workshop.fingerprint(name)[:16]}/")), "work is left over"


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
    generator = random.Random(20)
    killed, lost = 0, []
    for trial in range(NUM_RANDOM_KILLS):
        name = f"random-{trial}"
        while True:  # an attempt that ends before its time is up was not killed, and is made again
            answer = server.attempt(name, kill_after=generator.uniform(0.02, 0.98) * reference[1])
            if answer["status"] != 0:
                break
            name += "+"
        assert answer["status"] == -signal.SIGKILL, server.log(name)
        killed += 1
        require_no_half_sealed(workshop)
        work = workshop.outputs / "work" / f"sft-{workshop.fingerprint(name)[:16]}"
        if (work / "metrics.jsonl").is_file():
            done = max((row["step"] for row in whole_rows(work / "metrics.jsonl")), default=0)
            saved = max((int(path.name[5:]) for path in (work / "checkpoints").glob("step-*")), default=0)
            lost.append(max(0, done - saved))
        finish(server, name)
        require_equal(workshop, name, reference[0])
    with capsys.disabled():
        print(f"\n{killed} random kills, all went on to the same policy; optimizer steps lost: {sorted(lost)}")
    assert killed == NUM_RANDOM_KILLS
    assert max(lost) <= 2, "more is lost than lies between two checkpoints"
    assert len(set(lost)) > 1, "the kills did not fall at different moments"


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a record whose last line a kill may have cut."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def test_killed_again_and_again(workshop: Workshop, server: Server, reference: tuple[Artifact, float]) -> None:
    """One run that is killed at every third commit of a checkpoint until it is done."""
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
