"""Killing the stage `sft` at every named point of its save path and at random times: the policy is always the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from killed_stage import KilledStage, start_server, steps_lost
from sft_jobs import make_workshop, tensors

from pipeline.artifacts.durable import KILL_POINTS

pytestmark = pytest.mark.integration
NUM_RANDOM_KILLS = 59  # none failing bounds the rate of failures below 5 % with 95 % confidence


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledStage]:
    workshop = make_workshop(tmp_path_factory.mktemp("kills"))
    with start_server("sft_fork_server.py", workshop.outputs.parent) as server:
        yield KilledStage(
            workshop=workshop, server=server, stage="sft", sealed=["adapter/adapter_model.safetensors"],
            timings={"tokens_per_second", "memory_gb"},
        )  # fmt: skip


@pytest.mark.parametrize("passage", [1, 2, 3])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at_a_named_point(killed: KilledStage, point: str, passage: int) -> None:
    killed.kill_at(point, passage)


def test_killed_at_random_times(killed: KilledStage, capsys: pytest.CaptureFixture[str]) -> None:
    found = [steps_lost(work) for work in killed.kill_at_random(NUM_RANDOM_KILLS, seed=20)]
    lost = [steps for steps in found if steps is not None]
    with capsys.disabled():
        print(f"\n{NUM_RANDOM_KILLS} random kills, every run went on to the same policy")
        print(f"optimizer steps that were made again, for the {len(lost)} killed while training: {sorted(lost)}")
    assert len(lost) > NUM_RANDOM_KILLS // 2, "most kills fell after the end of training"
    assert max(lost) <= 2, "more is lost than lies between two checkpoints"
    assert len(set(lost)) > 1, "the kills did not fall at different moments"


def test_killed_again_and_again(killed: KilledStage) -> None:
    """One run that is killed three times, each time right after it has saved a checkpoint."""
    for _ in range(3):
        assert killed.server.attempt("stubborn", kill_at="checkpoint.committed:1")["status"] == -signal.SIGKILL
    killed.finish("stubborn")


def test_the_comparison_sees_another_policy(killed: KilledStage) -> None:
    """The control: had a resumed run begun anew with another order of rows, this would fail."""
    trained = tensors(killed.reference.path / "adapter")
    changed = {key: value + np.float32(1e-7) for key, value in trained.items()}
    assert not all(np.array_equal(changed[key], value) for key, value in trained.items())
