"""The closed registry of filters: what a filter is, how one is registered, and how a configuration builds one.

A filter is made by a factory with typed, keyword-only parameters. A plugin registers its own as this package does::

    @register_filter("mentions")
    def mentions(*, word: str) -> Filter:
        "The prompt contains the word."
        return lambda row: row if word in prompt_key(row.prompt) else Drop("unrelated", f"no {word!r} in the prompt")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.registry import Registry
from pipeline.data.rows import Reason, Row


@dataclass(frozen=True, slots=True)
class Drop:
    """A row is not kept. Rows are counted by reason; the detail is one clause for whoever looks at examples."""

    reason: Reason | str
    detail: str
    shown: Row | None = None  # what reports show in the row's place, where its text must not be repeated


Filter = Callable[[Row], Row | Drop]  # the same object where nothing changes
Factory = TypeVar("Factory", bound=Callable[..., Filter])

_registry: Registry[Filter] = Registry(
    "filter",
    "Filter",
    (
        "pipeline.data.filters.shape",
        "pipeline.data.filters.language",
        "pipeline.data.filters.phrases",
        "pipeline.data.filters.personal_data",
        "pipeline.data.filters.secrets",
        "pipeline.data.filters.markup",
        "pipeline.data.filters.characters",
    ),
)


def register_filter(name: str) -> Callable[[Factory], Factory]:
    """Add a filter factory to the registry under a name that is still free.

    Raises:
        ConfigError: The name is taken, or a parameter of the factory is positional or untyped.
    """
    return _registry.register(name)


def registered_filters() -> dict[str, str]:
    """Return every registered filter, in the order of names, with the first line of its docstring."""
    return _registry.registered()


def build_filter(name: str, params: Mapping[str, Any], *, where: str = "curate.filters") -> Filter:
    """Make a filter from its name and parameters.

    Args:
        name: A registered name.
        params: The factory's keyword parameters.
        where: The configuration key that asks for the filter; error messages begin with it.

    Raises:
        ConfigError: The name or a parameter is unknown, missing or of the wrong type, or a file is not there.
    """
    return _registry.build(name, params, where=where)


def is_from_plugin(name: str, *, where: str = "curate.filters") -> bool:
    """Whether a plugin registered the filter, so that the plugin's content is part of every result."""
    return _registry.is_from_plugin(name, where=where)


def files_read(name: str, params: Mapping[str, Any], *, where: str = "curate.filters") -> list[Path]:
    """Return the files that a filter reads: whoever caches what it let through must hash them."""
    return _registry.files_read(name, params, where=where)
