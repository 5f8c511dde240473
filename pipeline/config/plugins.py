"""The user's own checks, filters and importers: Python files named under ``plugins``, imported by path."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from typing import Any

from pipeline.config.paths import find_file
from pipeline.errors import ConfigError

PREFIX = "pipeline_plugin_"  # of the module name that a plugin's file gets


def is_from_plugin(value: Any) -> bool:
    """Whether a function was defined by a plugin."""
    return str(getattr(value, "__module__", "")).startswith(PREFIX)


def plugin_digest(value: Any) -> str | None:
    """Return the beginning of the sha256 of the plugin that defined a function; None where none did."""
    return str(value.__module__).removeprefix(PREFIX) if is_from_plugin(value) else None


def loaded_plugins() -> tuple[str, ...]:
    """Return the files of the plugins that this process has imported, for processes that it starts."""
    return tuple(
        str(module.__file__) for name, module in sys.modules.items() if name.startswith(PREFIX) and module.__file__
    )


def load_plugins(files: list[str]) -> dict[str, str]:
    """Import each file, so that what it registers can be named, and return its path with the sha256 of its bytes.

    A file runs as it is: name only files that you would run yourself.

    Raises:
        ConfigError: a file is missing, or importing it fails; the message names the file and the reason.
    """
    hashes: dict[str, str] = {}
    for name in files:
        path = find_file(name)
        if not path.is_file():
            continue  # told by the check of the configuration, together with what else is wrong
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        module = f"{PREFIX}{digest[:16]}"
        hashes[str(name)] = digest
        if module in sys.modules:
            continue
        specification = importlib.util.spec_from_file_location(module, path)
        if specification is None or specification.loader is None:
            raise ConfigError(f"plugins: {name} is not a Python file.")
        loaded = importlib.util.module_from_spec(specification)
        sys.modules[module] = loaded
        try:
            specification.loader.exec_module(loaded)
        except Exception as error:
            del sys.modules[module]
            raise ConfigError(f"plugins: importing {name} failed: {type(error).__name__}: {error}") from error
    return hashes
