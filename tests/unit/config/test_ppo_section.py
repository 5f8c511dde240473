"""Contradictions in the section `ppo`, each told before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.ppo import MonitorConfig, PPOConfig, ppo_problems
from pipeline.config.shared import DType, LoRAConfig, ModelConfig


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kl_coef": 0.0, "kl_target": 4.0}, "ppo.kl_target=4 multiplies ppo.kl_coef, which is 0"),
        ({"lora": LoRAConfig(dropout=0.1)}, "ppo.lora.dropout: trained without dropout"),
        ({"lora": LoRAConfig(dora=True)}, "ppo.lora.dora: Several roles on one base"),
        ({"kl_budget": 5.0, "monitor": MonitorConfig(every=None)}, "ppo.kl_budget needs ppo.monitor.every"),
        ({"value_warmup": 60}, "ppo.value_warmup=60 leaves the policy none"),
        ({"rollout_size": 24}, "ppo.rollout_size=24 is not a multiple of ppo.minibatch_size=16"),
        ({"minibatch_size": 32, "microbatch_size": 5}, "ppo.minibatch_size=32 is not a multiple"),
    ],
)
def test_a_contradiction_is_told_once(changes: dict[str, Any], told: str) -> None:
    [problem] = ppo_problems(PPOConfig(**changes), ModelConfig())
    assert problem.startswith(told)


def test_the_defaults_contradict_nothing_and_float16_does() -> None:
    assert list(ppo_problems(PPOConfig(kl_target=4.0), ModelConfig())) == []
    [problem] = ppo_problems(PPOConfig(), ModelConfig(dtype=DType.float16))
    assert problem.startswith("model.dtype=float16")
