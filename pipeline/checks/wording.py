"""Checks of the words and signs in a completion: which occur, how often, in which case, at which end."""

from __future__ import annotations

import re

from pipeline.checks.layout import within
from pipeline.checks.registry import Check, CheckItem, register_check
from pipeline.errors import ConfigError

PLACEHOLDER = re.compile(r"\[([^\[\]\n]+)\](?!\()")  # `[text](address)` is a link
QUOTES = {'"': '"', "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}", "\u00ab": "\u00bb"}
WORD = re.compile(r"[^\W\d_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}-][^\W\d_]+)*")


@register_check("includes_words")
def includes_words(*, words: list[str]) -> Check:
    """Every word or phrase of the list occurs, as whole words and in any case."""
    patterns = _patterns("includes_words", words)
    return lambda completion, item: all(pattern.search(_plain(completion)) for pattern in patterns)


@register_check("excludes_words")
def excludes_words(*, words: list[str]) -> Check:
    """No word or phrase of the list occurs, as whole words and in any case."""
    patterns = _patterns("excludes_words", words)
    return lambda completion, item: not any(pattern.search(_plain(completion)) for pattern in patterns)


@register_check("word_frequency")
def word_frequency(*, word: str, at_least: int | None = None, at_most: int | None = None) -> Check:
    """A word or phrase occurs, as whole words and in any case, a number of times that lies in a range."""
    (pattern,) = _patterns("word_frequency", [word])
    return within("word_frequency", lambda text: len(pattern.findall(_plain(text))), at_least, at_most)


@register_check("letter_frequency")
def letter_frequency(*, letter: str, at_least: int | None = None, at_most: int | None = None) -> Check:
    """A letter or sign occurs, in any case, a number of times that lies in a range."""
    if len(letter) != 1:
        raise ConfigError(f"letter_frequency.letter must be one character, not {letter!r}.")
    return within("letter_frequency", lambda text: text.casefold().count(letter.casefold()), at_least, at_most)


@register_check("one_of")
def one_of(*, options: list[str]) -> Check:
    """The completion is one of the options and nothing else, but for case, white space, quotes and a full stop."""
    if not options or not all(option.strip() for option in options):
        raise ConfigError("one_of.options must name at least one option, and none may be empty.")
    known = {_answer(option) for option in options}
    return lambda completion, item: _answer(completion) in known


@register_check("all_upper_case")
def all_upper_case() -> Check:
    """The completion has letters, and none of them is in lower case."""
    return lambda completion, item: completion.upper() == completion and completion.lower() != completion


@register_check("all_lower_case")
def all_lower_case() -> Check:
    """The completion has letters, and none of them is a capital."""
    return lambda completion, item: completion.lower() == completion and completion.upper() != completion


@register_check("num_upper_case_words")
def num_upper_case_words(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of words of two letters or more in capitals lies in a range."""

    def count(text: str) -> int:
        return sum(len(word) > 1 and word.isupper() for word in WORD.findall(text))

    return within("num_upper_case_words", count, at_least, at_most)


@register_check("starts_with")
def starts_with(*, phrase: str) -> Check:
    """The completion starts with the phrase, whatever the case and white space."""
    wanted = _required_phrase("starts_with", phrase)
    return lambda completion, item: _plain(completion).startswith(wanted)


@register_check("ends_with")
def ends_with(*, phrase: str) -> Check:
    """The completion ends with the phrase, whatever the case, white space and quotes: nothing may follow it."""
    wanted = _required_phrase("ends_with", phrase)
    return lambda completion, item: _plain(completion).rstrip("\"'*_ ").endswith(wanted.rstrip("\"'*_ "))


@register_check("quoted")
def quoted() -> Check:
    """The whole completion stands in double quotation marks, straight or typographic."""

    def check(completion: str, item: CheckItem) -> bool:
        text = completion.strip()
        return len(text) > 2 and bool(text[1:-1].strip()) and QUOTES.get(text[0]) == text[-1]

    return check


@register_check("no_commas")
def no_commas() -> Check:
    """The completion is not empty and has no comma, of any script."""
    commas = re.compile("[,\u060c\u3001\uff0c]")
    return lambda completion, item: bool(completion.strip()) and commas.search(completion) is None


@register_check("num_placeholders")
def num_placeholders(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of placeholders in square brackets, such as [name], lies in a range."""

    def count(text: str) -> int:
        return sum(bool(inner.strip()) for inner in PLACEHOLDER.findall(text))

    return within("num_placeholders", count, at_least, at_most)


@register_check("has_postscript")
def has_postscript(*, marker: str = "P.S.") -> Check:
    """A line begins with the marker, in any case, and text follows it; text stands before it as well."""
    letters = r"\.? ?".join(re.escape(part) for part in re.findall(r"[^\W_]+", marker))
    if not letters:
        raise ConfigError(f"has_postscript.marker {marker!r} has no letter.")
    pattern = re.compile(rf"\S\s*\n[ \t*_]*{letters}\b[.:]?[*_:]*\s*\w", re.IGNORECASE)
    return lambda completion, item: pattern.search(completion) is not None


@register_check("repeats_prompt")
def repeats_prompt(*, text: str | None = None) -> Check:
    """The completion first repeats the request word for word, and then has more to say.

    Args:
        text: What is to be repeated; by default all that the user wrote.
    """

    def check(completion: str, item: CheckItem) -> bool:
        wanted, given = _plain(text or item.user_text), _plain(completion)
        return bool(wanted) and given.startswith(wanted) and re.search(r"\w", given[len(wanted) :]) is not None

    return check


def _patterns(name: str, words: list[str]) -> list[re.Pattern[str]]:
    """Return one pattern per word or phrase; its spaces stand for any white space."""
    if not words or not all(word.strip() for word in words):
        raise ConfigError(f"{name} must name at least one word, and none may be empty.")
    return [re.compile(rf"(?<!\w){re.escape(_plain(word))}(?!\w)") for word in words]


def _required_phrase(name: str, phrase: str) -> str:
    if not phrase.strip():
        raise ConfigError(f"{name}.phrase must not be empty.")
    return _plain(phrase)


def _plain(text: str) -> str:
    """Lower case, straight apostrophes and quotes, single spaces."""
    table = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'})
    return " ".join(text.casefold().translate(table).split())


def _answer(text: str) -> str:
    return _plain(text).strip(" \"'*_`.")
