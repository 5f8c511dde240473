"""Checks of form: length, how a completion opens, how it ends."""

from __future__ import annotations

import re

from pipeline.checks.registry import Check, CheckItem, register_check
from pipeline.errors import ConfigError

# Compared with the first words of a completion, lower case and without punctuation.
GREETINGS = ["hi", "hello", "hey", "dear", "greetings", "welcome", "good morning", "good afternoon", "good evening"]
FILLERS = [
    *("sure", "certainly", "of course", "absolutely", "definitely", "great", "good question", "excellent question"),
    *("that is a great question", "that's a great question", "that is a good question", "that's a good question"),
    *("thanks", "thank you", "no problem", "no worries", "not a problem", "happy to help", "glad", "i am glad"),
    *("i'm glad", "i'd be", "i would be", "i'm happy", "i am happy", "i'd love", "i would love"),
    *("i can help", "i can certainly", "i understand", "i see", "i hear you", "let me", "let's", "okay", "ok"),
    *("alright", "all right", "well", "so", "as an ai", "it sounds like", "it seems like"),
    *("to answer your question", "here is how", "here's how", "here are the steps", "i hope", "we understand"),
    *("i appreciate", "we appreciate"),
]
APOLOGIES = [
    *("sorry", "so sorry", "very sorry", "i'm sorry", "i am sorry", "i'm so sorry", "i am so sorry", "i'm very sorry"),
    *("we're sorry", "we are sorry", "apologies", "my apologies", "our apologies", "i apologise", "i apologize"),
    *("we apologise", "we apologize", "unfortunately", "regrettably", "i'm afraid", "i am afraid", "oh no"),
]
DEFAULT_OPENINGS = [*GREETINGS, *FILLERS, *APOLOGIES]

SENTENCE_END = re.compile(r"[.!?][\"')\]*_]*(?=\s|$)")


def words(text: str) -> list[str]:
    """Split at white space; a piece without a letter or a digit, such as ``>`` or a dash, is no word."""
    return [piece for piece in text.split() if any(character.isalnum() for character in piece)]


@register_check("max_words")
def max_words(*, limit: int) -> Check:
    """The completion has at most `limit` words."""
    if limit < 1:
        raise ConfigError(f"max_words.limit must be at least 1, not {limit}.")
    return lambda completion, item: len(words(completion)) <= limit


@register_check("min_words")
def min_words(*, limit: int) -> Check:
    """The completion has at least `limit` words."""
    if limit < 1:
        raise ConfigError(f"min_words.limit must be at least 1, not {limit}.")
    return lambda completion, item: len(words(completion)) >= limit


@register_check("answer_first")
def answer_first(*, openings: list[str] = DEFAULT_OPENINGS) -> Check:
    """The completion opens with the answer: no greeting, filler, apology or question before it.

    Args:
        openings: Phrases that are no answer. They count as whole words, whatever their case and punctuation.
    """
    plain_openings = [_plain(opening) for opening in openings]

    def check(completion: str, item: CheckItem) -> bool:
        plain = _plain(completion)
        first_sentence = SENTENCE_END.split(completion.strip(), maxsplit=1)[0]
        asks = completion.strip()[len(first_sentence) :].startswith("?")
        return bool(plain) and not asks and not any(f"{plain} ".startswith(f"{opening} ") for opening in plain_openings)

    return check


@register_check("exactly_one_next_step")
def exactly_one_next_step(*, marker: str = "Next step:") -> Check:
    """The completion ends with one sentence that starts with the marker, which occurs once and not at the start."""
    if not marker.strip():
        raise ConfigError("exactly_one_next_step.marker must not be empty.")
    pattern = re.compile(re.escape(marker.strip()), re.IGNORECASE)

    def check(completion: str, item: CheckItem) -> bool:
        if len(pattern.findall(completion)) != 1:
            return False
        answer, step = (part.strip(" \t*_#-") for part in pattern.split(completion))
        begins_a_sentence = answer.endswith("\n") or re.search(r"[.!?][\"')\]*_]*$", answer) is not None
        step = step.strip()
        one_sentence = "\n" not in step and len(words(step)) > 0 and not SENTENCE_END.search(step.rstrip(".!?\"')]*_"))
        return bool(words(answer)) and begins_a_sentence and one_sentence

    return check


def _plain(text: str) -> str:
    """Lower case, straight apostrophes, and single spaces in place of punctuation and white space."""
    straight = text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return " ".join(re.findall(r"[\w']+", straight))
