"""Closed registries: what configuration may ask for by name, each made by a factory with typed parameters."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.config.paths import find_file
from pipeline.config.plugins import is_from_plugin, plugin_digest
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError

Product = TypeVar("Product")
Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry(Generic[Product]):
    """Factories by name. Their parameters are keyword-only and typed, so that configuration can be checked first."""

    def __init__(self, noun: str, product: str, built_in_modules: tuple[str, ...]) -> None:
        """Make an empty registry.

        Args:
            noun: What one of them is called in messages, such as ``check``.
            product: The type that a factory returns, as its author writes it, such as ``Check``.
            built_in_modules: They register what this package ships, and are imported when the registry is first asked.
        """
        self.noun = noun
        self.product = product
        self.built_in_modules = built_in_modules
        self._factories: dict[str, Callable[..., Product]] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Add a factory under a name that is still free.

        Raises:
            ConfigError: The name is taken, or a parameter of the factory is positional or untyped.
        """

        def register(factory: Factory) -> Factory:
            if factory.__module__ not in self.built_in_modules:
                self._load_built_ins()  # so that a plugin that takes a built-in name is the one that is told so
            if name in self._factories:
                raise ConfigError(
                    f"{_origin(factory)}: the {self.noun} name `{name}` is taken by {_origin(self._factories[name])}. "
                    "Choose another."
                )
            for parameter in inspect.signature(factory).parameters.values():
                if parameter.kind is not parameter.KEYWORD_ONLY or parameter.annotation is parameter.empty:
                    raise ConfigError(
                        f"{_origin(factory)}: the parameter `{parameter.name}` of the {self.noun} `{name}` must be "
                        f"typed and keyword-only: write `def {factory.__name__}(*, {parameter.name}: ...) -> "
                        f"{self.product}`."
                    )
            self._factories[name] = factory
            return factory

        return register

    def registered(self) -> dict[str, str]:
        """Return every name, in order, with the first line of its factory's docstring."""
        self._load_built_ins()
        return {
            name: (inspect.getdoc(self._factories[name]) or "").partition("\n")[0] for name in sorted(self._factories)
        }

    def build(self, name: str, params: Mapping[str, Any], *, where: str) -> Product:
        """Make what a name and parameters ask for.

        Args:
            name: A registered name.
            params: The factory's keyword parameters.
            where: The configuration key that asks for it; error messages begin with it.

        Raises:
            ConfigError: The name or a parameter is unknown, missing or of the wrong type, or a file is not there.
        """
        factory = self._find(name, where)
        bound = self._bind(name, factory, params, where)
        try:
            return factory(**bound)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error

    def files_read(self, name: str, params: Mapping[str, Any], *, where: str) -> list[Path]:
        """Return the files that it reads, those it reads by default included: whoever caches results hashes them."""
        factory = self._find(name, where)
        given = self._bind(name, factory, params, where)
        signature = inspect.signature(factory).parameters
        values = [given.get(key, parameter.default) for key, parameter in signature.items()]
        return [value for value in values if isinstance(value, Path)]

    def product_of(self, name: str, *, where: str) -> Any:
        """Return the type that the factory of a name is annotated to make; None where it does not say."""
        return typing.get_type_hints(self._find(name, where)).get("return")

    def is_from_plugin(self, name: str, *, where: str) -> bool:
        """Whether a plugin registered the name, so that the plugin's content is part of every result."""
        return is_from_plugin(self._find(name, where))

    def plugin_digest(self, name: str, *, where: str) -> str | None:
        """Return the beginning of the sha256 of the plugin that registered the name; None where none did."""
        return plugin_digest(self._find(name, where))

    def _load_built_ins(self) -> None:
        for module in self.built_in_modules:
            importlib.import_module(module)

    def _find(self, name: str, where: str) -> Callable[..., Product]:
        self._load_built_ins()
        if name not in self._factories:
            known = sorted(self._factories)
            raise ConfigError(
                f"{where}: there is no {self.noun} `{name}`.{near_miss(name, known)} "
                f"{self.noun.capitalize()}s: {', '.join(known)}."
            )
        return self._factories[name]

    def _bind(
        self, name: str, factory: Callable[..., Product], params: Mapping[str, Any], where: str
    ) -> dict[str, Any]:
        """Check parameters against the factory's signature and turn paths into existing files."""
        signature = inspect.signature(factory).parameters
        hints = typing.get_type_hints(factory)
        for key in params:
            if key not in signature:
                names = ", ".join(signature) or "none"
                raise ConfigError(
                    f"{where}: the {self.noun} `{name}` has no parameter `{key}`.{near_miss(str(key), signature)} "
                    f"It takes: {names}."
                )
        missing = [key for key, entry in signature.items() if entry.default is entry.empty and key not in params]
        if missing:
            raise ConfigError(f"{where}: the {self.noun} `{name}` needs {', '.join(missing)}. Add it under `params`.")
        return {key: _convert(params[key], hints[key], f"{where}: {name}.{key}") for key in signature if key in params}


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return the value where it fits the type hint, a path as an existing file."""
    if hint is Path or (Path in typing.get_args(hint) and value is not None):
        return _existing_file(value, where)
    if not _fits(value, hint):
        raise ConfigError(f"{where} must be {_words(hint)}, not {value!r}.")
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(entry, typing.get_args(hint)[0]) for entry in value)
    if hint in (int, float) and isinstance(value, bool):  # bool is an int to Python, but `limit: true` is a mistake
        return False
    return isinstance(value, (int, float) if hint is float else (origin or hint))


def _words(hint: Any) -> str:
    """Write a type as a message names it."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(typing.get_args(hint))}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _existing_file(value: Any, where: str) -> Path:
    """Return a path as the working directory sees it, else as the project does."""
    if not isinstance(value, str | Path):
        raise ConfigError(f"{where} must be a path, not {value!r}.")
    path = find_file(str(value)).resolve()
    if not path.is_file():
        raise ConfigError(f"{where}: no such file: {value}, neither in {Path.cwd()} nor at {path}.")
    return path


def _origin(factory: Callable[..., Any]) -> str:
    code = getattr(factory, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{factory.__module__}.{factory.__qualname__}"
