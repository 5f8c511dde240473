"""The check that a completion states nothing beyond a fact sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.checks.fact_sheet import (
    WORD,
    FactSheet,
    addresses,
    phrase_text,
    phrase_word,
    stated_quantities,
    without_addresses,
    without_paths,
)
from pipeline.checks.quantities import quantities
from pipeline.checks.registry import Check, CheckItem, register_check

SENTENCE_BREAK = re.compile(r"[.!?:][\"')\]*_]*\s|\n")
ORDINARY = frozenset(["i", "i'm", "i'll", "i'd", "i've", "ok", "yes"])  # capitals that name nothing


@register_check("facts_only")
def facts_only(*, fact_sheet: Path) -> Check:
    """Every number, price, period, address, menu path and name in the completion occurs in the fact sheet.

    It sees what a sentence names, not whether the sentence is true: a real period given for the wrong thing passes,
    and so does an invented name of one word that opens a sentence. Numbers and names of the user may be repeated.

    Args:
        fact_sheet: A YAML file with the keys `topics`, `contact` and `menu_paths`.
    """
    sheet = FactSheet.load(fact_sheet)
    return lambda completion, item: not any(unsupported(completion, item, sheet))


def unsupported(completion: str, item: CheckItem, sheet: FactSheet) -> Iterator[str]:
    """Yield whatever the completion states that neither the sheet nor, for numbers and names, the user does."""
    yield from (address for address in addresses(completion) if address not in sheet.addresses)
    prose = without_paths(without_addresses(completion), sheet.menu_paths)
    yield from re.findall(r"[^\n>,.]* > [^\n,.]*", prose)
    allowed = sheet.quantities | stated_quantities(item.user_text, sheet.nouns)
    yield from (" ".join(quantity) for quantity in quantities(prose, sheet.nouns) if quantity not in allowed)
    phrases = sheet.phrases + phrase_text(item.user_text)
    yield from (name for name in names(prose) if f" {' '.join(map(phrase_word, name.split()))} " not in phrases)


def names(text: str) -> Iterator[str]:
    """Yield every run of capitalised words, such as "Open Window" in "the Open Window alert".

    The capital that opens a sentence names nothing, unless the word has another capital or a digit ("PayPal", "WPA2").
    """
    run: list[str] = []
    end = 0
    for match in WORD.finditer(text):
        word, gap = match[0], text[end : match.start()]
        opens_sentence = end == 0 or SENTENCE_BREAK.search(gap) is not None
        is_name = any(letter.isupper() or letter.isdigit() for letter in (word[1:] if opens_sentence else word))
        if run and (gap.strip() or opens_sentence or not is_name):
            yield " ".join(run)
            run = []
        if is_name and phrase_word(word) not in ORDINARY:
            run.append(word)
        end = match.end()
    if run:
        yield " ".join(run)
