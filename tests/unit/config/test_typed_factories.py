"""The generic registry: choices, files that are read by default, and that two registries share nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from pipeline.config.registry import Registry
from pipeline.errors import ConfigError

HERE = Path(__file__)


def registry_of_tools() -> Registry[Callable[[], str]]:
    registry: Registry[Callable[[], str]] = Registry("tool", "Tool", ())

    @registry.register("saw")
    def saw(*, teeth: Literal["fine", "coarse"] = "fine", manual: Path = HERE) -> Callable[[], str]:
        """Cuts."""
        return lambda: f"{teeth} {manual.name}"

    return registry


def test_a_choice_is_held_to_its_list():
    registry = registry_of_tools()
    assert registry.build("saw", {"teeth": "coarse"}, where="tools")() == f"coarse {HERE.name}"
    with pytest.raises(ConfigError, match=r"^tools: saw\.teeth must be one of fine, coarse, not 'blunt'\.$"):
        registry.build("saw", {"teeth": "blunt"}, where="tools")


def test_a_file_read_by_default_is_among_the_files_read(tmp_path):
    registry = registry_of_tools()
    assert registry.files_read("saw", {}, where="tools") == [HERE]
    mine = tmp_path / "manual.txt"
    mine.write_text("pull, do not push", encoding="utf-8")
    assert registry.files_read("saw", {"manual": str(mine)}, where="tools") == [mine]


def test_messages_speak_of_the_registrys_own_noun():
    with pytest.raises(ConfigError, match=r"^tools: there is no tool `saws`\. Did you mean `saw`\? Tools: saw\.$"):
        registry_of_tools().build("saws", {}, where="tools")


def test_two_registries_share_nothing():
    empty: Registry[Callable[[], str]] = Registry("tool", "Tool", ())
    assert registry_of_tools().registered() == {"saw": "Cuts."}
    assert empty.registered() == {}
