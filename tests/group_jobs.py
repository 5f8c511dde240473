"""Jobs for the stage `grpo` on the tiny model and the prompts of `ppo_jobs`."""

from __future__ import annotations

from typing import Any

from pair_jobs import pair_job
from ppo_jobs import PPOWorkshop

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.work import WorkFolder
from pipeline.config.grpo import GRPOConfig
from pipeline.config.ppo import NamedReward
from pipeline.config.shared import LoRAConfig, OptimizerConfig
from pipeline.stages.grpo import train_grpo


def small_grpo(**changes: Any) -> GRPOConfig:
    """Six rollouts of eight completions in groups of four, measured and saved at every second one."""
    values: dict[str, Any] = {
        "seed": 5,
        "lora": LoRAConfig(rank=4, alpha=8.0),
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_fraction=0.0),
        # The share of a letter: every policy passes it a little, so that there is something to learn at once.
        "rewards": [NamedReward(name="contains_share", params={"phrases": list("abcdefghij")})],
        "num_rollouts": 6,
        "rollout_size": 8,
        "group_size": 4,
        "microbatch_size": 4,
        "max_new_tokens": 12,
        "validate_every": 2,
        "num_prompts": 4,
        "save_every": 2,
    }
    return GRPOConfig(**{**values, **changes})


def run_grpo(
    workshop: PPOWorkshop, config: GRPOConfig, name: str, *, policy: Artifact | None = None
) -> tuple[StageOutcome, WorkFolder]:
    """Train in a work folder of its own; return the outcome and the folder."""
    with pair_job(workshop, "grpo", name=name, sections={GRPOConfig: config}, inputs={"policy": policy}) as job:
        return train_grpo(job), job.work
