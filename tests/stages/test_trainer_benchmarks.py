"""The benchmarks of trainers compare losses on the same batches: equal to those of TRL, and a difference would show."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model

LIMIT = 1e-4  # of each step's loss, in float32


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Any:
    """Import the scripts as `scripts/benchmark.py` does, without public data."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    monkeypatch.delenv("PIPELINE_REAL_DATA", raising=False)
    return importlib.import_module


def losses(measured: Any, module: Any, model: Path, variant: str) -> Any:
    measured[variant] = [module.measure(variant, argparse.Namespace(model=model, rows=24, batch_size=8))]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # what TRL says of its own code
@pytest.mark.parametrize("name", ["dpo", "reward"])
def test_the_losses_of_every_step_are_trls_and_another_loss_is_seen(
    name: str, benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, model = benchmarks(f"benchmarks.{name}"), make_tiny_model(tmp_path / "model")
    measured: dict[str, Any] = {}
    for variant in module.SAME_BATCHES:
        losses(measured, module, model, variant)
    summary = module.summarise(measured)
    own, others = summary["losses"].values()
    assert len(own) == len(others) == 4, "eight pairs in steps of two"
    assert summary["max_loss_difference"] <= LIMIT
    assert summary["loss_moved_by"] > LIMIT, "losses that stand still would be equal whatever is wrong"

    prepare = module.prepare

    def turned_round(variant: str, options: argparse.Namespace) -> Any:
        """The control: in one pair of eight what was chosen is rejected, which the first step cannot show."""
        task = prepare(variant, options)
        first = replace(task.pairs[0], chosen=task.pairs[0].rejected, rejected=task.pairs[0].chosen)
        return replace(task, pairs=[first, *task.pairs[1:]])

    with monkeypatch.context() as patched:
        patched.setattr(module, "prepare", turned_round)
        losses(measured, module, model, module.SAME_BATCHES[0])
    wrong = module.summarise(measured)
    assert wrong["losses"][module.SAME_BATCHES[0]][0] == pytest.approx(own[0], abs=1e-5), "log 2 whatever is wrong"
    assert wrong["max_loss_difference"] > LIMIT


@pytest.mark.parametrize("variant", ["ours", "ours_value_adapter"])
def test_an_episode_of_ppo_is_measured_whole(
    variant: str, benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's side needs an installation of its own, and is measured with the real model alone."""
    module, model = benchmarks("benchmarks.ppo"), make_tiny_model(tmp_path / "model")
    monkeypatch.setattr(module, "NEW_TOKENS", 4)
    measured = module.measure(variant, argparse.Namespace(model=model, rows=16, batch_size=8))
    assert (measured.processed, measured.unit) == (16, "episodes")
    assert 0 < measured.notes["completion_tokens"] <= 4
    phases = [int(measured.notes[phase].rstrip("%")) for phase in ("rollout", "scoring", "update")]
    assert all(share > 0 for share in phases)
    assert sum(phases) == pytest.approx(100, abs=3), "all of an episode is one of these"
