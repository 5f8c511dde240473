"""Killing the stage `reward` at every named point of its save path and at random times: the same model comes out.

What is trained is an ensemble of two, so that a kill also falls between its members, and only the upper layer learns,
so that a resumed run has none of the states that the killed one had kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from killed_stage import KilledStage, start_server
from reward_jobs import make_workshop

from pipeline.artifacts.durable import KILL_POINTS

pytestmark = pytest.mark.integration
NUM_RANDOM_KILLS = 20
FILES = [f"members/{number}/{name}" for number in (0, 1) for name in ("adapter/adapter_model.safetensors",
                                                                      "head.safetensors")]  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledStage]:
    workshop = make_workshop(tmp_path_factory.mktemp("kills"))
    with start_server("reward_fork_server.py", workshop.outputs.parent) as server:
        yield KilledStage(
            workshop=workshop, server=server, stage="reward",
            sealed=[*FILES, "reward.json", "audit.json", "training.json"],
            timings={"tokens_per_second", "memory_gb"},
        )  # fmt: skip


@pytest.mark.parametrize("passage", [1, 3])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at_a_named_point(killed: KilledStage, point: str, passage: int) -> None:
    killed.kill_at(point, passage)


def test_killed_at_random_times(killed: KilledStage) -> None:
    """In either member's training, or in the audit."""
    trained = {len(list((work / "members").glob("*"))) for work in killed.kill_at_random(NUM_RANDOM_KILLS, seed=22)}
    assert {1, 2} <= trained, "the kills did not fall into both members"


def test_the_comparison_sees_another_model(killed: KilledStage) -> None:
    """The control: the two members differ in every file that is compared between runs."""
    for ours, others in zip(FILES[:2], FILES[2:], strict=True):
        assert (killed.reference.path / ours).read_bytes() != (killed.reference.path / others).read_bytes()
