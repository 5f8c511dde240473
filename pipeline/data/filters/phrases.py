"""Filters by lists of phrases, each a text file: replies that refuse, and words that are unwanted."""

from __future__ import annotations

from pathlib import Path

from pipeline.checks.refusals import REFUSALS, read_phrases, refusal_opening
from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import all_texts, learned_replies
from pipeline.data.rows import Row
from pipeline.errors import ConfigError

TYPOGRAPHIC = {
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT SINGLE QUOTATION MARK}": " ",
    "\N{LEFT DOUBLE QUOTATION MARK}": " ",
    "\N{RIGHT DOUBLE QUOTATION MARK}": " ",
    "\N{EN DASH}": " ",
    "\N{EM DASH}": " ",
    "\N{HORIZONTAL ELLIPSIS}": " ",
}
# Punctuation as white space, except inside words such as "don't" and "well-known".
_PUNCTUATION = bytes.maketrans(b'!"#$%&()*+,./:;<=>?@[\\]^_`{|}~', b" " * 30)


@register_filter("refusals")
def refusals(*, phrases: Path = REFUSALS) -> Filter:
    """No reply that is learned opens with a refusal.

    Only the opening counts: "I can't help with that" refuses, "Try this if I can't help with the rest" does not. The
    rejected completion of a comparison may refuse.

    Args:
        phrases: A text file of openings, one a line; … stands for up to 80 characters of the same sentence.
    """
    opening = refusal_opening(phrases)

    def check(row: Row) -> Row | Drop:
        for text in learned_replies(row):
            if found := opening(text):
                return Drop("refusal", f"a reply opens with {found!r}")
        return row

    return check


@register_filter("toxicity")
def toxicity(*, words: Path, max_share: float = 0.0) -> Filter:
    """Few or none of a row's words stand in a list of unwanted ones.

    Args:
        words: A text file of words and phrases, one a line. They count as whole words, whatever their case.
        max_share: Of a row's words, how many may stand in the list.
    """
    if not 0 <= max_share < 1:
        raise ConfigError(f"toxicity.max_share must be at least 0 and below 1, not {max_share}.")
    listed = [_words(entry) for entry in read_phrases(words)]
    single = frozenset(entry[0] for entry in listed if len(entry) == 1)
    several = [b" %s " % b" ".join(entry) for entry in listed if len(entry) > 1]

    def check(row: Row) -> Row | Drop:
        found = total = 0
        for text in all_texts(row):
            spoken = _words(text)
            total += len(spoken)
            if not single.isdisjoint(spoken):
                found += sum(word in single for word in spoken)
            if several:
                spaced = b" %s " % b" ".join(spoken)
                found += sum(spaced.count(phrase) for phrase in several)
        if found > max_share * total:
            return Drop("listed_words", f"{found} of {total} words stand in {words.name}")
        return row

    return check


def _words(text: str) -> list[bytes]:
    """Split into words in lower case; as UTF-8, because Python replaces characters of bytes ten times as fast."""
    if not text.isascii():
        for mark, plain in TYPOGRAPHIC.items():
            text = text.replace(mark, plain)
    return text.casefold().encode().translate(_PUNCTUATION).split()
