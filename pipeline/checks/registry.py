"""The closed registry of checks: what a check is, how one is registered, and how a configuration builds one.

A check is made by a factory with typed, keyword-only parameters. A plugin registers its own as this package does::

    @register_check("mentions")
    def mentions(*, word: str) -> Check:
        "The completion contains the word."
        return lambda completion, item: word in completion
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.registry import Registry


@dataclass(frozen=True, slots=True)
class CheckItem:
    """What a completion answers: the chat messages before it, and the reference answer where there is one."""

    prompt: list[dict[str, str]]
    reference: str | None = None

    @property
    def user_text(self) -> str:
        """Everything that the user wrote, one message after the other."""
        return "\n".join(message["content"] for message in self.prompt if message["role"] == "user")


@dataclass(frozen=True, slots=True)
class Parts:
    """Verdicts of a check that asks several things of one item; it is true where all of them are."""

    passed: tuple[bool, ...]

    def __bool__(self) -> bool:
        return all(self.passed)


Check = Callable[[str, CheckItem], bool | Parts]  # (completion, item) -> whether the completion follows the rule
PartedCheck = Callable[[str, CheckItem], Parts]  # what a factory says it makes where there are parts to count
CheckFactory = Callable[..., Check]
Factory = TypeVar("Factory", bound=CheckFactory)

_registry: Registry[Check] = Registry(
    "check",
    "Check",
    tuple(
        f"pipeline.checks.{name}"
        for name in (
            *("answers", "documents", "facts", "instructions", "languages", "layout", "refusals", "style", "wording"),
        )
    ),
)


def register_check(name: str) -> Callable[[Factory], Factory]:
    """Add a check factory to the registry under a name that is still free.

    Raises:
        ConfigError: The name is taken, or a parameter of the factory is positional or untyped.
    """
    return _registry.register(name)


def registered_checks() -> dict[str, str]:
    """Return every registered check, in the order of names, with the first line of its docstring."""
    return _registry.registered()


def build_check(name: str, params: Mapping[str, Any], *, where: str = "checks") -> Check:
    """Make a check from its name and parameters.

    Args:
        name: A registered name.
        params: The factory's keyword parameters.
        where: The configuration key that asks for the check; error messages begin with it.

    Raises:
        ConfigError: The name or a parameter is unknown, missing or of the wrong type, or a file is not there.
    """
    return _registry.build(name, params, where=where)


def has_parts(name: str, *, where: str = "checks") -> bool:
    """Whether the factory of a check is annotated to make a `PartedCheck`, so that its parts are counted too."""
    return bool(_registry.product_of(name, where=where) == PartedCheck)


def is_from_plugin(name: str, *, where: str = "checks") -> bool:
    """Whether a plugin registered the check, so that the plugin's content is part of every verdict."""
    return _registry.is_from_plugin(name, where=where)


def plugin_digest(name: str, *, where: str = "checks") -> str | None:
    """Return the beginning of the sha256 of the plugin that registered the check; None for a built-in one."""
    return _registry.plugin_digest(name, where=where)


def files_read(name: str, params: Mapping[str, Any], *, where: str = "checks") -> list[Path]:
    """Return the files that a check reads: whoever caches its verdicts must hash them."""
    return _registry.files_read(name, params, where=where)
