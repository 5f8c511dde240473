"""What a course remembers over a restart, and what it measures beside the scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from enumerable import make_config, make_loop, make_problem, separate_models

from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.checks.registry import CheckItem
from pipeline.ppo.rollout import PromptItem
from pipeline.ppo.watch import Watchdog
from pipeline.stages.ppo_course import PPOCourse

CLIPPED = {"clip_fraction": 0.9}
HELD_OUT = [PromptItem(id=str(number), ids=[0, 2, 3, 1 + number], item=CheckItem(prompt=[])) for number in range(3)]


def course(folder: Path, held_out: list[PromptItem]) -> tuple[PPOCourse, list[str]]:
    """A course over the language of 216 sentences, and what it has said."""
    said: list[str] = []
    run: Any = SimpleNamespace(
        name="ppo", notice=said.append, alert=lambda title, text: said.append(text), written=lambda texts: None
    )
    job: Any = SimpleNamespace(run=run, work=SimpleNamespace(checkpoints=CheckpointFolder(folder)))
    loop = make_loop(separate_models(shares_trunk=True), make_config(rollout_size=8), make_problem())
    made = PPOCourse(
        job=job, loop=loop, held_out=held_out, gold=None, watchdog=Watchdog(warmup=0, in_fp32=True)
    )  # fmt: skip
    return made, said


def test_a_restart_remembers_streaks_warnings_skipped_steps_and_the_coefficient(tmp_path: Path) -> None:
    before, _ = course(tmp_path, [])
    rows = [{**CLIPPED, "skipped_steps": 1, "reward_spread": 0.2}] * 2
    told = [text.partition(":")[0] for number, row in enumerate(rows) for text in before.watchdog.warnings(row, number)]
    assert told == ["skipped"]
    before.loop.learner.skipped_in_a_row, before.loop.controller.coef, before.told_apart = 3, 0.123, [0.5, 0.25]
    before._save(2)
    after, said = course(tmp_path, [])
    checkpoint = after.job.work.checkpoints.newest(said.append)
    assert checkpoint is not None
    assert after._resume(checkpoint) == 2
    assert after.watchdog.streaks["clipping"] == 2
    assert after.watchdog.told == ["skipped"]
    assert after.watchdog.first_spread == 0.2
    assert (after.loop.learner.skipped_in_a_row, after.loop.controller.coef) == (3, 0.123)
    assert after.told_apart == [0.5, 0.25]
    [text] = after.watchdog.warnings({**CLIPPED, "skipped_steps": 1}, 2)
    assert text.startswith("clipping: "), "the third in a row, of which two were seen before; skipped is told already"
    fresh, _ = course(tmp_path / "other", [])
    assert fresh.watchdog.warnings(CLIPPED, 2) == []


def test_a_reference_that_moves_is_seen_at_the_next_measurement_and_one_that_stays_is_not(tmp_path: Path) -> None:
    made, _ = course(tmp_path, HELD_OUT)
    assert made._measure(0)["reference_drift"] == 0.0
    made.loop.iterate(0)
    row = made._measure(1)
    assert row["reference_drift"] == 0.0, "the policy has moved, the reference has not"
    assert row["monitor_kl"] != 0.0
    with torch.no_grad():
        next(iter(made.loop.models.reference_model.parameters())).mul_(1.001)  # type: ignore[attr-defined]
    assert 0.0 < made._measure(2)["reference_drift"] < 0.1


def test_distinct_pairs_are_recorded_as_a_share_of_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = course(tmp_path, HELD_OUT)
    shares = iter([0.8, 0.2])
    monkeypatch.setattr("pipeline.ppo.measuring.distinct_pairs", lambda completions: next(shares))
    assert made._measure(0)["monitor_distinct_2_share"] == 1.0
    row = made._measure(1)
    assert row["monitor_distinct_2_share"] == pytest.approx(0.25)
    assert [text.partition(":")[0] for text in made.watchdog.warnings(row, 1)] == ["degenerate_text"]
