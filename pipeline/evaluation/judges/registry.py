"""The closed registry of judge kinds: a factory with typed, keyword-only parameters makes each.

A plugin registers its own as this package does, with ``@register_judge("mine")`` above a function that returns a
:class:`Judge`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.config.judges import JudgeConfig
from pipeline.config.registry import Registry
from pipeline.evaluation.judges.protocol import Judge

Factory = TypeVar("Factory", bound=Callable[..., Judge])

BUILT_IN_KINDS = ("rule", "reward_model", "local", "http", "human", "panel")
_registry: Registry[Judge] = Registry(
    "judge kind", "Judge", tuple(f"pipeline.evaluation.judges.{kind}" for kind in BUILT_IN_KINDS)
)


def register_judge(kind: str) -> Callable[[Factory], Factory]:
    """Add a judge factory to the registry under a name that is still free.

    Raises:
        ConfigError: The name is taken, or a parameter of the factory is positional or untyped.
    """
    return _registry.register(kind)


def build_judge(config: JudgeConfig) -> Judge:
    """Make the judge that a configuration asks for. Nothing is loaded.

    Raises:
        ConfigError: The kind or a parameter is unknown, missing or of the wrong type, or a file is not there.
    """
    return _registry.build(config.kind, config.params, where=_where(config))


def files_read(config: JudgeConfig) -> list[Path]:
    """Return the files that a judge goes by: whoever caches its verdicts must hash them."""
    return _registry.files_read(config.kind, config.params, where=_where(config))


def is_from_plugin(config: JudgeConfig) -> bool:
    """Whether a plugin registered the judge's kind, so that the plugin's content is part of every verdict."""
    return _registry.is_from_plugin(config.kind, where=_where(config))


def _where(config: JudgeConfig) -> str:
    return f"judge `{config.name}`"
