"""The experiments on public votes, on the tiny model: nobody scores what it has seen, and members score together."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reward_jobs
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from reward import annotators, cross_fitting, runs  # noqa: E402  (the path is set above)

from pipeline.config.root import Config  # noqa: E402
from pipeline.stages import reward as reward_stage  # noqa: E402
from pipeline.stages import reward_trainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> reward_jobs.Workshop:
    return reward_jobs.make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def config(workshop: reward_jobs.Workshop, tmp_path: Path) -> Config:
    composed = runs.compose([f"runtime.outputs={tmp_path}"])
    return replace(composed, model=workshop.model, reward=reward_jobs.small_config(num_members=2, max_steps=2))


def test_no_prompt_of_a_held_out_pair_is_learned_from_and_members_score_by_their_mean(
    workshop: reward_jobs.Workshop, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_fitting, "make_dataset", lambda *_: workshop.dataset)
    monkeypatch.setattr(cross_fitting, "compose", lambda changes: config)
    fit, score = reward_stage.fit_member, reward_trainer.pair_scores
    seen: list[tuple[int, set[str]]] = []
    finals: dict[int, torch.Tensor] = {}  # the last scores of each member

    def fit_and_note(job: Any, base: Any, rows: Any, settings: Any, number: int, lower: Any) -> Any:
        seen.append((number, {pair.cluster for pair in [*rows.train, *rows.validation]}))
        return fit(job, base, rows, settings, number, lower)

    def score_and_note(*arguments: Any) -> torch.Tensor:
        finals[len(seen) - 1] = score(*arguments)
        return finals[len(seen) - 1]

    monkeypatch.setattr(reward_stage, "fit_member", fit_and_note)
    monkeypatch.setattr(reward_trainer, "pair_scores", score_and_note)
    found = cross_fitting.run("hh", Path(), tmp_path, [1, 3], [], None)
    assert [number for number, _ in seen] == [0, 1, 0, 1]
    held_out = {fold: runs.held_out_pairs(workshop.dataset, fold, config) for fold in (1, 3)}
    assert found["pairs"] == sum(map(len, held_out.values())) == 20  # of 40 train and 10 validation pairs in five folds
    for fold, (_, clusters) in zip((1, 1, 3, 3), seen, strict=True):
        assert not clusters & {pair.cluster for pair in held_out[fold]}
        assert len(clusters) == 40, "the pairs of the four other folds, each of a prompt of its own"
    again, _ = runs.train_and_score(
        workshop.dataset, [0, 2, 3, 4], held_out[1], tmp_path / "hh", "fold-1", config, None
    )  # read, not trained again
    assert len(seen) == 4
    mean = (finals[0] + finals[1])[:, -len(again) :] / 2
    assert not torch.equal(finals[0], finals[1])
    assert [pair.chosen for pair in again] == mean[0].tolist()
    assert [pair.rejected for pair in again] == mean[1].tolist()


def test_dawid_skene_recovers_the_planted_annotators_and_the_share_of_votes_does_not() -> None:
    named = annotators.simulated(2299)
    planted = np.asarray(annotators.ACCURACIES)
    assert named.mean(axis=0) == pytest.approx(planted, abs=0.03)

    def accuracies(right: np.ndarray) -> np.ndarray:
        """How often each annotator is right, if the original label is right with that probability."""
        return np.asarray((right[:, None] * named + (1 - right[:, None]) * ~named).mean(axis=0))

    posterior = annotators.joined(named, annotators.DAWID_SKENE)
    share = annotators.joined(named, annotators.SHARE)
    assert accuracies(posterior) == pytest.approx(planted, abs=0.035)
    assert np.abs(accuracies(share) - planted).max() > 0.15
    # All original labels are right here: of those that it prefers, and in nats.
    assert (posterior > 0.5).mean() > (share > 0.5).mean() + 0.05
    assert -np.log(posterior).mean() < -np.log(np.maximum(share, 0.05)).mean()


def test_the_arms_differ_in_one_thing_at_a_time() -> None:
    (first, second), (third, fourth), (fifth, sixth) = annotators.ARMS.values()
    assert (second == fourth, first == third) == (True, False)
    assert (third == fifth, fourth == sixth) == (True, False)
    for method, use in annotators.ARMS.values():
        assert runs.compose([use]).reward.confidence.value == use.partition("=")[2]
        assert len(annotators.joined(annotators.simulated(50), method)) == 50
