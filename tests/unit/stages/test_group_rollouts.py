"""Rollouts in groups: what is drawn, what it scores, and how a policy is measured on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from enumerable import PROMPT, make_model
from peft import LoraConfig, PeftModel, get_peft_model

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.grpo import GRPOConfig
from pipeline.models.generation import Completion
from pipeline.ppo.loop import Scores
from pipeline.ppo.rollout import PromptItem, Rollout
from pipeline.stages.group_rollouts import GroupSampler
from pipeline.stages.grpo import group_order, measure_policy

TEMPERATURE = 0.7
COMPLETIONS = [
    Completion(ids=[2, 3], text="", finish_reason="length"), Completion(ids=[4, 5, 1], text="", finish_reason="stop"),
    Completion(ids=[1], text="", finish_reason="stop"), Completion(ids=[3, 3, 2], text="", finish_reason="length"),
]  # fmt: skip
SCORES = torch.tensor([5.0, -5.0, 0.5, -0.5], dtype=torch.float64)


class Fixed:
    """Hands out the completions, and remembers what it was asked."""

    def sample(
        self, model: torch.nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        self.was_training, self.sampling, self.keys = model.training, sampling, list(keys)
        return COMPLETIONS


def score(rollout: Rollout) -> Scores:
    assert rollout.completions == COMPLETIONS
    return Scores(total=SCORES, by_name={"rule": 2 * SCORES})


def make(**changes: Any) -> tuple[GroupSampler, Fixed]:
    values = {"rollout_size": 4, "group_size": 2, "temperature": TEMPERATURE, "max_new_tokens": 3, "seed": 9, **changes}
    sampler: Any = Fixed()
    config, chat = GRPOConfig(**values), SimpleNamespace()
    return GroupSampler(config=config, chat=chat, prompts=[PROMPT] * 4, scorer=score, sampler=sampler), sampler  # type: ignore[arg-type]


def test_a_score_is_clipped_first_and_then_loses_the_penalty() -> None:
    rollouts, engine = make(score_clip=2.0, missing_eos_penalty=0.75)
    policy = torch.nn.Linear(1, 1).train()
    rollouts.sample(policy, ["0", "0", "1", "1"], 7)
    assert (engine.was_training, policy.training) == (False, True)
    assert engine.sampling == SamplingConfig(max_new_tokens=3, temperature=TEMPERATURE, top_p=1.0, top_k=0, seed=9)
    assert engine.keys == [f"rollout-7/{number}" for number in range(4)]
    scored = rollouts.reward([], [], [completion.ids for completion in COMPLETIONS])
    assert scored == pytest.approx([2.0 - 0.75, -2.0, 0.5, -0.5 - 0.75])
    rollout, measures = rollouts.take()
    assert rollout is not None
    assert {name: values.tolist() for name, values in measures.items()} == {
        "score": scored, "reward_rule": [10.0, -10.0, 1.0, -1.0], "completion_tokens": [2.0, 3.0, 1.0, 3.0],
        "finished_rate": [0.0, 1.0, 1.0, 0.0],
    }  # fmt: skip
    assert rollouts.take() == (None, {}), "a rollout is recorded once"
    free, _ = make(score_clip=None, missing_eos_penalty=0.0)
    free.sample(policy, ["0"], 0)
    assert free.reward([], [], [completion.ids for completion in COMPLETIONS]) == SCORES.tolist()


def test_every_group_of_a_pass_has_a_prompt_of_its_own() -> None:
    """Eight completions in groups of four are two prompts a rollout: three rollouts visit six."""
    prompts = [PromptItem(id=str(number), ids=[number], item=PROMPT.item) for number in range(6)]
    config = GRPOConfig(num_rollouts=3, rollout_size=8, group_size=4)
    order = group_order(prompts, config)
    assert sorted(prompt.id for prompt in order) == [str(number) for number in range(6)]
    assert [prompt.id for prompt in order] != [prompt.id for prompt in prompts], "in an order of its seed"
    assert len(group_order(prompts, GRPOConfig(num_rollouts=5, rollout_size=8, group_size=2))) == 20


def token_logprobs(model: torch.nn.Module, ids: Sequence[int]) -> float:
    """From the logits of one row, without padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[0, *ids]])).logits[0, :-1].double() / TEMPERATURE
    return sum(float(row.log_softmax(dim=0)[token]) for row, token in zip(logits, ids, strict=True))


def test_a_measurement_is_the_bare_score_and_the_divergence_at_the_temperature_of_sampling() -> None:
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=["q_proj", "up_proj"])
    torch.manual_seed(2)
    policy: PeftModel = get_peft_model(make_model().requires_grad_(False), lora).eval()
    rollouts, engine = make(score_clip=1.0, missing_eos_penalty=9.0)
    written: list[Any] = []
    alerts: list[tuple[str, str]] = []
    run: Any = SimpleNamespace(
        written=written.extend, alert=lambda *told: alerts.append(told), notice=lambda text: None, name="grpo"
    )
    found = measure_policy(policy, rollouts, [PROMPT] * 4, None, run)
    ours = [token_logprobs(policy, completion.ids) for completion in COMPLETIONS]
    with policy.disable_adapter():
        theirs = [token_logprobs(policy, completion.ids) for completion in COMPLETIONS]
    assert engine.keys == [f"held-out/{number}" for number in range(4)]
    assert found["kl"] == pytest.approx((sum(ours) - sum(theirs)) / 4, abs=1e-4)
    assert abs(found["kl"]) > 0.01, "else nothing is shown"
    assert (found["score"], found["loss"], found["reward_rule"]) == (0.0, -0.0, 0.0)
    assert (found["completion_tokens"], found["finished_rate"]) == (9 / 4, 0.5)
    assert [text["score"] for text in written] == SCORES.tolist()
    assert alerts == []
    rollouts.scorer = lambda rollout: Scores(total=torch.zeros(4), by_name={})
    measure_policy(policy, rollouts, [PROMPT] * 4, None, run)
    assert [title for title, _ in alerts] == ["grpo: rewards"]
    assert "the rewards hardly tell apart" in alerts[0][1]
