"""The filter on the language that a row is written in."""

from __future__ import annotations

import re

from pipeline.checks.languages import language_identifier
from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import all_texts
from pipeline.data.rows import Row
from pipeline.errors import ConfigError

MAX_CHARACTERS = 400  # that are looked at: enough to tell, and the time of one row stays bounded
NO_LANGUAGE = "zxx"  # ISO 639-2: not written in any
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SYMBOL = re.compile(r"[{}<>=;|\\/*+()\[\]_#@$^&~]")


@register_filter("language")
def language(*, allowed: list[str], min_probability: float = 0.8, min_words: int = 8) -> Filter:
    """Rows are written in one of the allowed languages, or in one that cannot be told.

    Short text and code say little about a language, so they count as unknown and are kept, as is everything of which
    the identifier is less than `min_probability` sure.

    Args:
        allowed: ISO 639 codes, such as `en`.
        min_probability: How sure it must be before a row is dropped.
        min_words: Rows with fewer words, code and addresses left out, are unknown.
    """
    identifier = language_identifier()
    unknown = sorted(set(allowed) - set(identifier.labels))
    if not allowed or unknown:
        raise ConfigError(
            f"language.allowed {f'names {unknown[0]!r}, which is unknown' if unknown else 'is empty'}. "
            f"Known: {', '.join(sorted(identifier.labels))}."
        )
    if not 0 < min_probability <= 1:
        raise ConfigError(f"language.min_probability must lie above 0 and be at most 1, not {min_probability}.")
    languages = frozenset(allowed)

    def check(row: Row) -> Row | Drop:
        prose = _prose(all_texts(row), min_words)
        if prose is None:
            return row
        found, probability = identifier.classify(prose)
        if found in languages or found == NO_LANGUAGE or probability < min_probability:
            return row
        return Drop("language", f"{found} with probability {probability:.2f}")

    return check


def _prose(texts: list[str], min_words: int) -> str | None:
    """Return the row's text without code, the last turn first, or None where too little is left to tell by."""
    parts: list[str] = []
    length = 0
    for text in reversed(texts):
        part = text[: 2 * MAX_CHARACTERS]
        if "`" in part or "://" in part:
            part = _CODE.sub(" ", part)
        if len(_SYMBOL.findall(part)) * 20 > len(part):  # one in twenty: code, mathematics or a table
            continue
        parts.append(part[: MAX_CHARACTERS - length])
        length += len(parts[-1])
        if length >= MAX_CHARACTERS:
            break
    prose = " ".join(parts)
    return prose if len(_WORD.findall(prose)) >= min_words else None
