"""Rewards by name: numbers for completions. Every check is one too, 1 where it is followed and else 0.

A plugin registers its own as this package does::

    @register_reward("mentions")
    def mentions(*, word: str) -> Reward:
        "How often the completion names the word."
        return lambda completion, item: float(completion.count(word))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.checks.registry import CheckItem, Parts, build_check, registered_checks
from pipeline.checks.registry import files_read as files_of_check
from pipeline.checks.registry import is_from_plugin as check_is_from_plugin
from pipeline.checks.registry import plugin_digest as digest_of_check
from pipeline.checks.style import words
from pipeline.config.ppo import REWARD_MODEL
from pipeline.config.registry import Registry
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError

Reward = Callable[[str, CheckItem], float]  # (completion, item) -> score
Factory = TypeVar("Factory", bound=Callable[..., Reward])

_registry: Registry[Reward] = Registry("reward", "Reward", ("pipeline.checks.rewards", "pipeline.checks.utility"))


def register_reward(name: str) -> Callable[[Factory], Factory]:
    """Add a reward factory to the registry under a name that is still free, among checks too.

    Raises:
        ConfigError: The name is taken, or a parameter of the factory is positional or untyped.
    """
    return _registry.register(name)


@register_reward("word_count")
def word_count(*, target: int, tolerance: int = 0) -> Reward:
    """Minus the share of words that the completion is too long or too short by, beyond the tolerance; never below -1.

    Args:
        target: Words that a completion should have.
        tolerance: Words more or less that cost nothing.
    """
    if target < 1 or tolerance < 0:
        raise ConfigError(f"word_count: target={target} must be at least 1 and tolerance={tolerance} at least 0.")
    return lambda completion, item: -min(max(abs(len(words(completion)) - target) - tolerance, 0) / target, 1.0)


@register_reward("contains_share")
def contains_share(*, phrases: list[str]) -> Reward:
    """The share of the phrases that the completion contains, whatever their case."""
    if not phrases:
        raise ConfigError("contains_share.phrases must name at least one phrase.")
    folded = [phrase.casefold() for phrase in phrases]
    return lambda completion, item: sum(phrase in completion.casefold() for phrase in folded) / len(folded)


def registered_rewards() -> dict[str, str]:
    """Return every name that `rewards` may use, with the first line of its description."""
    learned = {REWARD_MODEL: "The learned reward model that `inputs` wires."}
    return dict(sorted({**registered_checks(), **_registry.registered(), **learned}.items()))


def build_reward(name: str, params: Mapping[str, Any], *, where: str) -> Reward:
    """Make a reward from its name and parameters; the learned reward model is not made here.

    Raises:
        ConfigError: The name or a parameter is unknown, missing or of the wrong type, or a file is not there.
    """
    if _is_check(name, where):
        check = build_check(name, params, where=where)
        return lambda completion, item: _followed(check(completion, item))
    return _registry.build(name, params, where=where)


def _followed(verdict: bool | Parts) -> float:
    """Return the share of what a check asks that is followed: more to learn from than all or nothing."""
    return sum(verdict.passed) / len(verdict.passed) if isinstance(verdict, Parts) else float(verdict)


def files_read(name: str, params: Mapping[str, Any], *, where: str) -> list[Path]:
    """Return the files that a reward reads: whoever caches what came of it must hash them."""
    if name == REWARD_MODEL:
        return []
    if _is_check(name, where):
        return files_of_check(name, params, where=where)
    return _registry.files_read(name, params, where=where)


def is_from_plugin(name: str, *, where: str) -> bool:
    """Whether a plugin registered the name, so that the plugin's content is part of every result."""
    if name == REWARD_MODEL:
        return False
    if _is_check(name, where):
        return check_is_from_plugin(name, where=where)
    return _registry.is_from_plugin(name, where=where)


def plugin_digest(name: str, *, where: str) -> str | None:
    """Return the beginning of the sha256 of the plugin that registered the name; None for a built-in one."""
    if _is_check(name, where):
        return digest_of_check(name, where=where)
    return _registry.plugin_digest(name, where=where)


def _is_check(name: str, where: str) -> bool:
    checks, rewards = registered_checks(), _registry.registered()
    if name in checks and name in rewards:
        raise ConfigError(f"{where}: `{name}` is registered as a check and as a reward. Rename yours.")
    if name not in checks and name not in rewards:
        known = list(registered_rewards())
        raise ConfigError(
            f"{where}: there is no reward `{name}`.{near_miss(name, known)} Rewards and checks: {', '.join(known)}."
        )
    return name in checks
