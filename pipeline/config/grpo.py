"""Policy gradients without a value model: every completion is compared with others of the same prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.fields import option
from pipeline.config.ppo import NamedReward
from pipeline.config.shared import LoRAConfig, OptimizerConfig, Schedule
from pipeline.config.stages import TrainingConfig


class GroupAlgorithm(StrEnum):
    """How completions of one prompt are compared, and where the KL is paid."""

    grpo = "grpo"  # with the group's mean; the KL is a term of the loss (arXiv:2402.03300)
    rloo = "rloo"  # with the mean of the others; the KL is taken off the score, as in PPO (arXiv:2402.14740)


@dataclass(kw_only=True)
class GRPOConfig:
    """GRPO and RLOO: one optimizer step for each rollout, so that the policy that learns is the one that sampled."""

    seed: int = option(17, ge=0)
    lora: LoRAConfig = option(factory=LoRAConfig)  # of a new adapter; a given policy keeps its own shape
    optimizer: OptimizerConfig = option(
        factory=lambda: OptimizerConfig(learning_rate=2e-5, schedule=Schedule.linear, warmup_fraction=0.0)
    )
    algorithm: GroupAlgorithm = GroupAlgorithm.grpo
    rewards: list[NamedReward] = option(factory=list)  # empty: the reward model alone
    allow_failed_reward: list[str] = option(factory=list)  # gates of the reward model that may have failed
    score_clip: float | None = option(10.0, gt=0)  # bounds the sum of the rewards on either side
    missing_eos_penalty: float = option(1.0, ge=0)  # taken off a completion that ran into max_new_tokens

    num_rollouts: int = option(60, ge=1)  # optimizer steps
    rollout_size: int = option(64, ge=2)  # completions per rollout
    group_size: int = option(8, ge=2)  # completions of one prompt, which are compared
    microbatch_size: int = option(4, ge=1)  # completions per forward and backward pass
    activation_checkpointing: bool = False

    max_prompt_length: int = option(512, ge=1)  # tokens; longer prompts are dropped and counted
    max_new_tokens: int = option(64, ge=1)
    temperature: float = option(1.0, gt=0)  # of sampling and of every probability that is compared
    generation_batch_size: int = option(64, ge=1)

    # Of another quantity than `ppo.kl_coef` where the algorithm is grpo: see docs/grpo.md.
    kl_coef: float = option(0.05, ge=0)
    scale_scores: bool = True  # grpo: divide by the spread of the group; rloo: by that of the rollout, after centring

    validate_every: int = option(5, ge=1)  # rollouts between two measurements on held-out prompts
    num_prompts: int = option(32, ge=2)  # of these: validation prompts, the first by id hash
    max_nonfinite_steps: int = option(5, ge=1)  # skipped in a row before the run stops
    save_every: int = option(5, ge=1, affects_results=False)  # rollouts between checkpoints
    keep_checkpoints: int = option(2, ge=2, affects_results=False)


def training_config(grpo: GRPOConfig) -> TrainingConfig:
    """Return what the trainers of TRL share; a row is a completion, and every rollout is a batch."""
    return TrainingConfig(
        seed=grpo.seed,
        lora=grpo.lora,
        optimizer=grpo.optimizer,
        num_epochs=1,
        batch_size=grpo.rollout_size,
        microbatch_size=grpo.microbatch_size,
        group_by_length=False,
        activation_checkpointing=grpo.activation_checkpointing,
        validate_every=grpo.validate_every,
        save_every=grpo.save_every,
        keep_checkpoints=grpo.keep_checkpoints,
        keep_best=False,
        max_nonfinite_steps=grpo.max_nonfinite_steps,
    )


def grpo_problems(grpo: GRPOConfig, context: int | None) -> Iterator[str]:
    """Yield what contradicts in the section; ``context`` is the model's length where it is configured."""
    for part in ("group_size", "microbatch_size"):
        if grpo.rollout_size % getattr(grpo, part):
            yield f"grpo.rollout_size={grpo.rollout_size} is not a multiple of grpo.{part}={getattr(grpo, part)}."
    if context is not None and grpo.max_new_tokens >= context:
        length = f"model.context_length={context}"
        yield f"grpo.max_new_tokens={grpo.max_new_tokens} leaves no room for a prompt in {length}."
    if grpo.lora.dropout:
        yield "grpo.lora.dropout: trained without dropout, so that what samples and what learns are the same policy."
