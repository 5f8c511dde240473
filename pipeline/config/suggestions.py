"""What a mistyped key or name was probably meant to be."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean `x`?`` for the known names closest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else ""


def key_paths(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield every key below a configuration dataclass as a dotted path, sections included."""
    hints = get_type_hints(schema)
    for entry in fields(schema):
        path = f"{prefix}{entry.name}"
        yield path
        section = section_type(hints[entry.name])
        if section is not None:
            yield from key_paths(section, f"{path}.")


def section_type(hint: Any) -> type | None:
    """Return the dataclass that a field holds directly (not in a list or dict), if it does."""
    if get_origin(hint) in {Union, types.UnionType}:
        hint = next((arg for arg in get_args(hint) if arg is not type(None)), hint)
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def unknown_key(path: str, schema: type) -> str | None:
    """Return a message if ``path`` (``sft.lora.rnak``) is not a key of the schema, or None if it is.

    Keys below a list or a dict are open and always accepted here; OmegaConf checks them later.
    """
    current = schema
    walked: list[str] = []
    for part in path.split("."):
        hints = get_type_hints(current)
        if part not in hints:
            return _suggest(path, ".".join(walked), part, hints, schema)
        walked.append(part)
        section = section_type(hints[part])
        if section is None:
            rest = path.split(".")[len(walked) :]
            plain = get_origin(hints[part]) not in {list, dict}
            return f"`{'.'.join(walked)}` is a value and has no key `{rest[0]}`." if rest and plain else None
        current = section
    return None


def _suggest(path: str, parent: str, part: str, siblings: Iterable[str], schema: type) -> str:
    where = f"`{parent}`" if parent else "the configuration"
    text = f"There is no key `{path}`."
    everywhere = list(key_paths(schema))
    ranked = difflib.get_close_matches(path, everywhere, n=2, cutoff=0.75)
    same_leaf = [key for key in everywhere if key.rsplit(".", 1)[-1] == part]
    close = [
        f"{parent}.{name}".lstrip(".") for name in difflib.get_close_matches(part, list(siblings), n=2, cutoff=0.6)
    ]
    chosen = list(dict.fromkeys([*close, *same_leaf[:2], *ranked]))[:3]
    if chosen:
        return f"{text} Did you mean {' or '.join(f'`{name}`' for name in chosen)}?"
    return f"{text} Keys of {where}: {', '.join(sorted(siblings))}."


def explain_unknown_key(message: str, schema: type) -> str | None:
    """Rewrite Hydra's and OmegaConf's words for an unknown key in a file; None if that is not what they say."""
    key = re.search(r"full_key: (\S+)", message)
    if "Key '" not in message or " not in '" not in message or key is None:
        return None
    path = re.sub(r"\[\d+\]", "", key.group(1))
    where = re.search(r"In '([^']+)'", message)
    file = f"configs/{where.group(1)}.yaml: " if where else ""
    return file + (unknown_key(path, schema) or message.splitlines()[0])
