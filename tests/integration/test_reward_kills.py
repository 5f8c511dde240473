"""Killing the stage `reward` at every named point of its save path and at random times: the same model comes out.

What is trained is an ensemble of two, so that a kill also falls between its members, and only the upper layer learns,
so that a resumed run has none of the states that the killed one had kept.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from reward_jobs import Workshop, make_workshop
from sft_jobs import metric_rows
from test_sft_kills import NOT_ON_THE_WAY, TIMINGS, Server, finish, require_no_half_sealed

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.durable import KILL_POINTS

pytestmark = pytest.mark.integration
SERVER = Path(__file__).with_name("reward_fork_server.py")
NUM_RANDOM_KILLS = 20
FILES = [f"members/{number}/{name}" for number in (0, 1) for name in ("adapter/adapter_model.safetensors",
                                                                      "head.safetensors")]  # fmt: skip
SEALED = [*FILES, "reward.json", "audit.json", "training.json"]


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
    answer = server.attempt("reference", watch=work_of(workshop, "reference") / "metrics.jsonl")
    assert answer["status"] == 0, server.log("reference")
    artifact = workshop.store.current("reward", workshop.fingerprint("reference"))
    assert artifact is not None
    return artifact, answer["seconds"]


def work_of(workshop: Workshop, name: str) -> Path:
    return workshop.outputs / "work" / f"reward-{workshop.fingerprint(name)[:16]}"


def require_equal(workshop: Workshop, name: str, reference: Artifact) -> None:
    artifact = workshop.store.current("reward", workshop.fingerprint(name))
    assert artifact is not None
    for file in SEALED:
        assert (artifact.path / file).read_bytes() == (reference.path / file).read_bytes(), file
    rows, expected = (
        [
            {key: value for key, value in row.items() if key not in TIMINGS}
            for row in metric_rows(one.path / "metrics.jsonl")
        ]
        for one in (artifact, reference)
    )
    assert rows == expected
    assert not work_of(workshop, name).exists(), "work is left over"


@pytest.mark.parametrize("passage", [1, 3])
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


def test_killed_at_random_times(workshop: Workshop, server: Server, reference: tuple[Artifact, float]) -> None:
    """Between the first row of metrics and the end of sealing: in either member's training, or in the audit."""
    generator = random.Random(22)
    trained = set()
    for trial in range(NUM_RANDOM_KILLS):
        name, status = f"random-{trial}", 0
        while status == 0:  # an attempt that ended before its time was up is made again, in a folder of its own
            name += "+"
            work, delay = work_of(workshop, name), generator.uniform(0, reference[1])
            status = server.attempt(name, kill_after=delay, watch=work / "metrics.jsonl")["status"]
        assert status == -signal.SIGKILL, server.log(name)
        require_no_half_sealed(workshop)
        trained.add(len(list((work / "members").glob("*"))))
        finish(server, name)
        require_equal(workshop, name, reference[0])
    assert {1, 2} <= trained, "the kills did not fall into both members"


def test_the_comparison_sees_another_model(workshop: Workshop, reference: tuple[Artifact, float]) -> None:
    """The control: the two members differ in every file that is compared between runs."""
    first, second = FILES[:2], FILES[2:]
    for ours, others in zip(first, second, strict=True):
        assert (reference[0].path / ours).read_bytes() != (reference[0].path / others).read_bytes()
