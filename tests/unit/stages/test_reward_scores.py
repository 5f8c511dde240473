"""What a scorer does with rewards that give no number, or no verdict in time."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.checks.registry import CheckItem
from pipeline.config.ppo import REWARD_MODEL, NamedReward
from pipeline.errors import DataError
from pipeline.models.generation import Completion
from pipeline.models.reward import RewardScores
from pipeline.ppo.loop import Scorer
from pipeline.ppo.rollout import PromptItem, Rollout
from pipeline.stages.rewards import Learned, make_scorer

SLOW = r"^(a|aa)+$"  # the number of ways to divide a run of the letter is exponential


def rollout(*texts: str) -> Rollout:
    return Rollout(
        prompts=[PromptItem(id=f"row-{n}", ids=[1], item=CheckItem(prompt=[])) for n in range(len(texts))],
        completions=[Completion(ids=[2], text=text, finish_reason="stop", logprobs=None) for text in texts],
    )


def scorer(*entries: NamedReward, learned: Learned | None = None, said: list[str] | None = None) -> Scorer:
    return make_scorer(entries, learned=learned, where="ppo.rewards", say=([] if said is None else said).append)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_learned_reward_that_is_not_finite_names_itself_and_the_completion(value: float) -> None:
    def learned(given: Rollout) -> RewardScores:
        return RewardScores(torch.tensor([[0.5, value, value]]))

    given = scorer(NamedReward(name=REWARD_MODEL), NamedReward(name="regex", params={"pattern": "a"}), learned=learned)
    told = rf"ppo\.rewards: the reward `reward_model` gave {value} to 2 of 3 .* prompt 'row-1': 'two'"
    with pytest.raises(DataError, match=told):
        given(rollout("one", "two", "three"))


def test_finite_rewards_add_up_with_their_weights() -> None:
    """The control for the test above."""
    parts = [NamedReward(name=REWARD_MODEL, weight=2.0), NamedReward(name="regex", params={"pattern": "o$"})]
    scores = scorer(*parts, learned=lambda given: RewardScores(torch.tensor([[0.5, -1.0]])))(rollout("one", "two"))
    assert scores.total.tolist() == [1.0, -1.0]
    assert scores.pattern_timeouts == 0


@pytest.mark.slow
def test_a_completion_on_which_a_pattern_takes_too_long_counts_as_not_following_it() -> None:
    said: list[str] = []
    hopeless = "a" * 40 + "!"
    given = scorer(NamedReward(name="regex", params={"pattern": SLOW}), said=said)
    scores = given(rollout("aaa", hopeless, "b", hopeless))
    assert scores.total.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert scores.pattern_timeouts == 2
    assert len(said) == 1
    assert said[0].startswith("ppo.rewards: the reward `regex` counts as not followed where its pattern takes too long")
    assert repr(SLOW) in said[0]
    assert given(rollout("aaa", "b")).pattern_timeouts == 0, "counted by rollout"
