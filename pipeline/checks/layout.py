"""Checks of how much there is of something in a completion: sentences, paragraphs, bullets, sections."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.checks.registry import Check, register_check
from pipeline.checks.style import SENTENCE_END, words
from pipeline.errors import ConfigError

# Full stops that end no sentence. A single letter is an initial ("J. Smith") or half of "e.g."
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|approx|No|Fig|cf|al|[A-Za-z])\.$", re.IGNORECASE)
BULLET = re.compile(r"^[ \t]*(?:[*+\N{BULLET}]|-(?!-))[ \t]+\S", re.MULTILINE)  # `---` is a rule, `**bold**` is text
NUMBERED = re.compile(r"^[ \t]*\d{1,3}[.)][ \t]+\S", re.MULTILINE)
FENCED = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
HIGHLIGHT = re.compile(r"(?<![*\w])(\*\*|\*)(?=\S)([^*\n]+?)(?<=\S)\1(?![*\w])")
TITLE = re.compile(r"<<([^<>\n]+)>>")
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
RULER = re.compile(r"^[ \t]*(?:\*[ \t]*){3,}$|^[ \t]*(?:-[ \t]*){3,}$", re.MULTILINE)


def within(name: str, count: Callable[[str], int], at_least: int | None, at_most: int | None) -> Check:
    """Return the check that a count of something in the completion lies in a range, both ends included."""
    if at_least is None and at_most is None:
        raise ConfigError(f"{name} needs `at_least`, `at_most` or both.")
    if min(at_least or 0, at_most or 0) < 0:
        raise ConfigError(f"{name}: a count cannot be below 0.")
    if at_least == 0 and at_most is None:
        raise ConfigError(f"{name}.at_least=0 asks for nothing. Set 1 or more, or `at_most`.")
    if at_least is not None and at_most is not None and at_least > at_most:
        raise ConfigError(f"{name}: at_least={at_least} exceeds at_most={at_most}, so nothing could pass.")

    def check(completion: str, item: object) -> bool:
        number = count(completion)
        return (at_least is None or number >= at_least) and (at_most is None or number <= at_most)

    return check


@register_check("num_sentences")
def num_sentences(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of sentences lies in a range; an unfinished last one and every list item count as one."""
    return within("num_sentences", count_sentences, at_least, at_most)


def count_sentences(text: str) -> int:
    """Count the sentences line by line: a sentence may not run over the end of a paragraph or of a list item."""
    total = 0
    for part in re.split(r"\n[ \t]*\n|\n(?=[ \t]*(?:[*+-]|\d{1,3}[.)])[ \t])", text):
        block, begin = re.sub(r"\A\s*\d{1,3}[.)][ \t]+", "", part), 0
        for end in SENTENCE_END.finditer(block):
            pending = block[begin : end.end()]
            if not ABBREVIATION.search(pending) and words(pending):
                total += 1
                begin = end.end()
        total += bool(words(block[begin:]))
    return total


@register_check("num_paragraphs")
def num_paragraphs(*, at_least: int | None = None, at_most: int | None = None, separator: str | None = None) -> Check:
    """The number of paragraphs lies in a range.

    Args:
        at_least: The fewest.
        at_most: The most.
        separator: A line of this alone parts paragraphs, such as `***`; by default it is an empty line.
    """
    return within("num_paragraphs", lambda text: len(paragraphs(text, separator)), at_least, at_most)


@register_check("paragraph_starts_with")
def paragraph_starts_with(*, number: int, word: str) -> Check:
    """A paragraph, counted from 1 between empty lines, starts with a word or phrase, whatever its case."""
    if number < 1:
        raise ConfigError(f"paragraph_starts_with.number must be at least 1, not {number}.")
    wanted = _bare(word)
    if not wanted:
        raise ConfigError("paragraph_starts_with.word has no letter and no digit.")

    def check(completion: str, item: object) -> bool:
        found = paragraphs(completion, None)
        return len(found) >= number and f"{_bare(found[number - 1])} ".startswith(f"{wanted} ")

    return check


def paragraphs(text: str, separator: str | None) -> list[str]:
    """Return the parts of a text that have a visible character."""
    parts = re.split(r"\n[ \t]*\n", text) if separator is None else re.split(_alone(separator), text)
    return [part.strip() for part in parts if part.strip()]


@register_check("num_bullets")
def num_bullets(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of bullets (lines that begin with `*`, `-`, `+` or a dot, outside of code) lies in a range."""
    return within("num_bullets", lambda text: len(BULLET.findall(_prose(text))), at_least, at_most)


@register_check("num_list_items")
def num_list_items(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of lines that begin with a number and a full stop or bracket, outside of code, lies in a range."""
    return within("num_list_items", lambda text: len(NUMBERED.findall(_prose(text))), at_least, at_most)


@register_check("num_sections")
def num_sections(*, marker: str = "Section", at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of lines that begin with a marker and a number ("Section 1", also as a heading) lies in a range."""
    if not marker.strip():
        raise ConfigError("num_sections.marker must not be empty.")
    pattern = re.compile(rf"^[ \t#*]*{re.escape(marker.strip())}[ \t]+\d+\b", re.MULTILINE | re.IGNORECASE)
    return within("num_sections", lambda text: len(pattern.findall(text)), at_least, at_most)


@register_check("num_headings")
def num_headings(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of Markdown headings (`# ...`), outside of code, lies in a range."""
    return within("num_headings", lambda text: len(HEADING.findall(_prose(text))), at_least, at_most)


@register_check("num_highlights")
def num_highlights(*, at_least: int | None = None, at_most: int | None = None) -> Check:
    """The number of passages in `*italics*` or `**bold**` lies in a range."""
    return within("num_highlights", lambda text: len(HIGHLIGHT.findall(text)), at_least, at_most)


@register_check("has_title")
def has_title() -> Check:
    """The completion has a title in double angular brackets, such as <<A day at sea>>."""
    return lambda completion, item: any(map(str.strip, TITLE.findall(completion)))


@register_check("two_answers")
def two_answers(*, separator: str = "******") -> Check:
    """The completion holds two different answers, parted once by the separator on a line of its own."""
    if not separator.strip():
        raise ConfigError("two_answers.separator must not be empty.")

    def check(completion: str, item: object) -> bool:
        parts = [_bare(part) for part in re.split(_alone(separator), completion)]
        return len(parts) == 2 and all(parts) and parts[0] != parts[1]

    return check


def count_markup(text: str) -> tuple[int, int, int]:
    """Return how many headings, list items (bulleted or numbered) and highlighted passages a text has."""
    prose = _prose(text)
    items = len(BULLET.findall(prose)) + len(NUMBERED.findall(prose))
    return len(HEADING.findall(prose)), items, len(HIGHLIGHT.findall(prose))


def _alone(separator: str) -> str:
    return rf"(?m)^[ \t]*{re.escape(separator.strip())}[ \t]*$"


def _prose(text: str) -> str:
    """Return the text without fenced code and rulers."""
    return RULER.sub("", FENCED.sub("", text))


def _bare(text: str) -> str:
    """Return the words in lower case, without signs."""
    return " ".join(re.findall(r"[\w']+", text.casefold()))
