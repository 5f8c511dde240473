"""Hyperparameters of PPO, and the rewards that it and GRPO learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pipeline.config.fields import MISSING, option
from pipeline.config.shared import DType, LoRAConfig, ModelConfig, OptimizerConfig, Schedule

REWARD_MODEL = "reward_model"  # the name, among rewards, of the learned one that `inputs` wires


NO_DORA = "Several roles on one base are shown to be right for plain LoRA alone. Set `dora=false` where it begins."


class ValueModel(StrEnum):
    """What predicts the score to come."""

    adapter = "adapter"  # an adapter of its own on the shared backbone, and a head
    head = "head"  # a head on the policy's own hidden states: one forward and backward pass less


class ValueInit(StrEnum):
    """What the value model starts from."""

    zero = "zero"  # an adapter that changes nothing, a head that says 0
    reward_model = "reward_model"  # the reward model's adapter and head; needs the adapter's shape to be the same


class RolloutEngine(StrEnum):
    """What samples the completions."""

    hf = "hf"  # batches of similar length, finished rows leave the batch
    continuous = "continuous"  # continuous batching of transformers


@dataclass(kw_only=True)
class NamedReward:
    """One summand of a completion's score."""

    name: str = MISSING  # a registered reward, a registered check (1 where it is followed, else 0), or reward_model
    weight: float = 1.0
    params: dict[str, Any] = option(factory=dict)


@dataclass(kw_only=True)
class MonitorConfig:
    """Watches held-out prompts for what the rewards do not see."""

    every: int | None = option(5, ge=1)  # rollouts between two measurements; null never measures
    num_prompts: int = option(64, ge=2)  # validation prompts, the first by id hash
    completions_per_prompt: int = option(1, ge=1)  # more of them make up for few prompts
    # What the policy is really wanted to do, and is not trained on. Empty: the gold reward model, if one is wired.
    gold: list[NamedReward] = option(factory=list)
    # Gold may fall this much before it counts, in its own units: five completions in a hundred for a single check.
    margin: float = option(0.05, ge=0)
    confidence: float = option(0.95, gt=0.5, lt=1)  # of the interval that must lie below the margin
    stop: bool = True  # training ends when the gold falls while the score rises
    rollback: bool = True  # the policy is the measured one with the best gold inside the budget, else the last


@dataclass(kw_only=True)
class PPOConfig:
    """Proximal policy optimisation (arXiv:1707.06347) with a penalty for leaving the reference (arXiv:1909.08593)."""

    seed: int = option(17, ge=0)
    lora: LoRAConfig = option(factory=LoRAConfig)  # of a new adapter; a given policy keeps its own shape
    optimizer: OptimizerConfig = option(
        factory=lambda: OptimizerConfig(learning_rate=2e-5, schedule=Schedule.linear, warmup_fraction=0.0)
    )
    value_learning_rate: float = option(1e-4, gt=0)
    rewards: list[NamedReward] = option(factory=list)  # empty: the reward model alone
    allow_failed_reward: list[str] = option(factory=list)  # gates of the reward model that may have failed
    score_clip: float | None = option(10.0, gt=0)  # bounds the sum of the rewards on either side
    missing_eos_penalty: float = option(1.0, ge=0)  # taken off a completion that ran into max_new_tokens

    num_rollouts: int = option(60, ge=1)
    rollout_size: int = option(64, ge=2)  # completions per rollout
    ppo_epochs: int = option(2, ge=1)  # passes over a rollout
    minibatch_size: int = option(16, ge=1)  # completions per optimizer step
    microbatch_size: int = option(4, ge=1)  # completions per forward and backward pass
    activation_checkpointing: bool = False

    engine: RolloutEngine = RolloutEngine.hf
    max_prompt_length: int = option(512, ge=1)  # tokens; longer prompts are dropped and counted
    max_new_tokens: int = option(64, ge=1)
    temperature: float = option(1.0, gt=0)  # of sampling and of every probability that is compared
    generation_batch_size: int = option(64, ge=1)
    importance_cap: float | None = option(2.0, ge=1)  # corrects for an engine that is not quite the policy; null is off

    kl_coef: float = option(0.05, ge=0)  # score units per nat; as in summarize_from_feedback_details/ppo.py
    kl_target: float | None = option(None, gt=0)  # nats per completion; the coefficient then follows it
    kl_horizon: int = option(10_000, ge=1)  # episodes in which the coefficient follows
    kl_budget: float | None = option(None, gt=0)  # nats per completion; training ends beyond it
    discount: float = option(1.0, gt=0, le=1)
    gae_lambda: float = option(0.95, ge=0, le=1)
    whiten_advantages: bool = True
    clip_range: float = option(0.2, gt=0, lt=1)  # on the probability ratio; best in table 1 of arXiv:1707.06347
    clip_range_high: float | None = option(None, gt=0)  # above 1 alone (arXiv:2503.14476); null is clip_range
    dual_clip: float | None = option(None, gt=1)  # arXiv:1912.09729; null is off
    update_kl_target: float | None = option(0.1, gt=0)  # nats per token; a rollout's update ends beyond 1.5 times it

    value_model: ValueModel = ValueModel.head
    value_init: ValueInit = ValueInit.zero
    value_warmup: int = option(2, ge=0)  # rollouts of which only the value model learns
    value_clip_range: float | None = option(0.2, gt=0)  # in units of the score; null is off
    value_coef: float = option(0.1, gt=0)  # weight of the value loss where it shares the policy's states

    monitor: MonitorConfig = option(factory=MonitorConfig)
    max_nonfinite_steps: int = option(5, ge=1)  # skipped in a row before the run stops
    save_every: int = option(5, ge=1, affects_results=False)  # rollouts between checkpoints
    keep_checkpoints: int = option(2, ge=2, affects_results=False)


class SamplingLimits(Protocol):
    """What the sections of stages that sample have in common."""

    max_prompt_length: int
    max_new_tokens: int


def longest_prompt(section: SamplingLimits, context_length: int) -> int:
    """Return how many tokens a prompt may have for a completion to fit behind it."""
    return min(section.max_prompt_length, context_length - section.max_new_tokens)


def ppo_problems(ppo: PPOConfig, model: ModelConfig) -> Iterator[str]:
    """Yield what contradicts in the section, or what it asks of the model."""
    context = model.context_length
    if model.dtype is DType.float16:
        yield "model.dtype=float16: gradients would vanish in it, because ppo does not scale losses. Use bfloat16."
    for size, part in (("rollout_size", "minibatch_size"), ("minibatch_size", "microbatch_size")):
        whole, share = getattr(ppo, size), getattr(ppo, part)
        if whole % share:
            yield f"ppo.{size}={whole} is not a multiple of ppo.{part}={share}."
    if context is not None and ppo.max_new_tokens >= context:
        yield f"ppo.max_new_tokens={ppo.max_new_tokens} leaves no room for a prompt in model.context_length={context}."
    if ppo.kl_budget is not None and ppo.monitor.every is None:
        yield "ppo.kl_budget needs ppo.monitor.every: the measured policies are what it falls back to."
    if ppo.kl_target is not None and ppo.kl_coef == 0:
        yield f"ppo.kl_target={ppo.kl_target:g} multiplies ppo.kl_coef, which is 0 and would stay so. Set a small one."
    if ppo.lora.dropout:
        yield "ppo.lora.dropout: trained without dropout, so that what samples and what learns are the same policy."
    if ppo.lora.dora:
        yield f"ppo.lora.dora: {NO_DORA}"
    if ppo.value_warmup >= ppo.num_rollouts:
        yield f"ppo.value_warmup={ppo.value_warmup} leaves the policy none of ppo.num_rollouts={ppo.num_rollouts}."
