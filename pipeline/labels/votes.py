"""What a vote is: one judgement of one annotator on some completions of one prompt."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.data.rows import Demonstration, Message, is_blank, normalise


class Scale(StrEnum):
    """In which form the annotator judged."""

    pairwise = "pairwise"  # which of two is better, or neither
    ranking = "ranking"  # an order of several, with ties, of which some may stand in none
    rating = "rating"  # a number for each
    thumbs = "thumbs"  # good (1) or bad (0) for each


class Status(StrEnum):
    """Whether a judgement counts. Only `submitted` does; the others are kept and counted, never used."""

    submitted = "submitted"
    skipped = "skipped"  # cancelled, ignored or passed over by the annotator
    draft = "draft"
    discarded = "discarded"
    prediction = "prediction"  # of a model
    refused = "refused"  # by a reviewer
    superseded = "superseded"  # the same annotator judged the same completions again, later
    invalid = "invalid"  # outside its scale, or on a candidate that is not there; listed with its reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One completion that was judged."""

    id: str  # of its text, so that the same text in two files is the same candidate
    messages: list[Message]
    model: str | None = None  # who wrote it, where the file says


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A prompt and the completions of it that were judged; records with the same prompt are one item."""

    id: str
    source: str
    licence: str | None
    prompt: list[Message]
    candidates: dict[str, Candidate]  # by id
    topic: str | None = None
    protected: bool = False  # from a source declared `split: test`


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """One judgement. ``candidates`` are in order of id, so that a pair shown the other way round is the same pair."""

    id: str
    source: str
    item: str
    annotator: str | None  # None where the file names nobody; every such vote counts as of a person of its own
    question: str  # what was asked; "" where the file asks one thing only
    scale: Scale
    candidates: tuple[str, ...]
    # The verdict: place of each candidate, 1 is best, equal places are a tie, None is not placed. None: no verdict.
    ranks: tuple[int | None, ...] | None = None
    ratings: tuple[float | None, ...] | None = None  # as given, where the scale has numbers; `ranks` follow from them
    strength: float | None = None  # of a pairwise preference, in the file's own unit, never negative
    positions: tuple[int, ...] | None = None  # where each candidate was shown, 0 is left or first
    created: str | None = None  # ISO 8601 in UTC
    seconds: float | None = None  # that the annotator took
    tool: str = ""  # the importer that read it
    status: Status = Status.submitted
    gold: bool = False  # a known answer: it measures annotators and never trains
    note: str | None = None  # anything the annotator or the importer had to say

    @property
    def is_tie(self) -> bool:
        """Whether this is a verdict that prefers none of the candidates."""
        ranks = self.ranks
        return ranks is not None and len(ranks) > 1 and len(set(ranks)) == 1 and ranks[0] is not None


@dataclass(kw_only=True)
class Imported:
    """What one record of an export holds. A record may hold several votes, or none."""

    items: list[Item] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    unlabelled: int = 0  # tasks that nobody has judged yet
    notices: list[str] = field(default_factory=list)  # what the format cannot carry; each is printed once per file


def person(name: str) -> str | None:
    """Return an annotator's name in one spelling: NFC, single spaces, no character that cannot be seen; None if blank.

    Two tools write one name in two ways that look the same, and one person would vote twice.
    """
    seen = "".join(character for character in normalise(name) if unicodedata.category(character) not in {"Cf", "Cc"})
    return normalise(seen) or None


def candidate_id(messages: Sequence[Message]) -> str:
    """Return the first 16 hex digits of the sha256 of a completion's normalised turns."""
    return _digest(messages)


def says_nothing(completion: Sequence[Message]) -> bool:
    """Whether a completion has no visible character: it can be judged, and nobody can be trained on it."""
    return all(is_blank(turn["content"]) for turn in completion)


def item_id(prompt: Sequence[Message]) -> str:
    """Return the first 16 hex digits of the sha256 of a prompt's normalised turns, its system turn included."""
    return _digest(prompt)


def make_item(
    prompt: list[Message],
    completions: Sequence[tuple[list[Message], str | None]],
    *,
    source: str,
    licence: str | None,
    topic: str | None = None,
    protected: bool = False,
) -> tuple[Item, list[str]]:
    """Make an item of a prompt and its (completion, model) pairs.

    Returns:
        The item, and the candidates' ids in the order given; equal texts have one id and are one candidate.
    """
    candidates = [Candidate(id=candidate_id(turns), messages=turns, model=model) for turns, model in completions]
    known: dict[str, Candidate] = {}
    for candidate in candidates:
        known.setdefault(candidate.id, candidate)
    item = Item(
        id=item_id(prompt),
        source=source,
        licence=licence,
        prompt=prompt,
        candidates=known,
        topic=topic,
        protected=protected,
    )
    return item, [candidate.id for candidate in candidates]


def _digest(messages: Sequence[Message]) -> str:
    parts = [(message["role"], normalise(message["content"])) for message in messages]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]
