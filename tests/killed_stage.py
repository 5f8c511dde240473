"""A stage that dies in processes of its own, at named points and at random, and must come out the same every time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sft_jobs import metric_rows

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.store import Store

SERVERS = Path(__file__).parent / "integration"


@dataclass
class Server:
    """A process that forks one child per attempt."""

    process: subprocess.Popen[str]
    folder: Path

    def attempt(
        self, name: str, *, kill_at: str | None = None, kill_after: float | None = None, watch: Path | None = None
    ) -> dict[str, Any]:
        """Let a child train, and return its status and how long it took from the watched file on."""
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
        """The end of what a child printed."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")[-3000:]


@contextmanager
def start_server(script: str, folder: Path, *words: str) -> Iterator[Server]:
    """Run a server of attempts, with further words of its command; `folder` holds the workshop."""
    process = subprocess.Popen(
        [sys.executable, str(SERVERS / script), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"ready": True}
    yield Server(process, folder)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=600)  # a process full of libraries may take long to end on a busy machine
    process.stdout.close()


class Workshop(Protocol):
    """What the jobs of every stage have in common."""

    outputs: Path

    @property
    def store(self) -> Store:
        """Where artifacts are sealed."""

    def fingerprint(self, name: str) -> str:
        """Of a run."""


@dataclass(kw_only=True)
class KilledStage:
    """Attempts of one stage beside an attempt that nobody kills."""

    workshop: Workshop
    server: Server
    stage: str
    sealed: Sequence[str]  # files of the artifact that must come out with the same bytes
    timings: Collection[str]  # metrics that differ between two runs
    not_on_the_way: Collection[str] = ("checkpoint.set_aside",)  # the same step is never saved twice
    progress: str = "metrics.jsonl"  # the file of the work folder that grows: random kills begin with its first line
    reference: Artifact = field(init=False)
    seconds: float = field(init=False)  # of the reference, from its first line of progress on

    def __post_init__(self) -> None:
        self.server.attempt("warm-up")
        answer = self.server.attempt("reference", watch=self.work("reference") / self.progress)
        assert answer["status"] == 0, self.server.log("reference")
        self.reference, self.seconds = self.artifact("reference"), answer["seconds"]

    def work(self, name: str) -> Path:
        """The work folder of a run."""
        return self.workshop.outputs / "work" / f"{self.stage}-{self.workshop.fingerprint(name)[:16]}"

    def artifact(self, name: str) -> Artifact:
        """What a run has sealed."""
        artifact = self.workshop.store.current(self.stage, self.workshop.fingerprint(name))
        assert artifact is not None
        return artifact

    def rows(self, artifact: Artifact) -> list[dict[str, Any]]:
        """The record of a run, without its timings; a stage that goes item by item keeps none."""
        path = artifact.path / "metrics.jsonl"
        rows = metric_rows(path) if self.progress == path.name else []
        return [{key: value for key, value in row.items() if key not in self.timings} for row in rows]

    def require_no_half_sealed(self) -> None:
        """Whatever has an artifact's name opens and verifies."""
        for folder in self.workshop.store.folders():
            assert Artifact.open(folder).problems() == []

    def require_equal(self, name: str) -> None:
        """What a run sealed, and its record, are those of a run that nobody killed."""
        artifact = self.artifact(name)
        for file in self.sealed:
            assert (artifact.path / file).read_bytes() == (self.reference.path / file).read_bytes(), file
        assert artifact.manifest.parts == self.reference.manifest.parts
        assert self.rows(artifact) == self.rows(self.reference)
        assert not self.work(name).exists(), "work is left over"

    def finish(self, name: str) -> None:
        """Run again until it ends by itself, as the same command would, and compare."""
        assert self.server.attempt(name)["status"] == 0, self.server.log(name)
        self.require_equal(name)

    def kill_at(self, point: str, passage: int) -> None:
        """Kill a run when it passes a point for the n-th time, and finish it."""
        name = f"{point}-{passage}"
        answer = self.server.attempt(name, kill_at=f"{point}:{passage}")
        reached = answer["status"] == -signal.SIGKILL
        assert reached or answer["status"] == 0, self.server.log(name)
        assert reached or passage > 1 or point in self.not_on_the_way, f"{point} was not reached"
        self.require_no_half_sealed()
        self.finish(name)

    def kill_at_random(self, number: int, seed: int) -> Iterator[Path]:
        """Kill runs between the first line of their progress and the end of sealing, where there is something to lose.

        Yields the work folder that each of them left behind, and finishes the run after that.
        """
        generator = random.Random(seed)
        for trial in range(number):
            name, status = f"random-{trial}", 0
            while status == 0:  # an attempt that ended before its time was up is made again, in a folder of its own
                name += "+"
                delay, watch = generator.uniform(0, self.seconds), self.work(name) / self.progress
                status = self.server.attempt(name, kill_after=delay, watch=watch)["status"]
            assert status == -signal.SIGKILL, self.server.log(name)
            self.require_no_half_sealed()
            yield self.work(name)
            self.finish(name)


def steps_lost(work: Path) -> int | None:
    """How many steps of the record a killed run had not saved; None where it had sealed its artifact already."""
    metrics = work / "metrics.jsonl"
    lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.is_file() else []  # a kill may have cut the last line
    saved = [int(path.name.removeprefix("step-")) for path in (work / "checkpoints").glob("step-*")]
    if not lines:
        return None
    return max(0, max(json.loads(line)["step"] for line in lines) - max(saved, default=0))
