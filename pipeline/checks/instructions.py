"""Instructions that can be verified, each item with its own list, as IFEval has them (arXiv:2311.07911).

An item's reference holds its instructions as JSON: a list of checks as a suite lists them, such as
``[{"name": "no_commas"}, {"name": "max_words", "params": {"limit": 50}}]``. So every registered check is an
instruction, and no second set of names exists.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from pipeline.checks.registry import Check, CheckItem, PartedCheck, Parts, build_check, files_read, register_check
from pipeline.errors import ConfigError, DataError

OWN_NAMES = ("instructions", "instructions_loose")


@register_check("instructions")
def instructions() -> PartedCheck:
    """The completion follows every instruction of its item's reference, to the letter."""
    return lambda completion, item: _follow(completion, item, lambda text: [text])


@register_check("instructions_loose")
def instructions_loose() -> PartedCheck:
    """The same, but an introduction, a closing line and Markdown asterisks are forgiven, as IFEval's loose accuracy."""
    return lambda completion, item: _follow(completion, item, loose_variants)


def loose_variants(completion: str) -> list[str]:
    """Return the completion, and it without its first line, its last, or both; each also without asterisks."""
    lines = completion.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    variants = [completion, *cut]
    return list(dict.fromkeys([*variants, *(variant.replace("*", "") for variant in variants)]))


def _follow(completion: str, item: CheckItem, variants: Callable[[str], list[str]]) -> Parts:
    checks = _checks(item.reference or "")
    bare = CheckItem(prompt=item.prompt)  # the reference is the list itself, so no instruction may compare with it
    tried = [text for text in variants(completion) if text.strip()]  # silence follows no instruction
    return Parts(tuple(any(bool(check(text, bare)) for text in tried) for check in checks))


@cache  # the same list is asked for once per policy
def _checks(reference: str) -> tuple[Check, ...]:
    """Build the checks of an item.

    Raises:
        DataError: The reference is no list of checks.
    """
    try:
        entries = json.loads(reference)
    except ValueError:
        raise DataError(f"instructions: the reference {reference[:80]!r} is no JSON list of checks.") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"instructions: the reference {reference[:80]!r} is no list with at least one check.")
    return tuple(_check(entry, f"reference[{number}]") for number, entry in enumerate(entries))


def _check(entry: Any, where: str) -> Check:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or set(entry) - {"name", "params"}:
        raise DataError(
            f'instructions: {where} must be {{"name": ..., "params": {{...}}}}, not {json.dumps(entry)[:80]}.'
        )
    name, params = entry["name"], entry.get("params", {})
    if name in OWN_NAMES or not isinstance(params, dict):
        raise DataError(f"instructions: {where} ({name}): an instruction is one check, with its parameters by name.")
    try:
        if files_read(name, params, where=where):
            raise DataError(f"instructions: {where} ({name}) reads a file. Put such a check into the suite's `checks`.")
        return build_check(name, params, where=where)
    except ConfigError as error:
        raise DataError(f"instructions: {error}") from None
