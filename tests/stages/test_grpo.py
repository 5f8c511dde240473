"""The stage `grpo` on a tiny model: what it samples and scores, resuming, its reference, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from group_jobs import run_grpo, small_grpo
from pair_jobs import seal
from ppo_jobs import PPOWorkshop, make_workshop
from sft_jobs import metric_rows, tensors
from transformers import TrainerCallback

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.work import WorkFolder
from pipeline.config.grpo import GroupAlgorithm, GRPOConfig, grpo_problems
from pipeline.config.ppo import NamedReward
from pipeline.config.shared import LoRAConfig
from pipeline.data.encode import Encoded
from pipeline.models.roles import enter_role, role_parameters
from pipeline.models.scoring import score
from pipeline.stages import grpo
from pipeline.stages.arguments import TRL_REFERENCE
from pipeline.stages.watchdogs import NUM_KEPT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]
ALGORITHMS = list(GroupAlgorithm)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> PPOWorkshop:
    return make_workshop(tmp_path_factory.mktemp("grpo"))


@pytest.fixture(scope="module", params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> GroupAlgorithm:
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(workshop: PPOWorkshop, algorithm: GroupAlgorithm) -> tuple[StageOutcome, WorkFolder]:
    return run_grpo(workshop, small_grpo(algorithm=algorithm), f"whole-{algorithm}")


def rows_of(work: WorkFolder) -> list[dict[str, Any]]:
    return metric_rows(work.metrics)


def test_every_rollout_is_one_step_and_has_a_row(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    outcome, work = uninterrupted
    rows = rows_of(work)
    assert [row["step"] for row in rows] == list(range(7))
    assert rows[0]["validation_kl"] == pytest.approx(0.0, abs=1e-4), "the policy starts as its reference"
    assert rows[1]["kl_per_token"] == pytest.approx(0.0, abs=1e-6)
    assert abs(rows[-1]["validation_kl"]) > 1e-3, "the policy moved"
    wanted = {"score", "reward_contains_share", "completion_tokens", "finished_rate", "entropy", "grad_norm",
              "groups_without_spread"}  # fmt: skip
    assert all(wanted <= row.keys() for row in rows[1:])
    # Score is the reward less 1 for each completion that did not end.
    assert all(
        row["score"] == pytest.approx(row["reward_contains_share"] - (1 - row["finished_rate"]), abs=1e-6)
        for row in rows[1:]
    )
    assert outcome.metrics["episodes"] == 48
    assert (outcome.metrics["policy_step"], outcome.metrics["skipped_steps"]) == (6, 0)
    training = json.loads((work.staging / "training.json").read_text())
    assert training["rows"]["train"]["given"] == 12
    assert [entry["step"] for entry in training["measures"]] == [0, 2, 4, 6]
    texts = metric_rows(work.written)
    assert [text["step"] for text in texts] == [step for step in (0, 2, 4, 6) for _ in range(NUM_KEPT)]
    scores = {step: [text["score"] for text in texts if text["step"] == step] for step in (0, 6)}
    assert all(0 <= score <= 1 for values in scores.values() for score in values), "shares, without a penalty"


class Crash(Exception):
    """Stands for the end of the process."""


def test_a_crash_changes_nothing(
    workshop: PPOWorkshop, algorithm: GroupAlgorithm, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    """Rollouts are drawn by their number, and each is one step, so that the bytes are the same."""
    name, original, config = f"crash-{algorithm}", grpo.make_trainer, small_grpo(algorithm=algorithm)

    class AtStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:
                raise Crash

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        trainer.add_callback(AtStep())
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "make_trainer", make)
        with pytest.raises(Crash):
            run_grpo(workshop, config, name)
    outcome, work = run_grpo(workshop, config, name)
    assert outcome.parts == uninterrupted[0].parts
    a, b = tensors(work.staging / "adapter"), tensors(uninterrupted[1].staging / "adapter")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)
    told = [[{k: v for k, v in row.items() if k not in {"tokens_per_second", "memory_gb"}} for row in rows_of(one)]
            for one in (work, uninterrupted[1])]  # fmt: skip
    assert told[0] == told[1]


def test_microbatches_change_nothing_but_rounding(
    workshop: PPOWorkshop, algorithm: GroupAlgorithm, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    _, work = run_grpo(workshop, small_grpo(algorithm=algorithm, microbatch_size=2), f"small-{algorithm}")
    for name in ("loss", "grad_norm"):
        own, whole = ([row[name] for row in rows_of(one) if name in row][:3] for one in (work, uninterrupted[1]))
        assert own == pytest.approx(whole, rel=5e-3, abs=1e-4)


def test_the_reference_is_the_incoming_policy_and_stays_as_it_was(
    workshop: PPOWorkshop, algorithm: GroupAlgorithm, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    name = f"first-{algorithm}"
    outcome, work = run_grpo(workshop, small_grpo(algorithm=algorithm), name)
    policy = seal(workshop, work, outcome, ArtifactKind.policy, "grpo", name)
    original, seen = grpo.make_trainer, {}

    def make(*args: Any, **kwargs: Any) -> Any:
        seen["trainer"] = original(*args, **kwargs)
        return seen["trainer"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "make_trainer", make)
        second, again = run_grpo(workshop, small_grpo(algorithm=algorithm), f"second-{algorithm}", policy=policy)
    rows = rows_of(again)
    assert rows[0]["validation_kl"] == pytest.approx(0.0, abs=1e-4)
    assert rows[1]["kl_per_token"] == pytest.approx(0.0, abs=1e-6)
    given = tensors(policy.path / "adapter")
    frozen = role_parameters(seen["trainer"].model, TRL_REFERENCE)
    assert len(frozen) == len(given)
    for name, parameter in frozen.items():
        assert not parameter.requires_grad
        saved = given[name.replace(f".{TRL_REFERENCE}.", ".")]
        assert torch.equal(parameter.detach(), torch.from_numpy(saved))
    assert second.parts != outcome.parts


def test_nothing_is_dropped_from_the_reference(
    workshop: PPOWorkshop, algorithm: GroupAlgorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that was trained with dropout names it in its adapter, from which the reference is loaded."""
    config = small_grpo(algorithm=algorithm, num_rollouts=1, lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.3))
    outcome, work = run_grpo(workshop, config, f"dropout-{algorithm}")
    policy = seal(workshop, work, outcome, ArtifactKind.policy, "grpo", f"dropout-{algorithm}")
    assert json.loads((policy.path / "adapter" / "adapter_config.json").read_text())["lora_dropout"] == 0.3
    _, whole = run_grpo(workshop, config, f"whole-reference-{algorithm}", policy=policy)
    assert rows_of(whole)[1]["kl_per_token"] == pytest.approx(0.0, abs=1e-5)
    monkeypatch.setattr(grpo, "switch_dropout_off", lambda model: None)
    _, dropped = run_grpo(workshop, config, f"dropped-reference-{algorithm}", policy=policy)
    assert abs(rows_of(dropped)[1]["kl_per_token"]) > 1e-4


def test_the_score_of_other_completions_is_refused() -> None:
    sampler = grpo.GroupSampler(config=small_grpo(), chat=None, prompts=[], scorer=None, sampler=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not those that were sampled"):
        sampler.reward(["0"], ["text"], [[1, 2]])


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_completions_that_score_better_become_likelier(
    workshop: PPOWorkshop, algorithm: GroupAlgorithm, weight: float
) -> None:
    """One rollout, and what it did to its own completions; with the sign of the reward flipped, the contrary."""
    seen, original = {}, grpo.make_trainer

    def make(*args: Any, **kwargs: Any) -> Any:
        seen["trainer"] = original(*args, **kwargs)
        return seen["trainer"]

    rewards = [NamedReward(name="contains_share", weight=weight, params={"phrases": list("abcdefghij")})]
    config = small_grpo(
        algorithm=algorithm, rewards=rewards, num_rollouts=1, kl_coef=0.0, missing_eos_penalty=0.0, validate_every=1,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "make_trainer", make)
        run_grpo(workshop, config, f"sign-{algorithm}-{weight}")
    trainer = seen["trainer"]
    rollout = trainer.rollouts._rollout
    rows = [
        Encoded(
            id="", input_ids=[*prompt.ids, *own.ids], completion_mask=[False] * len(prompt.ids) + [True] * len(own.ids)
        )
        for prompt, own in zip(rollout.prompts, rollout.completions, strict=True)
    ]
    after = torch.tensor([row.nats for row in score(trainer.model, rows, 8)])
    with enter_role(trainer.model, None) as base:
        before = torch.tensor([row.nats for row in score(base, rows, 8)])
    share = torch.tensor([sum(letter in own.text for letter in "abcdefghij") / 10 for own in rollout.completions])
    assert float(share.std()) > 0, "all completions score alike, so nothing is shown"
    centred = share.view(-1, 4) - share.view(-1, 4).mean(dim=1, keepdim=True)  # each group's mean
    assert weight * float((centred.flatten() * (after - before)).sum()) > 1e-4


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rollout_size": 10}, "grpo.rollout_size=10 is not a multiple of grpo.group_size=4."),
        ({"rollout_size": 8, "microbatch_size": 3}, "grpo.rollout_size=8 is not a multiple of grpo.microbatch_size=3."),
        ({"max_new_tokens": 64}, "grpo.max_new_tokens=64 leaves no room for a prompt in model.context_length=64."),
    ],
)
def test_contradictions_are_told(values: dict[str, Any], problem: str) -> None:
    assert problem in list(grpo_problems(small_grpo(**values), 64))
    assert list(grpo_problems(GRPOConfig(), 8192)) == []
