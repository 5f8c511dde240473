"""Checks against a reference answer or a pattern."""

from __future__ import annotations

import re
from decimal import Decimal

from pipeline.checks.patterns import bounded_search
from pipeline.checks.registry import Check, CheckItem, register_check
from pipeline.errors import ConfigError, DataError

ANSWER_MARKER = "####"  # GSM8K writes the final number after it
# A minus sign belongs to the number unless it stands between two numbers, as in "10-12", or apart, as in "10 - 12".
NUMBER = re.compile(
    r"(?<![A-Za-z])(?P<sign>(?:(?<![\w.)])[-\N{MINUS SIGN}])?)(?:\$ ?)?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)"
)


@register_check("contains_reference")
def contains_reference(*, separator: str | None = None) -> Check:
    """The completion contains the reference as whole words, whatever the case and white space.

    Args:
        separator: What stands between answers of which each is right, as `|` in "UK|United Kingdom".
    """

    def check(completion: str, item: CheckItem) -> bool:
        text = _normalise(completion).casefold()
        phrases = _answers(_required(item, "contains_reference"), separator)
        return any(re.search(rf"(?<!\w){re.escape(phrase.casefold())}(?!\w)", text) for phrase in phrases)

    return check


@register_check("exact_match")
def exact_match(*, ignore_case: bool = False, separator: str | None = None) -> Check:
    """The completion equals the reference, but for white space at the ends and between words.

    Args:
        ignore_case: Whether "paris" is "Paris".
        separator: What stands between answers of which each is right, as `|` in "UK|United Kingdom".
    """

    def check(completion: str, item: CheckItem) -> bool:
        given = _normalise(completion)
        wanted = _answers(_required(item, "exact_match"), separator)
        return given.casefold() in map(str.casefold, wanted) if ignore_case else given in wanted

    return check


@register_check("regex")
def regex(*, pattern: str) -> Check:
    """The pattern matches somewhere in the completion (Python syntax; `(?i)` in front ignores case)."""
    search = bounded_search(pattern, "regex.pattern")
    return lambda completion, item: search(completion)


@register_check("numeric_answer")
def numeric_answer(*, tolerance: float = 0.0) -> Check:
    """The last number of the completion, after `####` if there is one, equals that of the reference.

    Args:
        tolerance: The largest absolute difference that still counts as equal.
    """
    if tolerance < 0:
        raise ConfigError(f"numeric_answer.tolerance must be at least 0, not {tolerance}.")

    def check(completion: str, item: CheckItem) -> bool:
        wanted = last_number(_required(item, "numeric_answer"))
        if wanted is None:
            raise DataError(f"numeric_answer: the reference {item.reference!r} of {_shown(item)} holds no number.")
        given = last_number(completion)
        return given is not None and abs(given - wanted) <= Decimal(str(tolerance))

    return check


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, or the first one after its last ``####``; None if there is none.

    Thousands separators, a dollar sign and a full stop after the number do not belong to it.
    """
    _, marker, final = text.rpartition(ANSWER_MARKER)
    numbers = NUMBER.findall(final)
    if not numbers:
        return None
    sign, digits = numbers[0 if marker else -1]
    number = Decimal(digits.replace(",", ""))
    return -number if sign else number


def _required(item: CheckItem, name: str) -> str:
    """Return the reference; without one the check could not be failed, so it would measure nothing."""
    if item.reference is None or not item.reference.strip():
        raise DataError(f"{name}: {_shown(item)} has no reference. Give its row one, or leave this check out.")
    return item.reference


def _answers(reference: str, separator: str | None) -> list[str]:
    """Return the right answers, normalised; an empty one, as after a separator at the end, would fit everything."""
    parts = reference.split(separator) if separator else [reference]
    return [answer for part in parts if (answer := _normalise(part))]


def _shown(item: CheckItem) -> str:
    return f"the item with the prompt {item.user_text[:80]!r}"


def _normalise(text: str) -> str:
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
