"""What the stage `ppo` learns from, when rules and a plugin score what its policy writes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ppo_jobs import PPOWorkshop, make_workshop, small_config
from sft_jobs import metric_rows
from torch import nn

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.plugins import load_plugins
from pipeline.config.ppo import NamedReward
from pipeline.models.generation import Completion
from pipeline.ppo.rollout import PromptItem, Sampler
from pipeline.stages import ppo

TEXTS = ["The answer is 4.", '{"a": 4}', "4 and 5", "nothing"]  # written to prompts whose reference is 4
PLUGIN = '''"""A reward of a user."""
from pipeline.checks.registry import CheckItem
from pipeline.checks.rewards import Reward, register_reward


@register_reward("characters_of_this_test")
def characters(*, per: float) -> Reward:
    """Characters of the completion."""
    return lambda completion, item: len(completion) / per
'''


@dataclass(frozen=True)
class Written:
    """Draws tokens as ever and says that they spell the texts, one after the other."""

    engine: Sampler

    def sample(
        self, model: nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        """Sample, and put the texts in."""
        drawn = self.engine.sample(model, prompts, sampling, keys)
        return [replace(one, text=text) for one, text in zip(drawn, itertools.cycle(TEXTS), strict=False)]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> PPOWorkshop:
    return make_workshop(tmp_path_factory.mktemp("ppo"))


@pytest.mark.parametrize(
    ("name", "params", "values"),
    [
        ("regex", {"pattern": "^The"}, [1, 0, 0, 0]),
        ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, [0, 1, 0, 0]),
        ("numeric_answer", {}, [1, 1, 0, 0]),
        ("characters_of_this_test", {"per": 4.0}, [4.0, 2.0, 1.75, 1.75]),
    ],
)
def test_a_reward_by_name_scores_every_completion(
    workshop: PPOWorkshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    params: dict[str, Any],
    values: list[float],
) -> None:
    """Eight completions spell each text twice."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    load_plugins([str(tmp_path / "mine.py")])
    make = ppo.make_sampler
    monkeypatch.setattr(ppo, "make_sampler", lambda *arguments: Written(make(*arguments)))
    config = small_config(
        rewards=[NamedReward(name=name, params=params, weight=0.5)], num_rollouts=2, missing_eos_penalty=0.0
    )
    rows = metric_rows(workshop.train(config, name).path / "metrics.jsonl")
    assert [row[f"reward_{name}"] for row in rows[1:]] == pytest.approx([sum(values) / 4] * 2)
    assert [row["score"] for row in rows[1:]] == pytest.approx([sum(values) / 8] * 2)
    assert rows[2]["policy_grad_norm"] > 0, "and is learned from"
