"""The closed registry of checks: what a check is, how one is registered, and how a configuration builds one.

A check is made by a factory with typed, keyword-only parameters. A plugin registers its own as this package does::

    @register_check("mentions")
    def mentions(*, word: str) -> Check:
        "The completion contains the word."
        return lambda completion, item: word in completion
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.paths import find_file
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError

BUILT_IN_MODULES = ("pipeline.checks.style", "pipeline.checks.answers", "pipeline.checks.facts")


@dataclass(frozen=True, slots=True)
class CheckItem:
    """What a completion answers: the chat messages before it, and the reference answer where there is one."""

    prompt: list[dict[str, str]]
    reference: str | None = None

    @property
    def user_text(self) -> str:
        """Everything that the user wrote, one message after the other."""
        return "\n".join(message["content"] for message in self.prompt if message["role"] == "user")


Check = Callable[[str, CheckItem], bool]  # (completion, item) -> whether the completion follows the rule
CheckFactory = Callable[..., Check]
Factory = TypeVar("Factory", bound=CheckFactory)

_factories: dict[str, CheckFactory] = {}


def register_check(name: str) -> Callable[[Factory], Factory]:
    """Add a check factory to the registry under a name that is still free.

    Raises:
        ConfigError: The name is taken, or a parameter of the factory is positional or untyped.
    """

    def register(factory: Factory) -> Factory:
        if factory.__module__ not in BUILT_IN_MODULES:
            _load_built_ins()  # so that a plugin that takes a built-in name is the one that is told so
        if name in _factories:
            raise ConfigError(
                f"{_origin(factory)}: the check name `{name}` is taken by {_origin(_factories[name])}. Choose another."
            )
        for parameter in inspect.signature(factory).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.annotation is parameter.empty:
                raise ConfigError(
                    f"{_origin(factory)}: the parameter `{parameter.name}` of the check `{name}` must be typed and "
                    f"keyword-only: write `def {factory.__name__}(*, {parameter.name}: ...) -> Check`."
                )
        _factories[name] = factory
        return factory

    return register


def registered_checks() -> dict[str, str]:
    """Return every registered check, in the order of names, with the first line of its docstring."""
    _load_built_ins()
    return {name: (inspect.getdoc(_factories[name]) or "").partition("\n")[0] for name in sorted(_factories)}


def build_check(name: str, params: Mapping[str, Any], *, where: str = "checks") -> Check:
    """Make a check from its name and parameters.

    Args:
        name: A registered name.
        params: The factory's keyword parameters.
        where: The configuration key that asks for the check; error messages begin with it.

    Raises:
        ConfigError: The name or a parameter is unknown, missing or of the wrong type, or a file is not there.
    """
    factory = _find(name, where)
    bound = _bind(name, factory, params, where)
    try:
        return factory(**bound)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def files_read(name: str, params: Mapping[str, Any], *, where: str = "checks") -> list[Path]:
    """Return the files that a check reads: whoever caches its verdicts must hash them."""
    bound = _bind(name, _find(name, where), params, where)
    return [value for value in bound.values() if isinstance(value, Path)]


def _load_built_ins() -> None:
    for module in BUILT_IN_MODULES:
        importlib.import_module(module)


def _find(name: str, where: str) -> CheckFactory:
    _load_built_ins()
    if name not in _factories:
        known = sorted(_factories)
        raise ConfigError(f"{where}: there is no check `{name}`.{near_miss(name, known)} Checks: {', '.join(known)}.")
    return _factories[name]


def _bind(name: str, factory: CheckFactory, params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check parameters against the factory's signature and turn paths into existing files."""
    signature = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory)
    for key in params:
        if key not in signature:
            names = ", ".join(signature) or "none"
            raise ConfigError(
                f"{where}: the check `{name}` has no parameter `{key}`.{near_miss(str(key), signature)} "
                f"It takes: {names}."
            )
    missing = [key for key, entry in signature.items() if entry.default is entry.empty and key not in params]
    if missing:
        raise ConfigError(f"{where}: the check `{name}` needs {', '.join(missing)}. Add it under `params`.")
    return {key: _convert(params[key], hints[key], f"{where}: {name}.{key}") for key in signature if key in params}


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return the value where it fits the type hint, a path as an existing file."""
    if hint is Path:
        return _existing_file(value, where)
    if not _fits(value, hint):
        wanted = hint.__name__ if isinstance(hint, type) else str(hint)
        raise ConfigError(f"{where} must be {wanted}, not {value!r}.")
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(entry, typing.get_args(hint)[0]) for entry in value)
    if hint in (int, float) and isinstance(value, bool):  # bool is an int to Python, but `limit: true` is a mistake
        return False
    return isinstance(value, (int, float) if hint is float else (origin or hint))


def _existing_file(value: Any, where: str) -> Path:
    """Return a path as the working directory sees it, else as the project does."""
    if not isinstance(value, str | Path):
        raise ConfigError(f"{where} must be a path, not {value!r}.")
    path = find_file(str(value)).resolve()
    if not path.is_file():
        raise ConfigError(f"{where}: no such file: {value}, neither in {Path.cwd()} nor at {path}.")
    return path


def _origin(factory: CheckFactory) -> str:
    code = getattr(factory, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{factory.__module__}.{factory.__qualname__}"
