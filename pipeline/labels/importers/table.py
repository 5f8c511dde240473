"""The importer that a declared table makes: columns to votes or demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.suggestions import near_miss
from pipeline.config.tables import Outcome, TableConfig, VerdictConfig
from pipeline.data.building import preference, refuse_meaningful_columns
from pipeline.data.rows import (
    BadRowError,
    Message,
    Reason,
    check_conversation,
    check_text,
    is_blank,
    split_demonstration,
)
from pipeline.data.turns import as_turns, plain_turns, with_system
from pipeline.errors import ConfigError, DataError
from pipeline.labels.importers.ballots import Ballots, Judgement, invalid
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most
from pipeline.labels.importers.values import (
    completion_turns,
    exchange,
    label_text,
    listed,
    number,
    shown,
    text_or_none,
    utc,
)
from pipeline.labels.votes import Imported, Scale, Status

_RANKS: dict[Outcome, tuple[int, int]] = {Outcome.first: (1, 2), Outcome.second: (2, 1), Outcome.tie: (1, 1)}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def table_importer(table: TableConfig) -> Importer:
    """Make the importer of a table."""

    def recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
        needed, excluded = set(table.recognise), set(table.unless)
        return bool(needed) and most(needed <= set(fields) and not excluded & set(fields) for fields in sample)

    def open_table(context: ImportContext) -> ReadRecord:
        return _TableReader(table, _file_columns(table, context), context).read

    return Importer(name=table.name, recognises=recognises, open=open_table)


def _file_columns(table: TableConfig, context: ImportContext) -> dict[str, str]:
    """Return the file's column for every column of the table, after a look at whether the file has it.

    Raises:
        ConfigError: The source renames a column that the table does not have.
        DataError: The file lacks a column without which nothing can be read.
    """
    own, given = table.columns(), context.source.columns
    present = list(dict.fromkeys(name for fields in context.sample for name in fields))
    for name in given:
        if name not in own:
            raise ConfigError(
                f"{context.key}.columns.{name}: the table `{table.name}` has no such column.{near_miss(name, own)} "
                f"Its columns: {', '.join(own)}."
            )
    columns = {name: given.get(name, name) for name in own}
    needed = [
        *table.prompt[:1], *table.completions, *table.ratings, *table.ranks,
        *(name for name in (table.messages, table.completion_list, table.chosen, table.rejected, table.thumbs) if name),
    ]  # fmt: skip
    judged_in = [verdict.column for verdict in table.verdicts]
    if judged_in and not any(columns[name] in present for name in judged_in):
        needed.append(judged_in[0])
    for name in dict.fromkeys([*needed, *given]):
        if columns[name] not in present:
            shown_names = ", ".join(shown(column) for column in present[:20])
            raise DataError(
                f"{context.path} has no column {columns[name]!r}, which the table `{table.name}` reads."
                f"{near_miss(columns[name], present)} Its columns: {shown_names}. "
                f"Set `{context.key}.columns`, as in {{{name}: its name in the file}}."
            )
    return columns


class _TableReader:
    """Reads the records of one file through a table."""

    def __init__(self, table: TableConfig, columns: dict[str, str], context: ImportContext) -> None:
        self._table = table
        self._columns = columns
        self._ballots = Ballots(context, table.name, columns=list(columns))
        self._missing = {text.strip().casefold() for text in table.missing}
        self._values = {text.strip().casefold(): outcome for text, outcome in table.values.items()}

    def read(self, fields: dict[str, Any]) -> Imported:
        """Read one record."""
        table = self._table
        refuse_meaningful_columns(fields, self._columns.values())
        topic = text_or_none(self._get(fields, table.topic), "topic")
        if table.chosen is not None:
            sides = {name: self._need(fields, name) for name in (table.chosen, table.rejected) if name is not None}
            asked = self._prompt(fields) if table.prompt else None
            prompt, chosen, rejected = preference(sides, asked=asked, system=self._system(fields))
            judgement = self._judgement(fields, Scale.pairwise, ranks=(1, 2))
            return self._ballots.imported(prompt, [(chosen, None), (rejected, None)], [judgement], topic=topic)
        prompt, completions = self._completions(fields)
        judgements = self._judgements(fields, len(completions))
        if judgements is not None:
            models = self._models(fields, len(completions))
            return self._ballots.imported(prompt, list(zip(completions, models, strict=True)), judgements, topic=topic)
        given_id = self._get(fields, table.id)
        rows = [self._ballots.demonstration(prompt, turns, given_id=given_id, topic=topic) for turns in completions]
        return Imported(demonstrations=rows)

    def _get(self, fields: Mapping[str, Any], column: str | None) -> Any:
        return None if column is None else fields.get(self._columns[column])

    def _need(self, fields: Mapping[str, Any], column: str) -> Any:
        value = self._get(fields, column)
        if value is None:
            name = self._columns[column]
            raise BadRowError(Reason.schema, f"the column {name!r} is {'null' if name in fields else 'missing'}")
        return value

    def _prompt(self, fields: Mapping[str, Any]) -> list[Any]:
        """Return the prompt's turns, unchecked: those of its one column, or the text of several."""
        table = self._table
        first = self._need(fields, table.prompt[0])
        if isinstance(first, list):
            return as_turns(first, "user", table.prompt[0])
        texts = [check_text(first, table.prompt[0])]
        texts += [text_or_none(self._get(fields, column), column) or "" for column in table.prompt[1:]]
        whole = "\n\n".join(text for text in texts if not is_blank(text))
        return as_turns(whole, "user", " and ".join(table.prompt))

    def _system(self, fields: Mapping[str, Any]) -> str | None:
        return text_or_none(self._get(fields, self._table.system), "system")

    def _completions(self, fields: Mapping[str, Any]) -> tuple[list[Message], list[list[Message]]]:
        """Return the prompt and its completions, checked."""
        table = self._table
        if table.messages is not None:
            turns = plain_turns(listed(self._need(fields, table.messages), table.messages))
            if table.thumbs is not None:
                return exchange(turns[:-1], [turns[-1:]])
            prompt, completion = split_demonstration(check_conversation(turns))
            return prompt, [completion]
        asked = with_system(self._system(fields), self._prompt(fields))
        if table.completion_list is not None:
            name = table.completion_list
            values = listed(self._need(fields, name), name)
            if not values:
                raise BadRowError(Reason.empty, f"{name} has no completions")
            sides = [completion_turns(value, f"{name}[{index}]") for index, value in enumerate(values)]
        else:
            sides = [completion_turns(self._need(fields, name), name) for name in table.completions]
        return exchange(asked, sides)

    def _models(self, fields: Mapping[str, Any], expected: int) -> list[str | None]:
        """Return who wrote each completion, where the file says."""
        table = self._table
        if not table.models:
            return [None] * expected
        values = [self._get(fields, column) for column in table.models]
        if table.completion_list is not None:
            values = [] if values[0] is None else listed(values[0], table.models[0])
        if len(values) != expected:
            raise BadRowError(Reason.schema, f"{len(values)} models for {expected} completions")
        return [text_or_none(value, "model") for value in values]

    def _judgements(self, fields: Mapping[str, Any], num_completions: int) -> list[Judgement] | None:
        """Return what was judged; None where the table holds no judgements but completions to imitate."""
        table = self._table
        if table.verdicts:
            if num_completions != 2:
                raise BadRowError(Reason.schema, f"a verdict is on two completions, not on {num_completions}")
            found = [self._verdict(fields, verdict) for verdict in table.verdicts]
            return [judgement for judgement in found if judgement is not None]
        if table.thumbs is not None:
            return self._thumbs(fields)
        if table.ratings or table.ranks:
            return self._numbers(fields, num_completions)
        return None

    def _verdict(self, fields: Mapping[str, Any], verdict: VerdictConfig) -> Judgement | None:
        """Return the judgement in one column, or None where it is empty."""
        value = self._get(fields, verdict.column)
        if self._is_missing(value):
            return None
        known: dict[str, Any] = {"annotator": verdict.annotator}
        try:
            known["positions"] = (1, 0) if self._is_swapped(fields) else (0, 1)
        except BadRowError as error:
            return self._judgement(fields, Scale.pairwise, problem=error, **known)
        outcome = self._values.get(label_text(value))
        if outcome is None:
            allowed = ", ".join(self._values)
            problem = BadRowError(Reason.label, f"{verdict.column} is {shown(value)}, which is none of {allowed}")
            return self._judgement(fields, Scale.pairwise, problem=problem, **known)
        if outcome is Outcome.skip:
            return self._judgement(fields, Scale.pairwise, status=Status.skipped, **known)
        return self._judgement(fields, Scale.pairwise, ranks=_RANKS[outcome], **known)

    def _is_swapped(self, fields: Mapping[str, Any]) -> bool:
        """Return whether the second completion was shown first; an empty cell says that it was not."""
        value = self._get(fields, self._table.swapped)
        if self._is_missing(value):
            return False
        if (text := label_text(value)) in _TRUTH:
            return _TRUTH[text]
        raise BadRowError(
            Reason.label, f"{self._table.swapped} is {shown(value)}, which is none of {', '.join(_TRUTH)}"
        )

    def _thumbs(self, fields: Mapping[str, Any]) -> list[Judgement]:
        """Return whether the one completion was called good."""
        table = self._table
        value = self._get(fields, table.thumbs)
        if self._is_missing(value):
            return []
        label = label_text(value)
        for rating, labels in ((1.0, table.good), (0.0, table.bad)):
            if label in {text.casefold() for text in labels}:
                return [self._judgement(fields, Scale.thumbs, ratings=(rating,))]
        allowed = ", ".join([*table.good, *table.bad])
        problem = BadRowError(Reason.label, f"{table.thumbs} is {shown(value)}, which is none of {allowed}")
        return [self._judgement(fields, Scale.thumbs, problem=problem)]

    def _numbers(self, fields: Mapping[str, Any], expected: int) -> list[Judgement]:
        """Return the ratings or the places of all completions."""
        table = self._table
        scale, columns = (Scale.rating, table.ratings) if table.ratings else (Scale.ranking, table.ranks)
        values: list[Any] = [self._get(fields, column) for column in columns]
        if table.completion_list is not None:
            values = [] if self._is_missing(values[0]) else listed(values[0], columns[0])
        if all(self._is_missing(value) for value in values):
            return []
        positions = tuple(range(expected))
        try:
            if len(values) != expected:
                raise BadRowError(Reason.label, f"{len(values)} judgements for {expected} completions")
            numbers = [None if self._is_missing(value) else self._in_scale(value, columns[0]) for value in values]
        except BadRowError as problem:
            return [self._judgement(fields, scale, problem=problem, positions=positions)]
        if scale is Scale.rating:
            return [self._judgement(fields, scale, ratings=numbers, positions=positions)]
        placed = sorted({place for place in numbers if place is not None})
        ranks = [None if place is None else 1 + placed.index(place) for place in numbers]
        return [self._judgement(fields, scale, ranks=ranks, positions=positions)]

    def _in_scale(self, value: Any, column: str) -> float:
        rating, table = number(value, column), self._table
        low, high = table.lowest, table.highest
        if (low is not None and rating < low) or (high is not None and rating > high):
            raise BadRowError(Reason.label, f"{column} is {rating:g}, which lies outside its scale")
        return rating

    def _is_missing(self, value: Any) -> bool:
        return value is None or (isinstance(value, str | int | float) and label_text(value) in self._missing)

    def _judgement(
        self, fields: Mapping[str, Any], scale: Scale, *, problem: BadRowError | None = None, **known: Any
    ) -> Judgement:
        """Add to a judgement what other columns say of it; one that they contradict does not count."""
        table = self._table
        known["question"] = table.question
        who = self._get(fields, table.annotator)
        if known.get("annotator") is None and not self._is_missing(who):
            known["annotator"] = check_text(who, "annotator") if isinstance(who, str) else label_text(who)
        try:
            known["created"] = utc(self._get(fields, table.created))
            for name, column in (("strength", table.strength), ("seconds", table.seconds)):
                value = self._get(fields, column)
                known[name] = None if self._is_missing(value) else number(value, name)
                if known[name] is not None and known[name] < 0:
                    raise BadRowError(Reason.label, f"{name} is {known.pop(name):g}, which is less than nothing")
        except BadRowError as error:
            problem = problem or error
        if problem is not None:
            known = {key: value for key, value in known.items() if key not in ("ranks", "ratings", "status")}
            return invalid(scale, problem, **known)
        return Judgement(scale=scale, **known)
