"""Killing `samples` and `verdicts` while they go from item to item and while they seal: the same bytes come out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation_jobs import ITEMS_AT_A_TIME, NUM_ITEMS, EvaluationWorkshop
from killed_stage import KilledStage, start_server

from pipeline.artifacts.durable import KILL_POINTS
from pipeline.stages.partial import PARTIAL

pytestmark = pytest.mark.integration
NUM_RANDOM_KILLS = 10
POINTS = [point for point in KILL_POINTS if point.startswith(("file.", "seal."))]  # these stages save no checkpoints
QUESTIONS = {"samples": NUM_ITEMS, "verdicts": 2 * NUM_ITEMS}  # a judge is shown every pair both ways round


@pytest.fixture(scope="module", params=["samples", "verdicts"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledStage]:
    stage = request.param
    workshop = EvaluationWorkshop(folder=tmp_path_factory.mktemp(stage)).make()
    with start_server("evaluation_fork_server.py", workshop.folder, stage) as server:
        yield KilledStage(
            workshop=workshop, server=server, stage=stage, sealed=[f"{stage}.jsonl"], timings=(), progress=PARTIAL,
            not_on_the_way=("seal.metrics",),
        )  # fmt: skip


def kept(work: Path) -> int | None:
    """How many items a killed run had kept; None where it had sealed its artifact already."""
    path = work / PARTIAL
    return None if not path.is_file() else path.read_bytes().count(b"\n")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(killed: KilledStage, point: str) -> None:
    killed.kill_at(point, 1)


def test_killed_between_items(killed: KilledStage) -> None:
    """What was finished is kept in whole batches, and the next attempt goes on behind it."""
    counts = {}
    for work in killed.kill_at_random(NUM_RANDOM_KILLS, seed=31):
        counts[work] = kept(work)
    under_way = {work: count for work, count in counts.items() if count and count < QUESTIONS[killed.stage]}
    assert len(under_way) > NUM_RANDOM_KILLS // 3, f"too few kills fell between two items: {sorted(counts.values())}"
    assert all(count % ITEMS_AT_A_TIME[killed.stage] == 0 for count in under_way.values())
    assert len(set(under_way.values())) > 1, "the kills did not fall at different moments"
    for work, count in under_way.items():
        names = [f"random-{trial}{'+' * more}" for trial in range(NUM_RANDOM_KILLS) for more in range(1, 9)]
        name = next(name for name in names if killed.work(name) == work)
        assert f"going on behind {count} items" in killed.server.log(name)


def test_the_comparison_sees_other_items(killed: KilledStage) -> None:
    """The control: no two items are alike, so that one item in another's place would be another file."""
    lines = (killed.reference.path / f"{killed.stage}.jsonl").read_text(encoding="utf-8").splitlines()
    said = {
        json.dumps({key: row[key] for key in row if key not in ("id", "cluster")}) for row in map(json.loads, lines)
    }
    assert len(lines) == QUESTIONS[killed.stage]
    assert len(said) > len(lines) // 2
