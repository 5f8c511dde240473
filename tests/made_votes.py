"""Items and votes that tests make up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pipeline.data.rows import Message
from pipeline.labels.votes import Item, Scale, Vote, make_item


@dataclass
class Ballots:
    """Votes on items whose completions are named by the letter with which their texts begin."""

    items: dict[str, Item] = field(default_factory=dict)
    votes: list[Vote] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def item(self, texts: Iterable[str] = "AB", prompt: str = "question", **more: Any) -> str:
        """Add an item with these completions and return its id."""
        turns: list[tuple[list[Message], str | None]] = [
            ([{"role": "assistant", "content": text}], None) for text in texts
        ]
        question: list[Message] = [{"role": "user", "content": prompt}]
        item, _ = make_item(question, turns, source="made", licence="CC0-1.0", **more)
        self.items[item.id] = item
        return item.id

    def candidate(self, item: str, letter: str) -> str:
        """Return the id of the completion that begins with ``letter``."""
        candidates = self.items[item].candidates.values()
        (found,) = (one.id for one in candidates if one.messages[0]["content"].startswith(letter))
        return found

    def vote(
        self,
        item: str,
        order: str,
        by: str | None = None,
        *,
        shown: str | None = None,
        ratings: dict[str, float | None] | None = None,
        **more: Any,
    ) -> Vote:
        """Add a judgement.

        Args:
            item: On which item.
            order: The completions best first, where ``=`` joins equals and ``|`` starts those not placed: "A>B=C|D" is
                written "AB=C|D".
            by: The annotator.
            shown: The completions in the order in which they stood on the screen.
            ratings: Of each completion, instead of an order.
            more: Further fields of the vote.
        """
        places = _places(order)
        ids = {self.candidate(item, letter): letter for letter in places}
        candidates = tuple(sorted(ids))
        values: dict[str, Any] = {
            "id": f"v{next(self.numbers)}",
            "source": "made",
            "item": item,
            "annotator": by,
            "question": "",
            "scale": Scale.pairwise if len(candidates) == 2 else Scale.ranking,
            "candidates": candidates,
            "ranks": tuple(places[ids[key]] for key in candidates),
        }
        if ratings is not None:
            values |= {"scale": Scale.rating, "ratings": tuple(ratings[ids[key]] for key in candidates)}
        if shown is not None:
            values["positions"] = tuple(shown.index(ids[key]) for key in candidates)
        vote = Vote(**(values | more))
        self.votes.append(vote)
        return vote

    def rate(self, item: str, by: str | None = None, /, **ratings: float | None) -> Vote:
        """Add ratings of completions by their letters."""
        return self.vote(item, "=".join(ratings), by, ratings=ratings)


def _places(order: str) -> dict[str, int | None]:
    placed, _, unplaced = order.partition("|")
    places: dict[str, int | None] = dict.fromkeys(unplaced)
    rank = num_placed = 0
    for before, letter in zip(f" {placed}", placed, strict=False):
        if letter != "=":
            num_placed += 1
            rank = rank if before == "=" else num_placed
            places[letter] = rank
    return places
