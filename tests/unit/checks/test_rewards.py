"""Rewards by name: checks are rewards, and everything wrong with one is told with its key."""

from __future__ import annotations

import pytest

from pipeline.checks.registry import CheckItem
from pipeline.checks.rewards import build_reward, registered_rewards
from pipeline.errors import ConfigError

ITEM = CheckItem(prompt=[{"role": "user", "content": "How much is 6 * 7?"}], reference="#### 42")


def test_a_check_is_a_reward_of_zero_or_one() -> None:
    reward = build_reward("numeric_answer", {}, where="ppo.rewards[0]")
    assert (reward("It is 42.", ITEM), reward("It is 43.", ITEM)) == (1.0, 0.0)


def test_word_count_worked_by_hand() -> None:
    """Four words wanted, one more or less is free: five cost nothing, eight are three too many of four."""
    reward = build_reward("word_count", {"target": 4, "tolerance": 1}, where="ppo.rewards[0]")
    assert reward("one two three four five", ITEM) == 0.0
    assert reward("one two three four five six seven eight", ITEM) == -0.75
    assert reward("one " * 50, ITEM) == -1.0


def test_contains_share() -> None:
    reward = build_reward("contains_share", {"phrases": ["link", "Card"]}, where="ppo.rewards[0]")
    assert [reward(text, ITEM) for text in ("", "the LINK", "link and card")] == [0.0, 0.5, 1.0]


def test_names_and_parameters_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"ppo\.rewards\[1\]: there is no reward `numeric_anwser`.*numeric_answer"):
        build_reward("numeric_anwser", {}, where="ppo.rewards[1]")
    with pytest.raises(ConfigError, match=r"ppo\.rewards\[0\].*no parameter `size`"):
        build_reward("word_count", {"target": 1, "size": 2}, where="ppo.rewards[0]")
    with pytest.raises(ConfigError, match="at least 1"):
        build_reward("word_count", {"target": 0}, where="ppo.rewards[0]")
    assert {"reward_model", "word_count", "numeric_answer", "regex"} <= set(registered_rewards())
