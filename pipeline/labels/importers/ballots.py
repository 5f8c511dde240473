"""Items, votes and demonstrations of one export, written so that every importer does it alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.data import SourceSplit
from pipeline.config.suggestions import near_miss
from pipeline.data.building import with_id
from pipeline.data.rows import BadRowError, Demonstration, Message, Reason, check_id
from pipeline.errors import ConfigError
from pipeline.labels.importers.registry import ImportContext
from pipeline.labels.votes import Imported, Item, Scale, Status, Vote, make_item, person, says_nothing


@dataclass(kw_only=True)
class Judgement:
    """One judgement as an export states it; its sequences are in the order in which the export names completions."""

    scale: Scale
    on: Sequence[int] | None = None  # which of the record's completions; None is all of them
    ranks: Sequence[int | None] | None = None
    ratings: Sequence[float | None] | None = None  # `ranks` follow from them
    annotator: str | None = None
    question: str = ""
    strength: float | None = None
    positions: Sequence[int] | None = None
    created: str | None = None
    seconds: float | None = None
    status: Status = Status.submitted
    note: str | None = None
    id: str | None = None  # of the annotation, where the export has one


def invalid(scale: Scale, problem: BadRowError, **known: Any) -> Judgement:
    """Return a judgement that does not count, with the reason; the others of its record stay."""
    return Judgement(scale=scale, status=Status.invalid, note=str(problem), **known)


def places(ratings: Sequence[float | None]) -> list[int | None]:
    """Return the place of each rating: 1 is the highest, equal ones share a place, None has none."""
    given = [rating for rating in ratings if rating is not None]
    return [None if rating is None else 1 + sum(other > rating for other in given) for rating in ratings]


class Ballots:
    """Writes what the records of one export hold. Votes without an id are numbered in order of the file."""

    def __init__(self, context: ImportContext, tool: str, *, columns: Collection[str] = ()) -> None:
        """Remember what all votes of the export share.

        Args:
            context: What the source says.
            tool: Name of the importer.
            columns: Fields that `columns` of the source may map.

        Raises:
            ConfigError: The source maps another field.
        """
        for name in context.source.columns:
            if name not in columns:
                known = f"It maps: {', '.join(columns)}." if columns else "Its columns are fixed: remove the key."
                raise ConfigError(
                    f"{context.key}.columns.{name}: the importer `{tool}` has no such field.{near_miss(name, columns)} "
                    f"{known}"
                )
        self._context = context
        self._tool = tool
        self._num_records = 0

    def item(
        self, prompt: list[Message], completions: Sequence[tuple[list[Message], str | None]], topic: str | None = None
    ) -> tuple[Item, list[str]]:
        """Make the item of a prompt and its (completion, model) pairs; return it and the candidates' ids in order."""
        source = self._context.source
        return make_item(
            prompt,
            completions,
            source=self._context.name,
            licence=source.licence,
            topic=topic,
            protected=source.split is SourceSplit.test,
        )

    def imported(
        self,
        prompt: list[Message],
        completions: Sequence[tuple[list[Message], str | None]],
        judgements: Sequence[Judgement],
        *,
        topic: str | None = None,
        notices: Sequence[str] = (),
    ) -> Imported:
        """Return a record with one item and the judgements on all its completions; with none it is unlabelled."""
        item, order = self.item(prompt, completions, topic)
        self._num_records += 1
        votes = [self._vote(item, order, judgement, index) for index, judgement in enumerate(judgements)]
        return Imported(items=[item], votes=votes, unlabelled=0 if votes else 1, notices=list(notices))

    def better(self, prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Imported:
        """Return a record that says which of two completions is better, and nothing more."""
        judgement = Judgement(scale=Scale.pairwise, ranks=(1, 2))
        return self.imported(prompt, [(chosen, None), (rejected, None)], [judgement])

    def _vote(self, item: Item, completions: Sequence[str], judgement: Judgement, index: int) -> Vote:
        """Write a judgement as a vote, whose candidates are in order of id."""
        shown = completions if judgement.on is None else [completions[place] for place in judgement.on]
        order = sorted(range(len(shown)), key=lambda place: shown[place])
        ratings, positions = judgement.ratings, judgement.positions
        ranks = judgement.ranks if ratings is None else places(ratings)
        return Vote(
            id=judgement.id or f"{self._context.name}:{self._num_records}.{index}",
            source=self._context.name,
            item=item.id,
            annotator=None if judgement.annotator is None else person(judgement.annotator),
            question=judgement.question,
            scale=judgement.scale,
            candidates=tuple(shown[place] for place in order),
            ranks=None if ranks is None else tuple(ranks[place] for place in order),
            ratings=None if ratings is None else tuple(ratings[place] for place in order),
            strength=judgement.strength,
            positions=None if positions is None else tuple(positions[place] for place in order),
            created=judgement.created,
            seconds=judgement.seconds,
            tool=self._tool,
            status=judgement.status,
            note=judgement.note,
        )

    def demonstration(
        self, prompt: list[Message], completion: list[Message], *, given_id: object = None, topic: str | None = None
    ) -> Demonstration:
        """Make a conversation to imitate; one without an id is named after its content.

        Raises:
            BadRowError: E_EMPTY, the completion has no visible text.
        """
        if says_nothing(completion):
            raise BadRowError(Reason.empty, "the completion has no visible text: there is nothing to imitate")
        row = Demonstration(
            id="" if given_id is None or given_id == "" else check_id(given_id),
            source=self._context.name,
            licence=self._context.source.licence,
            prompt=prompt,
            completion=completion,
            topic=topic,
        )
        return with_id(row)
