"""A fact sheet: the sentences that a completion may draw on, ready for looking up what it states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.checks.quantities import Quantity, counted_nouns, quantities, singular
from pipeline.errors import DataError

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"')\]]+"
    r"|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|app|co|dev|eu|uk|de|example)\b(?:/[^\s<>\"')\]]*)?",
    re.IGNORECASE,
)
PATH_SEPARATOR = re.compile(r"[ \t]*(?:->|>|\N{RIGHTWARDS ARROW})[ \t]*")
WORD = re.compile(r"(?<!\N{DEGREE SIGN})[^\W\d_](?:[\w'-]*\w)?")
# These follow a number without being what it counts: "iOS 16 or later".
NO_NOUNS = frozenset(
    ["a", "an", "and", "are", "as", "at", "but", "by", "for", "from", "in", "is", "it", "of", "on", "or", "per", "that"]
    + ["the", "then", "to", "until", "was", "with"]
)


@dataclass(frozen=True, slots=True)
class FactSheet:
    """What a completion may state."""

    phrases: str  # the sentences in the form of `phrase_text`
    quantities: frozenset[Quantity]  # "4", "4 dollar" and "4 dollar month" alike
    nouns: frozenset[str]  # what the sheet counts, such as "sensor" in "up to 4 sensors"
    menu_paths: tuple[str, ...]  # and their beginnings of two steps or more; the longest first
    addresses: frozenset[str]

    @classmethod
    def load(cls, path: Path) -> FactSheet:
        """Read a sheet: a YAML mapping with the keys `topics`, and where wanted `contact` and `menu_paths`.

        Raises:
            DataError: The file is not of that shape, or its sentences and its menu paths disagree.
        """
        sentences, listed = _read(path)
        steps = [entry.split(" > ") for entry in listed]
        menu_paths = {" > ".join(parts[:size]) for parts in steps for size in range(2, len(parts) + 1)}
        ordered = tuple(sorted(menu_paths, key=lambda entry: (-len(entry), entry)))
        text = "\n".join(sentences)
        _require_listed(text, listed, ordered, path)
        bare = without_addresses(text)
        nouns = frozenset(counted_nouns(bare)) - NO_NOUNS
        return cls(
            phrases=phrase_text(text),
            quantities=stated_quantities(bare, nouns),
            nouns=nouns,
            menu_paths=ordered,
            addresses=frozenset(addresses(text)),
        )


def _read(path: Path) -> tuple[list[str], list[str]]:
    """Return the sentences and the menu paths of a sheet."""
    try:
        sheet: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the fact sheet cannot be read: {error}. Correct the file.") from error
    topics = sheet.get("topics") if isinstance(sheet, dict) else None
    if not isinstance(topics, dict) or not topics:
        raise DataError(f"{path}: a fact sheet needs the key `topics`, with a list of sentences for every topic.")
    lists = {"contact": sheet.get("contact", []), **topics, "menu_paths": sheet.get("menu_paths", [])}
    for name, entries in lists.items():
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry.strip() for entry in entries):
            raise DataError(f"{path}: `{name}` must be a list of sentences. Quote a sentence that holds a colon.")
    menu_paths = lists.pop("menu_paths")
    return [sentence for entries in lists.values() for sentence in entries], menu_paths


def _require_listed(text: str, listed: list[str], menu_paths: tuple[str, ...], path: Path) -> None:
    for entry in listed:
        if entry not in text:
            raise DataError(f"{path}: no sentence names the menu path '{entry}'. Add a fact or remove the path.")
    if left := re.search(r".{0,30}>.{0,30}", without_paths(text, menu_paths)):
        raise DataError(f"{path}: the menu path in '{left[0]}' is not listed under `menu_paths`. List it there.")


def stated_quantities(text: str, nouns: frozenset[str]) -> frozenset[Quantity]:
    """Return the quantities of a text and what each implies: "4 dollar month" states "4 dollar" and "4" as well."""
    found = list(quantities(text, nouns))
    return frozenset(quantity[:size] for quantity in found for size in range(1, len(quantity) + 1))


def addresses(text: str) -> Iterator[str]:
    """Yield every e-mail address and web address, lower case and without the scheme."""
    for match in [*EMAIL.finditer(text), *URL.finditer(EMAIL.sub(" ", text))]:
        yield re.sub(r"^(?:https?://)?(?:www\.)?", "", match[0].casefold()).rstrip(".,;:!?/")


def without_addresses(text: str) -> str:
    """Return the text with every address replaced by a comma."""
    return URL.sub(" , ", EMAIL.sub(" , ", text))


def without_paths(text: str, menu_paths: tuple[str, ...]) -> str:
    """Return the text with every whole menu path replaced by a comma: "Settings > Plan > Upgrade" holds no shorter one.

    Args:
        text: Prose, in which ``->`` and an arrow count as ``>``.
        menu_paths: The longest first; their case does not matter.
    """
    text = PATH_SEPARATOR.sub(" > ", text)
    for path in menu_paths:
        text = re.sub(rf"(?i)(?<!\w)(?<!> ){re.escape(path)}(?!\w)(?! >)", " , ", text)
    return text


def phrase_text(text: str) -> str:
    """Return the words, each in the form of `phrase_word`, with a bar wherever neighbours are not one phrase."""
    pieces, end = ["|"], 0
    for match in WORD.finditer(text):
        if text[end : match.start()].strip():
            pieces.append("|")
        pieces.append(phrase_word(match[0]))
        end = match.end()
    return " ".join(["", *pieces, "|", ""])


def phrase_word(word: str) -> str:
    """Return a word in lower case, without a possessive and without a plural s."""
    return singular(word.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").removesuffix("'s"))
