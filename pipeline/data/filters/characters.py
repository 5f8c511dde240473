"""Filters on characters that are no text: lost ones, binary data, and ones that cannot be seen."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import all_texts, with_texts
from pipeline.data.rows import Row
from pipeline.errors import ConfigError

MIN_SIGNS = 40  # different ones in a run of base64; 256 random ones hold 63 of the 64 on average
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# UTF-8 that was read as Windows-1252 or Latin-1: an accented Latin letter, a typographic mark, a sign.
_MOJIBAKE = re.compile(
    r"Ã[\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u2026\u2030\u2039\u203a\u20ac\u2122]"
    r"|â(?:€|\x80)[\x80-\xbf\u0153\u0161\u02dc\u201c\u2122\u0153\u017e\u00a6]|Â[\xa0-\xbf]|ï»¿"
)
_BASE64_LINES = re.compile(r"(?:[A-Za-z0-9+/_-]{40,}(?:\r?\n|\\n)?)+={0,2}")
_TAGS = re.compile("[\U000e0000-\U000e007f]+")
_FLAG = re.compile("\N{WAVING BLACK FLAG}[\U000e0020-\U000e007e]{2,6}\U000e007f")  # of a region, such as Scotland
_OVERRIDES = re.compile("[\u202d\u202e]")
_SUSPECT = re.compile("[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")


@register_filter("broken_characters")
def broken_characters(*, max_count: int = 0) -> Filter:
    """No characters were lost: no replacement characters, and no `Ã©` where an é belongs.

    Args:
        max_count: How many a row may have.
    """
    if max_count < 0:
        raise ConfigError(f"broken_characters.max_count must be at least 0, not {max_count}.")

    def check(row: Row) -> Row | Drop:
        lost = garbled = 0
        for text in all_texts(row):
            if not text.isascii():
                lost += text.count(REPLACEMENT)
                garbled += len(_MOJIBAKE.findall(text))
        if lost + garbled > max_count:
            return Drop("broken_characters", f"{lost} replacement characters, {garbled} wrongly decoded ones")
        return row

    return check


@register_filter("blobs")
def blobs(*, min_characters: int = 256) -> Filter:
    """No text holds binary data as base64, in one line or several.

    Args:
        min_characters: A shorter run is no blob.
    """
    if min_characters < 80:
        raise ConfigError(f"blobs.min_characters must be at least 80, not {min_characters}: shorter runs are words.")
    block = min_characters // 2  # of every run without a space, a whole aligned one of these lies inside

    def check(row: Row) -> Row | Drop:
        for text in all_texts(row):
            if all(text.find(" ", start, start + block) >= 0 for start in range(0, len(text) - block + 1, block)):
                continue
            for match in _BASE64_LINES.finditer(text):
                run = match[0]
                if len(run) >= min_characters and _is_mixed(run):
                    return Drop("blob", f"{len(run)} characters of base64")
        return row

    return check


@register_filter("invisible")
def invisible(*, action: Literal["drop", "strip"] = "drop") -> Filter:
    """No text holds what readers do not see and models do: tag characters, and marks that reorder what is shown.

    Flags made of tag characters stay, and so do the marks that text with right-to-left letters needs, save for the
    overrides, which spell words backwards.

    Args:
        action: `drop` the row, or `strip` the characters.
    """

    def strip(text: str) -> str:
        flags = {match.span() for match in _FLAG.finditer(text)}
        text = _TAGS.sub(lambda tags: tags[0] if (tags.start() - 1, tags.end()) in flags else "", text)
        return (_OVERRIDES if _has_right_to_left(text) else _DIRECTIONS).sub("", text)

    def check(row: Row) -> Row | Drop:
        for text in all_texts(row):
            if not text.isascii() and _SUSPECT.search(text) and (kept := len(strip(text))) < len(text):
                if action == "strip":
                    return with_texts(row, strip)
                return Drop("invisible_characters", f"{len(text) - kept} characters that cannot be seen")
        return row

    return check


def _has_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in {"R", "AL"} for character in text if character > "\u0590")


def _is_mixed(run: str) -> bool:
    """Whether small letters, capitals, digits and most of 64 signs occur, as in base64 and in no word, path or gene."""
    counts = (sum(map(str.islower, run)), sum(map(str.isupper, run)), sum(map(str.isdigit, run)))
    return len(set(run)) >= MIN_SIGNS and min(counts) * 20 > len(run)
