"""Numbers in prose, each with its unit and period, spelled one way: "$4 a month" is ``("4", "dollar", "month")``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

Quantity = tuple[str, ...]  # the number, then its unit, then per what or the scale, as far as they are stated

NUMBER = re.compile(
    r"(?<![\w.])(?<![A-Za-z]-)(?P<currency>[$\N{EURO SIGN}\N{POUND SIGN}] ?)?"
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)|\d+(?::\d\d)?)(?P<fraction>\.\d+)?(?:(?:st|nd|rd|th)\b)?"
)
LIST_NUMBER = re.compile(r"(?m)^\s*\d+[.)]\s")  # of a numbered list
CLAUSE_END = re.compile(r"[.,;:!?()\n](?:\s|$)|\d")
UNIT_WORD = re.compile(r"\N{DEGREE SIGN} ?[FC]\b|[%\N{DEGREE SIGN}/]|[a-z]+", re.IGNORECASE)

NUMBER_WORDS = {
    **{"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8"},
    **{"nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "fourteen": "14", "fifteen": "15", "eighteen": "18"},
    **{"twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90"},
}
SPELLED_NUMBER = re.compile(rf"\b({'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
CANONICAL = {
    **{"$": "dollar", "usd": "dollar", "buck": "dollar", "\N{EURO SIGN}": "euro", "eur": "euro"},
    **{"\N{POUND SIGN}": "pound", "gbp": "pound", "%": "percent", "\N{DEGREE SIGN}": "degree"},
    **{"\N{DEGREE SIGN}f": "degree fahrenheit", "\N{DEGREE SIGN}c": "degree celsius", "celsius": "celsius"},
    **{"yr": "year", "yrs": "year", "hr": "hour", "hrs": "hour", "min": "minute", "sec": "second"},
    **{"ft": "foot", "feet": "foot", "metre": "meter"},
    **{"monthly": "month", "yearly": "year", "annually": "year", "daily": "day", "weekly": "week", "hourly": "hour"},
}
PERIODS = frozenset(["second", "minute", "hour", "day", "week", "month", "year"])
MEASURES = ["percent", "degree", "foot", "inch", "yard", "mile", "meter", "kb", "mb", "gb", "tb", "ghz", "mhz", "mbps"]
UNITS = PERIODS | {"dollar", "euro", "pound", "cent", *MEASURES}
DAY_KINDS = frozenset(["working", "business", "calendar"])  # "5 working days" is not "5 days"
SCALES = frozenset(["fahrenheit", "celsius"])
PER = frozenset(["per", "a", "an", "each", "every", "/"])


def quantities(text: str, nouns: frozenset[str] = frozenset()) -> Iterator[Quantity]:
    """Yield the quantities of a text.

    Args:
        text: Prose. The numbers of a numbered list do not count.
        nouns: What is counted beside the units of measurement: "4 sensors" is ``("4", "sensor")`` only if "sensor" is
            given, else ``("4",)``.

    Numbers in words count only before a unit ("thirty days"): elsewhere "one" and "three" are ordinary words.
    """
    text = LIST_NUMBER.sub("", text)
    for match in NUMBER.finditer(text):
        following = _following_words(text, match.end())
        if match["currency"]:
            yield (_plain(match), CANONICAL[match["currency"].strip()], *_period(following))
        else:
            yield (_plain(match), *_unit(following, UNITS | nouns))
    for match in SPELLED_NUMBER.finditer(text):
        if unit := _unit(_following_words(text, match.end()), UNITS):
            yield (NUMBER_WORDS[match[1].casefold()], *unit)


def counted_nouns(text: str) -> Iterator[str]:
    """Yield the word that follows each number in digits, in the singular."""
    for match in NUMBER.finditer(text):
        if not match["currency"]:
            yield from _following_words(text, match.end())[:1]


def singular(word: str) -> str:
    """Return a lower-case word without a plural s."""
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def _plain(match: re.Match[str]) -> str:
    number = match["number"].replace(",", "") + (match["fraction"] or "")
    return number if ":" in number else f"{Decimal(number).normalize():f}"


def _following_words(text: str, end: int) -> list[str]:
    """Return the words between a number and the end of its clause or the next number, by their usual name."""
    clause = CLAUSE_END.split(text[end : end + 60], maxsplit=1)[0]
    return [part for word in UNIT_WORD.findall(clause) for part in _canonical(word).split()]


def _canonical(word: str) -> str:
    word = word.casefold().replace(" ", "")
    return CANONICAL.get(word) or CANONICAL.get(singular(word)) or singular(word)


def _unit(following: list[str], units: frozenset[str]) -> Quantity:
    """Return the unit at the start of the words, with its scale or period; empty if they start with no unit."""
    kind = following[:1] if following[:1] and following[0] in DAY_KINDS else []
    unit, *rest = following[len(kind) :] or [""]
    if unit not in units:
        return ()
    if unit in PERIODS:
        return (" ".join([*kind, unit]),)
    return (unit, rest[0]) if rest[:1] and rest[0] in SCALES else (unit, *_period(rest))


def _period(following: list[str]) -> Quantity:
    """Return the period of "per month", "a month", "/month" or "monthly"; empty if there is none."""
    after = following[1:] if following[:1] and following[0] in PER else following
    return (after[0],) if after[:1] and after[0] in PERIODS else ()
