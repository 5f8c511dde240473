"""Checks of structured completions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from pipeline.checks.patterns import bounded_search
from pipeline.checks.registry import Check, CheckItem, register_check
from pipeline.errors import ConfigError, DataError

FENCE = re.compile(r"\A\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL | re.IGNORECASE)
MAX_DEPTH = 100  # of a completion's JSON: no schema that somebody wrote goes deeper


@register_check("json_schema")
def json_schema(*, schema: dict[str, Any] | None = None) -> Check:
    """The whole completion is one JSON value, bare or in a code fence, that the schema (draft 2020-12) accepts.

    Args:
        schema: What it must be; `{}` accepts any JSON. Without it the item's reference is the schema, as JSON.
    """
    fixed = None if schema is None else _validator(schema, "json_schema.schema")

    def check(completion: str, item: CheckItem) -> bool:
        validator = fixed or _validator(_own_schema(item), "json_schema: the item's reference")
        try:
            value = read_json(completion)
        except ValueError:
            return False
        try:
            return bool(validator.is_valid(value))
        except Unresolvable as error:
            raise DataError(f"json_schema: the schema refers to {error}, which it does not hold. Put it in.") from None

    return check


def read_json(completion: str) -> Any:
    """Read a completion that is one JSON value, strictly.

    Raises:
        ValueError: It is none: text stands around it, a key occurs twice, or a number is no JSON number.
    """
    fenced = FENCE.match(completion)
    text = fenced[1] if fenced else completion
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _depth(value: Any) -> int:
    """Count the levels, without recursion."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        nested = [
            entry.values() if isinstance(entry, dict) else entry for entry in level if isinstance(entry, dict | list)
        ]
        level = [child for children in nested for child in children]
        depth += 1
    return depth


def _own_schema(item: CheckItem) -> Any:
    try:
        return json.loads(item.reference or "")
    except ValueError:
        raise DataError(
            f"json_schema: the reference of the item with the prompt {item.user_text[:80]!r} is no JSON schema. "
            "Give its row one, or set `schema`."
        ) from None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Do as the library does, within a bound of time."""
    if isinstance(instance, str) and not bounded_search(pattern, "json_schema: the pattern")(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _refuse_pattern_properties(schema: Any, where: str) -> None:
    """Refuse what the library would match without a bound of time, and types that are hidden in it."""
    if isinstance(schema, Mapping):
        if "patternProperties" in schema:
            raise ConfigError(f"{where}: `patternProperties` is not supported. Name the properties.")
        for value in schema.values():
            _refuse_pattern_properties(value, where)
    elif isinstance(schema, list):
        for value in schema:
            _refuse_pattern_properties(value, where)


_Bounded = extend(Draft202012Validator, {"pattern": _pattern})


def _validator(schema: Any, where: str) -> Any:
    """Return a validator that fetches nothing and does not hang."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"{where} is no JSON schema: {error.message} at {error.json_path}. Correct it.") from None
    _refuse_pattern_properties(schema, where)
    return _Bounded(schema, registry=Registry())
