"""The axes of a sweep, read from overrides in Hydra's own grammar, wherever they are written."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.sweep import SweepMethod
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

BY, DEFAULT = "by", "default"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One key and the values that it may take: a list of them, or everything between two numbers."""

    key: str  # as an override writes it, with its `+`
    choices: tuple[str, ...] = ()  # as an override writes them
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def name(self) -> str:
        """The key as tables show it."""
        return self.key.lstrip("+~")

    @property
    def first(self) -> str:
        """A value that the rest of the configuration can be composed with."""
        return self.choices[0] if self.choices else self.text(self.low)

    @property
    def last(self) -> str:
        """Another such value, where there are several."""
        return self.choices[-1] if self.choices else self.text(self.high)

    def text(self, value: Any) -> str:
        """Return a value as an override writes it."""
        if self.choices:
            return str(value)
        return str(int(value)) if self.integer else repr(float(value))

    def described(self) -> dict[str, Any]:
        """Return the axis as records keep it."""
        if self.choices:
            return {"choices": [parsed(choice) for choice in self.choices]}
        low, high = (int(self.low), int(self.high)) if self.integer else (self.low, self.high)
        return {"low": low, "high": high, "log": self.log, "integer": self.integer}


def parsed(text: str) -> Any:
    """Return what the right side of an override stands for, in JSON's types."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"value={text}").value()


def axes_and_rest(overrides: Sequence[str], choices_of: Mapping[str, Sequence[str]]) -> tuple[list[Axis], list[str]]:
    """Tell the overrides that name several values from those that name one.

    Args:
        overrides: As they stand on the command line; they parse.
        choices_of: Group -> its files, for `glob(…)`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser, axes, rest = OverridesParser.create(), [], []
    for text in overrides:
        override = parser.parse_override(text)
        if override.is_sweep_override():
            axes.append(_axis(override, choices_of))
        else:
            rest.append(text)
    return axes, rest


def space_axes(space: Mapping[str, Any], composed: Mapping[str, Any], swept: set[str]) -> tuple[list[Axis], list[str]]:
    """Read `sweep.space`; return its axes and what is wrong with it, each line beginning with the key.

    Args:
        space: Key -> values.
        composed: The composed configuration as plain containers, for values that depend on another key.
        swept: Keys that the command line varies.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    axes, problems = [], []
    for key, values in space.items():
        where = f"sweep.space.{key}"
        try:
            expression = _resolved(values, composed, swept | set(space)) if isinstance(values, Mapping) else values
            if isinstance(expression, list):
                expression = f"choice({','.join(map(str, expression))})"
            override = OverridesParser.create().parse_override(f"{key}={expression}")
            if not override.is_sweep_override():
                raise ConfigError("name several values: `a,b`, range(1,4), or interval(0.1,0.9).")
            axes.append(_axis(override, {}))
        except (HydraException, ConfigError) as error:
            problems.append(f"{where}: {str(error).splitlines()[0]}")
    return axes, problems


def _resolved(values: Mapping[str, Any], composed: Mapping[str, Any], swept: set[str]) -> Any:
    """Pick the values that hold for what the key under `by` is set to."""
    by = str(values.get(BY, ""))
    if by in swept:
        raise ConfigError(f"depends on {by}, which is swept as well. Run one sweep for each value of {by}.")
    current: Any = composed
    for part in by.split("."):
        if not isinstance(current, Mapping) or part not in current:
            raise ConfigError(f"`{BY}: {by}` names no key of the configuration.")
        current = current[part]
    # A mapping names several by its keys, as a mix of losses does; where one has no such values, the others decide.
    named = list(current) if isinstance(current, Mapping) else [current]
    found = [values.get(name, values.get(DEFAULT)) if isinstance(name, str) else values.get(DEFAULT) for name in named]
    chosen = [text for number, text in enumerate(found) if text is not None and text not in found[:number]]
    if not chosen:
        raise ConfigError(f"says nothing about {by}={current}. Set the values on the command line, or add `{DEFAULT}`.")
    if len(chosen) > 1:
        raise ConfigError(f"{by}={current} mixes what has different values here: {', '.join(map(str, chosen))}.")
    return chosen[0]


def _axis(override: Override, choices_of: Mapping[str, Sequence[str]]) -> Axis:
    key = override.get_key_element()
    if override.is_interval_sweep():
        interval: Any = override._value  # noqa: SLF001 - `value()` refuses intervals
        start, end = interval.start, interval.end
        log = "log" in interval.tags
        if not start < end or (log and start <= 0):
            raise ConfigError(f"{key}: an interval goes from a lower to a higher number{', above 0' if log else ''}.")
        integer = isinstance(start, int) and isinstance(end, int)
        return Axis(key=key, low=float(start), high=float(end), log=log, integer=integer)
    if override.value_type is not None and "GLOB" in override.value_type.name:
        globbed: Any = override._value  # noqa: SLF001
        known = choices_of.get(override.key_or_group, ())
        found = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in globbed.include)]
        found = [name for name in found if not any(fnmatch.fnmatch(name, pattern) for pattern in globbed.exclude)]
        if not found:
            raise ConfigError(f"{key}: nothing matches. `glob` chooses among the files of a group.")
        return Axis(key=key, choices=tuple(found))
    return Axis(key=key, choices=tuple(override.sweep_string_iterator()))


def require_method(axes: Sequence[Axis], method: SweepMethod) -> None:
    """Raise where an axis has no grid and a grid is asked for."""
    wide = [axis.key for axis in axes if not axis.choices]
    if method is SweepMethod.grid and wide:
        raise ConfigError(
            f"{', '.join(wide)}: an interval has no grid. Add sweep.method=tpe sweep.trials=20, or name the values."
        )
