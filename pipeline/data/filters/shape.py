"""Filters on what a row looks like as a whole: length, repetition, equal completions, licence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import completions, learned_replies
from pipeline.data.rows import Comparison, Demonstration, Message, Reason, Row, Unpaired, normalise
from pipeline.errors import ConfigError

MIN_ECHO = 20  # characters; a short reply such as "Good morning!" may rightly be what the user said


@register_filter("length")
def length(
    *,
    min_prompt: int | None = None,
    max_prompt: int | None = None,
    min_completion: int | None = None,
    max_completion: int | None = None,
) -> Filter:
    """Prompts and completions have so many characters at least and at most, all their turns together.

    Both completions of a comparison must. White space at the ends does not count.
    """
    limits = {"prompt": (min_prompt, max_prompt), "completion": (min_completion, max_completion)}
    for field, (least, most) in limits.items():
        if least is not None and most is not None and least > most:
            raise ConfigError(f"length.min_{field} ({least}) is above length.max_{field} ({most}).")

    def problem(turns: Sequence[Message], field: str) -> Drop | None:
        least, most = limits[field]
        if least is None and most is None:
            return None
        count = sum(len(turn["content"].strip()) for turn in turns)
        if least is not None and count < least:
            return Drop(f"short_{field}", f"{count} characters, at least {least} are asked for")
        if most is not None and count > most:
            return Drop(f"long_{field}", f"{count} characters, at most {most} are allowed")
        return None

    def check(row: Row) -> Row | Drop:
        found = problem(row.prompt, "prompt")
        for turns in completions(row):
            found = found or problem(turns, "completion")
        return found or row

    return check


@register_filter("repetition")
def repetition(*, ngram: int = 5, max_share: float = 0.5, max_line_share: float = 0.5, min_words: int = 30) -> Filter:
    """Replies do not say the same again and again: few of their n-grams of words, and of their lines, are repeats.

    Rae et al. 2021 (arXiv 2112.11446, table A1) measure web pages the same way; their thresholds are lower than these,
    because answers repeat terms, and lists repeat openings, where pages do not.

    Args:
        ngram: Words.
        max_share: Of the n-grams, how many may have occurred before in the same reply.
        max_line_share: Of the lines that are not empty, how many may have occurred before in the same reply.
        min_words: Shorter replies pass.
    """
    if ngram < 1 or min_words < ngram:
        raise ConfigError(f"repetition.ngram ({ngram}) must be at least 1 and at most min_words ({min_words}).")
    for name, share in (("max_share", max_share), ("max_line_share", max_line_share)):
        if not 0 <= share < 1:
            raise ConfigError(f"repetition.{name} must be at least 0 and below 1, not {share}.")

    def check(row: Row) -> Row | Drop:
        for text in learned_replies(row):
            words = text.split()
            total = len(words) - ngram + 1
            if len(words) < min_words:
                continue
            # As many different n-grams as there are different words, less the last n-gram's own, must exist.
            if len(set(words)) - ngram + 1 < (1 - max_share) * total:
                distinct = len(set(zip(*(words[start:] for start in range(ngram)), strict=False)))
                if total - distinct > max_share * total:
                    share = (total - distinct) / total
                    return Drop("repeated_words", f"{share:.0%} of the runs of {ngram} words have occurred before")
            if "\n" in text:
                lines = [line for line in map(str.strip, text.splitlines()) if line]
                repeats = len(lines) - len(set(lines))
                if repeats > max_line_share * len(lines):
                    return Drop("repeated_lines", f"{repeats} of {len(lines)} lines have occurred before")
        return row

    return check


@register_filter("identical_completions")
def identical_completions() -> Filter:
    """The two completions of a comparison differ, and a demonstration's reply is not its prompt over again.

    Readers refuse pairs that are equal as given; this also finds those that differ in case only, and those that an
    earlier filter made equal.
    """

    def check(row: Row) -> Row | Drop:
        if isinstance(row, Comparison):
            if _plain(row.chosen) == _plain(row.rejected):
                return Drop(Reason.same_pair, "both completions say the same")
        elif isinstance(row, Demonstration | Unpaired) and len(row.completion[0]["content"]) >= MIN_ECHO:
            reply = _plain(row.completion[:1])
            if reply == _plain(row.prompt[-1:]):
                return Drop("repeats_prompt", "the reply is the prompt over again")
        return row

    return check


@register_filter("licence")
def licence(
    *, allow: list[str] | None = None, deny: list[str] | None = None, missing: Literal["keep", "drop"] = "keep"
) -> Filter:
    """Rows have a licence that is allowed.

    Args:
        allow: SPDX names, whatever their case; all others are dropped. None allows every name.
        deny: SPDX names that are dropped.
        missing: What becomes of rows whose source names no licence.
    """
    if allow is None and deny is None and missing == "keep":
        raise ConfigError("licence drops nothing like this. Set allow, deny or missing: drop.")
    allowed = None if allow is None else {name.casefold() for name in allow}
    denied = {name.casefold() for name in deny or []}

    def check(row: Row) -> Row | Drop:
        if row.licence is None or not row.licence.strip():
            return row if missing == "keep" else Drop(Reason.licence, "the source names no licence")
        name = row.licence.strip().casefold()
        if name in denied:
            return Drop(Reason.licence, f"{row.licence} is denied")
        if allowed is not None and name not in allowed:
            return Drop(Reason.licence, f"{row.licence} is not among the allowed ones")
        return row

    return check


def _plain(turns: Sequence[Message]) -> str:
    return normalise("\n".join(turn["content"] for turn in turns)).casefold()
