"""The stage `ppo` with a reward model that was trained, sealed and audited before, on the tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reward_jobs
import torch
from peft import PeftModel
from ppo_jobs import PPOWorkshop, make_workshop, small_config
from safetensors.torch import load_file
from sft_jobs import metric_rows
from transformers import AutoModelForCausalLM

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.ppo import REWARD_MODEL, MonitorConfig, NamedReward, ValueInit, ValueModel
from pipeline.errors import ConfigError
from pipeline.models.reward import RewardScores
from pipeline.ppo.loop import Loop, Scores
from pipeline.ppo.rollout import Rollout
from pipeline.stages.ppo_course import PPOCourse
from pipeline.stages.rewards import make_scorer


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> PPOWorkshop:
    return make_workshop(tmp_path_factory.mktemp("ppo"))


@pytest.fixture(scope="module")
def reward_workshop(tmp_path_factory: pytest.TempPathFactory) -> reward_jobs.Workshop:
    return reward_jobs.make_workshop(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def trained(reward_workshop: reward_jobs.Workshop) -> tuple[StageOutcome, Any]:
    return reward_workshop.run(reward_jobs.small_config(), "reward")


def sealed(workshop: reward_jobs.Workshop, trained: tuple[StageOutcome, Any], name: str, outcome: str) -> Artifact:
    """Seal what was trained, with one gate of that outcome: what the audit of so small a model says is chance."""
    made, work = trained
    copy = workshop.work(name)
    shutil.copytree(work.staging, copy.staging, dirs_exist_ok=True)
    gate = {"name": "accuracy", "outcome": outcome, "reason": "said by the test"}
    return workshop.seal(copy, replace(made, gates=[gate]), name=name)


@pytest.fixture(scope="module")
def reward(reward_workshop: reward_jobs.Workshop, trained: tuple[StageOutcome, Any]) -> Artifact:
    return sealed(reward_workshop, trained, "passed", "PASS")


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> list[Rollout]:
    """Everything that the policy samples, training and measurements alike, in order."""
    seen: list[Rollout] = []
    sample = Loop.sample

    def note(self: Loop, *arguments: Any) -> Rollout:
        seen.append(sample(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(Loop, "sample", note)
    return seen


def scored_alone(workshop: PPOWorkshop, reward: Artifact, rollout: Rollout) -> list[float]:
    """Score with nothing but transformers, PEFT and the files of the artifact, one row at a time."""
    base = AutoModelForCausalLM.from_pretrained(workshop.base.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(reward.path / "adapter")).eval()
    head, facts = load_file(reward.path / "head.safetensors"), json.loads((reward.path / "reward.json").read_text())
    scores = []
    for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
        ids = [*prompt.ids, *completion.ids]
        ids = ids[:-1] if ids[-1] in facts["stop_ids"] else ids
        row = torch.tensor([[*ids, *facts["tail_ids"]]])
        with torch.no_grad():
            state = model(input_ids=row, output_hidden_states=True).hidden_states[-1][0, -1]
        raw = float(state @ head["weight"][0] + head["bias"][0])
        scores.append((raw - facts["means"][0]) / facts["stds"][0])
    return scores


def test_the_scores_are_the_reward_models_own_from_the_first_rollout_to_after_the_last(
    workshop: PPOWorkshop, reward: Artifact, rollouts: list[Rollout]
) -> None:
    config = small_config(rewards=[], missing_eos_penalty=0.0, score_clip=None, num_rollouts=4)
    artifact = workshop.train(config, "learned", reward_model=reward)
    rows = metric_rows(artifact.path / "metrics.jsonl")
    assert len(rollouts) == 4 + 3  # measured before training and at every second rollout
    first, last = scored_alone(workshop, reward, rollouts[1]), scored_alone(workshop, reward, rollouts[-1])
    assert rows[1]["score"] == rows[1]["reward_reward_model"] == pytest.approx(sum(first) / len(first), abs=1e-4)
    # The policy has moved by then; a reward model that had moved with it would say something else.
    assert rows[-1]["monitor_score"] == pytest.approx(sum(last) / len(last), abs=1e-4)
    assert rows[-1]["kl"] != 0.0
    assert sum(first) / len(first) != pytest.approx(sum(last) / len(last), abs=1e-3)


def test_a_learned_reward_and_a_rule_add_up_with_their_weights(workshop: PPOWorkshop, reward: Artifact) -> None:
    letters = NamedReward(name="contains_share", params={"phrases": list("abcdefghij")}, weight=-2.0)
    config = small_config(
        rewards=[NamedReward(name=REWARD_MODEL, weight=0.5), letters], missing_eos_penalty=0.0, num_rollouts=2
    )
    for row in metric_rows(workshop.train(config, "both", reward_model=reward).path / "metrics.jsonl")[1:]:
        expected = 0.5 * row["reward_reward_model"] - 2.0 * row["reward_contains_share"]
        assert row["score"] == pytest.approx(expected, abs=1e-5)


def test_a_failed_audit_stops_the_stage_unless_it_is_allowed_by_name(
    workshop: PPOWorkshop, reward_workshop: reward_jobs.Workshop, trained: tuple[StageOutcome, Any]
) -> None:
    failed = sealed(reward_workshop, trained, "failed", "FAIL")
    short = {"rewards": [], "num_rollouts": 2}
    with pytest.raises(ConfigError, match=r"gate accuracy is FAIL.*\n.*ppo\.allow_failed_reward=\[accuracy\]"):
        workshop.train(small_config(**short), "refused", reward_model=failed)
    with pytest.raises(ConfigError, match="gate accuracy is FAIL"):
        workshop.train(small_config(**short, allow_failed_reward=["length"]), "other", reward_model=failed)
    artifact = workshop.train(small_config(**short, allow_failed_reward=["accuracy"]), "allowed", reward_model=failed)
    assert artifact.manifest.metrics["rollouts"] == 2


def test_an_inconclusive_audit_is_told_and_the_policy_trains(
    workshop: PPOWorkshop,
    reward_workshop: reward_jobs.Workshop,
    trained: tuple[StageOutcome, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = sealed(reward_workshop, trained, "undecided", "INCONCLUSIVE")
    made = workshop.train(small_config(rewards=[], num_rollouts=2), "undecided", reward_model=artifact)
    assert made.manifest.metrics["rollouts"] == 2
    told = f"reward_model {artifact.id}: gate accuracy is INCONCLUSIVE: said by the test"
    assert told in capsys.readouterr().out
    passed = sealed(reward_workshop, trained, "certain", "PASS")
    workshop.train(small_config(rewards=[], num_rollouts=2), "certain", reward_model=passed)
    assert "gate accuracy" not in capsys.readouterr().out


def test_an_ensemble_scores_by_its_mean_and_its_spread_is_in_the_record(
    workshop: PPOWorkshop, reward_workshop: reward_jobs.Workshop, reward: Artifact
) -> None:
    made = reward_workshop.run(reward_jobs.small_config(num_members=2, num_epochs=1), "two")
    ensemble = sealed(reward_workshop, made, "ensemble", "PASS")
    config = small_config(rewards=[], missing_eos_penalty=0.0, score_clip=None, num_rollouts=2)
    rows = metric_rows(workshop.train(config, "ensemble", reward_model=ensemble).path / "metrics.jsonl")
    assert all(row["reward_spread"] > 0 for row in rows[1:])
    alone = metric_rows(workshop.train(config, "one", reward_model=reward).path / "metrics.jsonl")
    assert not any("reward_spread" in row for row in alone)


def test_mean_and_spread_of_two_members_by_hand() -> None:
    """Members say 1 and 3 of the first completion, 2 and 2 of the second."""
    rollout: Any = SimpleNamespace(prompts=[None, None])
    members = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    entries = [NamedReward(name=REWARD_MODEL, weight=0.5)]

    def score(members: torch.Tensor) -> Scores:
        return make_scorer(entries, learned=lambda given: RewardScores(members), where="", say=print)(rollout)

    scores = score(members)
    assert scores.total.tolist() == [1.0, 1.0]
    assert scores.spread is not None
    assert scores.spread.tolist() == [1.0, 0.0]
    alone = score(members[:1])
    assert (alone.total.tolist(), alone.spread) == ([0.5, 1.0], None)


def test_a_reward_model_that_no_reward_names_is_said_to_score_nothing_and_stops_nothing(
    workshop: PPOWorkshop,
    reward_workshop: reward_jobs.Workshop,
    trained: tuple[StageOutcome, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = sealed(reward_workshop, trained, "unread", "FAIL")
    artifact = workshop.train(small_config(num_rollouts=2), "unread", reward_model=failed)
    rows = metric_rows(artifact.path / "metrics.jsonl")
    assert "reward_reward_model" not in rows[1]
    assert f"the reward_model {failed.id} is wired and scores nothing" in capsys.readouterr().out


def test_another_reward_model_watches_without_being_learned_from(
    workshop: PPOWorkshop, reward: Artifact, rollouts: list[Rollout]
) -> None:
    """Rules are learned from, the reward model is the gold; measured and delivered is what it likes best."""
    config = small_config(monitor=MonitorConfig(every=2, num_prompts=4), num_rollouts=4)
    artifact = workshop.train(config, "watched", gold=reward)
    rows = metric_rows(artifact.path / "metrics.jsonl")
    assert "reward_reward_model" not in rows[1]
    measured = [rollout for rollout in rollouts if len(rollout.prompts) == 4]
    golds = [sum(scored_alone(workshop, reward, rollout)) / 4 for rollout in measured]
    assert [row["monitor_gold"] for row in rows if "monitor_gold" in row] == pytest.approx(golds, abs=1e-4)
    assert artifact.manifest.metrics["policy_step"] == (0, 2, 4)[golds.index(max(golds))]


@pytest.mark.parametrize("value_model", list(ValueModel))
def test_only_policy_and_values_learn_and_everything_else_ends_to_the_bit_as_it_began(
    workshop: PPOWorkshop, reward: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value_model: ValueModel
) -> None:
    """With an ensemble's worth of roles on the base: two reward models, trained with dropout."""
    folder = tmp_path / "reward"
    shutil.copytree(reward.path, folder)
    settings = folder / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "lora_dropout": 0.3}))
    dropped = replace(reward, path=folder)
    courses: list[PPOCourse] = []
    before: dict[str, torch.Tensor] = {}
    run = PPOCourse.run

    def watch(self: PPOCourse, *arguments: Any) -> None:
        courses.append(self)
        before.update({name: value.detach().clone() for name, value in model_of(self).named_parameters()})
        run(self, *arguments)

    monkeypatch.setattr(PPOCourse, "run", watch)
    config = small_config(rewards=[], value_model=value_model, num_rollouts=3)
    workshop.train(config, f"who learns {value_model}", reward_model=dropped, gold=dropped)
    [course] = courses
    parameters = dict(model_of(course).named_parameters())
    roles = {"default", "value"} if value_model is ValueModel.adapter else {"default"}
    learning = {name for name in parameters if "lora_" in name and roles & set(name.split("."))}
    assert {"reward_model_0", "gold_0"} < {part for name in parameters for part in name.split(".")}
    head = course.loop.models.value_head.parameters()
    held = {id(value) for group in course.loop.learner.optimizer.param_groups for value in group["params"]}
    assert held == {id(parameters[name]) for name in learning} | set(map(id, head))
    moved = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert moved == learning
    rates = {module.p for module in model_of(course).modules() if isinstance(module, torch.nn.Dropout)}
    assert rates <= {0.0}


def model_of(course: PPOCourse) -> PeftModel:
    model: PeftModel = course.loop.models.model  # type: ignore[attr-defined]
    return model


def test_a_run_with_a_learned_reward_that_died_goes_on_to_the_same_bytes(
    workshop: PPOWorkshop, reward: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, iterate = small_config(rewards=[], num_rollouts=3, save_every=1), Loop.iterate
    whole = workshop.train(config, "whole", reward_model=reward, gold=reward)

    def die(self: Loop, number: int) -> dict[str, float | int]:
        if number == 2:
            raise RuntimeError("died")
        return iterate(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "iterate", die)
        with pytest.raises(RuntimeError, match="died"):
            workshop.train(config, "in two", reward_model=reward, gold=reward)
    again = workshop.train(config, "in two", reward_model=reward, gold=reward)
    assert again.manifest.parts == whole.manifest.parts
    scores = [[row.get("score") for row in metric_rows(one.path / "metrics.jsonl")] for one in (again, whole)]
    assert scores[0] == scores[1]
    assert len(set(scores[0])) > 2, "rows that are all alike would show nothing"


def test_the_value_model_can_start_as_the_reward_model(workshop: PPOWorkshop, reward: Artifact) -> None:
    config = small_config(
        rewards=[], value_model=ValueModel.adapter, value_init=ValueInit.reward_model, value_learning_rate=1e-12,
        num_rollouts=2,
    )  # fmt: skip
    artifact = workshop.train(config, "values", reward_model=reward)
    values = load_file(artifact.path / "value" / "value.safetensors")
    adapter = load_file(reward.path / "adapter" / "adapter_model.safetensors")
    head, facts = load_file(reward.path / "head.safetensors"), json.loads((reward.path / "reward.json").read_text())
    for name, wanted in adapter.items():
        torch.testing.assert_close(values[name.replace(".weight", ".value.weight")], wanted, atol=1e-6, rtol=0)
    mean, std = facts["means"][0], facts["stds"][0]
    torch.testing.assert_close(values["value_head.linear.weight"], head["weight"] / std)
    torch.testing.assert_close(values["value_head.linear.bias"], (head["bias"] - mean) / std)
    with pytest.raises(ConfigError, match=r"ppo\.value_init=reward_model needs"):
        workshop.train(replace(config, value_model=ValueModel.head), "no adapter", reward_model=reward)
