"""Killing the stage `ppo` at every named point of its save path and at random times: the policy is always the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from killed_stage import KilledStage, start_server, steps_lost
from ppo_jobs import STAGE, make_workshop

from pipeline.artifacts.durable import KILL_POINTS

pytestmark = pytest.mark.integration
NUM_RANDOM_KILLS = 59  # none failing bounds the rate of failures below 5 % with 95 % confidence


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledStage]:
    workshop = make_workshop(tmp_path_factory.mktemp("kills"))
    with start_server("ppo_fork_server.py", workshop.outputs.parent) as server:
        yield KilledStage(
            workshop=workshop, server=server, stage=STAGE,
            sealed=["adapter/adapter_model.safetensors", "value/value.safetensors", "monitor.json"],
            timings={"seconds_rollout", "seconds_scoring", "seconds_update", "memory_gb"},
        )  # fmt: skip


@pytest.mark.parametrize("passage", [1, 2])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at_a_named_point(killed: KilledStage, point: str, passage: int) -> None:
    killed.kill_at(point, passage)


def test_killed_at_random_times(killed: KilledStage) -> None:
    found = [steps_lost(work) for work in killed.kill_at_random(NUM_RANDOM_KILLS, seed=21)]
    lost = [steps for steps in found if steps is not None]
    assert len(lost) > NUM_RANDOM_KILLS // 2, "most kills fell after the end of training"
    assert max(lost) <= 2, "more is lost than lies between two checkpoints"
