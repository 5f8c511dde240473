"""Killing the stage `ppo` at every named point of its save path and at random times: the policy is always the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ppo_jobs import STAGE, PPOWorkshop, make_workshop
from safetensors.numpy import load_file
from sft_jobs import metric_rows
from test_sft_kills import Server, finish, require_no_half_sealed, whole_rows

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.durable import KILL_POINTS

pytestmark = pytest.mark.integration
SERVER = Path(__file__).with_name("ppo_fork_server.py")
NOT_ON_THE_WAY = {"checkpoint.set_aside"}  # the same step is never saved twice
NUM_RANDOM_KILLS = 59  # none failing bounds the rate of failures below 5 % with 95 % confidence
TIMINGS = {"seconds_rollout", "seconds_scoring", "seconds_update", "memory_gb"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> PPOWorkshop:
    return make_workshop(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def server(workshop: PPOWorkshop) -> Iterator[Server]:
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
def reference(workshop: PPOWorkshop, server: Server) -> tuple[Artifact, float]:
    """What an attempt that nobody kills makes, and how long it takes from its first row of metrics on."""
    answer = server.attempt("reference", watch=work_of(workshop, "reference") / "metrics.jsonl")
    assert answer["status"] == 0, server.log("reference")
    artifact = workshop.store.current(STAGE, workshop.fingerprint("reference"))
    assert artifact is not None
    return artifact, answer["seconds"]


def work_of(workshop: PPOWorkshop, name: str) -> Path:
    return workshop.outputs / "work" / f"{STAGE}-{workshop.fingerprint(name)[:16]}"


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    rows = metric_rows(artifact.path / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def require_equal(workshop: PPOWorkshop, name: str, reference: Artifact) -> None:
    artifact = workshop.store.current(STAGE, workshop.fingerprint(name))
    assert artifact is not None
    for file in ("adapter/adapter_model.safetensors", "value/value.safetensors"):
        ours, wanted = (load_file(one.path / file) for one in (artifact, reference))
        assert ours.keys() == wanted.keys()
        assert all(np.array_equal(ours[key], wanted[key]) for key in wanted)
    assert artifact.manifest.parts == reference.manifest.parts
    assert rows_of(artifact) == rows_of(reference)
    assert not work_of(workshop, name).exists(), "work is left over"


@pytest.mark.parametrize("passage", [1, 2])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at_a_named_point(
    workshop: PPOWorkshop, server: Server, reference: tuple[Artifact, float], point: str, passage: int
) -> None:
    name = f"{point}-{passage}"
    answer = server.attempt(name, kill_at=f"{point}:{passage}")
    reached = answer["status"] == -signal.SIGKILL
    assert reached or answer["status"] == 0, server.log(name)
    assert reached or passage > 1 or point in NOT_ON_THE_WAY, f"{point} was not reached"
    require_no_half_sealed(workshop)
    finish(server, name)
    require_equal(workshop, name, reference[0])


def test_killed_at_random_times(workshop: PPOWorkshop, server: Server, reference: tuple[Artifact, float]) -> None:
    """Between the first row of metrics and the end of sealing, where there is something to lose."""
    generator = random.Random(21)
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
        if rows:
            lost.append(max(0, max(row["step"] for row in rows) - max(saved, default=0)))
        finish(server, name)
        require_equal(workshop, name, reference[0])
    assert len(lost) > NUM_RANDOM_KILLS // 2, "most kills fell after the end of training"
    assert max(lost) <= 2, "more is lost than lies between two checkpoints"
