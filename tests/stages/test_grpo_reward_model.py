"""The stage `grpo` with a reward model that was trained and sealed before, on the tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reward_jobs
from group_jobs import small_grpo
from pair_jobs import pair_job
from ppo_jobs import PPOWorkshop, make_workshop
from sft_jobs import metric_rows, tensors
from test_ppo_reward_model import scored_alone, sealed
from transformers import TrainerCallback

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.work import WorkFolder
from pipeline.config.grpo import GroupAlgorithm, GRPOConfig
from pipeline.errors import ConfigError
from pipeline.stages import grpo
from pipeline.stages.group_rollouts import GroupSampler

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> PPOWorkshop:
    return make_workshop(tmp_path_factory.mktemp("grpo"))


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The same reward model with a gate that passed and with one that failed."""
    shop = reward_jobs.make_workshop(tmp_path_factory.mktemp("reward"))
    trained = shop.run(reward_jobs.small_config(), "reward")
    return {outcome: sealed(shop, trained, outcome.lower(), outcome) for outcome in ("PASS", "FAIL")}


def run(workshop: PPOWorkshop, config: GRPOConfig, name: str, reward: Artifact) -> tuple[StageOutcome, WorkFolder]:
    inputs = {"policy": None, "reward_model": reward}
    with pair_job(workshop, "grpo", name=name, sections={GRPOConfig: config}, inputs=inputs) as job:
        return grpo.train_grpo(job), job.work


class Crash(Exception):
    """Stands for the end of the process."""


def test_scores_are_the_reward_models_own_also_after_a_crash(
    workshop: PPOWorkshop, rewards: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter lies on the backbone that is trained, and is neither trained nor saved nor lost."""
    config = small_grpo(rewards=[], algorithm=GroupAlgorithm.rloo, missing_eos_penalty=0.0, score_clip=None)
    seen: list[Any] = []
    sample, original = GroupSampler.sample, grpo.make_trainer

    def note(self: GroupSampler, *arguments: Any) -> Any:
        seen.append(sample(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(GroupSampler, "sample", note)
    whole, work = run(workshop, config, "whole", rewards["PASS"])
    rows = [row for row in metric_rows(work.metrics) if "score" in row]
    assert len(rows) == len(seen) == 6
    for number in (0, 5):
        alone = scored_alone(workshop, rewards["PASS"], seen[number])
        assert rows[number]["score"] == pytest.approx(float(np.mean(alone)), abs=1e-4)
        assert rows[number]["reward_reward_model"] == rows[number]["score"]
    assert rows[0]["score"] != pytest.approx(rows[5]["score"], abs=1e-4)

    class AtStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise Crash

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        trainer.add_callback(AtStep())
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(grpo, "make_trainer", make)
        with pytest.raises(Crash):
            run(workshop, config, "crash", rewards["PASS"])
    again, resumed = run(workshop, config, "crash", rewards["PASS"])
    assert again.parts == whole.parts
    ours, wanted = tensors(resumed.staging / "adapter"), tensors(work.staging / "adapter")
    assert all(np.array_equal(ours[key], wanted[key]) for key in wanted)


def test_a_reward_model_that_failed_its_audit_is_refused(workshop: PPOWorkshop, rewards: dict[str, Artifact]) -> None:
    with pytest.raises(ConfigError, match=r"grpo\.allow_failed_reward=\[accuracy\]"):
        run(workshop, small_grpo(rewards=[]), "refused", rewards["FAIL"])
