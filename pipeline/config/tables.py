"""Declared tables: which column of a file of judgements or demonstrations is what, each a file of `configs/table/`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.fields import MISSING, option
from pipeline.config.schema import schema_of
from pipeline.config.suggestions import explain_unknown_key
from pipeline.config.validation import out_of_bounds
from pipeline.errors import ConfigError


class Outcome(StrEnum):
    """What a verdict on two completions says."""

    first = "first"
    second = "second"
    tie = "tie"
    skip = "skip"  # no verdict was given


@dataclass(kw_only=True)
class VerdictConfig:
    """A column that says which of two completions is better."""

    column: str = MISSING
    # Whose it is, where each annotator has a column of their own; else `annotator` of the table says it.
    annotator: str | None = None


@dataclass(kw_only=True)
class TableConfig:
    """How a table is read. Every name is a column; columns that are not named here are not read."""

    name: str = MISSING
    description: str = ""
    recognise: list[str] = option(factory=list)  # a file that has all these is read so; empty: only where it is named
    unless: list[str] = option(factory=list)  # and none of these

    prompt: list[str] = option(factory=list)  # joined by an empty line, empty ones left out; or one that holds turns
    system: str | None = None
    messages: str | None = None  # the whole conversation, of which the last turn is the completion

    completions: list[str] = option(factory=list)  # one column each, in the order in which they were shown
    completion_list: str | None = None  # or one column with a list of them
    models: list[str] = option(factory=list)  # who wrote each, in the same order; one with a list for a list
    chosen: str | None = None  # or the better one and the worse one; without a prompt both hold the conversation
    rejected: str | None = None

    verdicts: list[VerdictConfig] = option(factory=list)
    values: dict[str, Outcome] = option(factory=dict)  # what a verdict's value says, upper and lower case alike
    ratings: list[str] = option(factory=list)  # one column per completion, or one with a list
    lowest: float | None = None  # a rating outside is no vote
    highest: float | None = None
    ranks: list[str] = option(factory=list)  # the same with places: the lowest number is the best, equal ones a tie
    thumbs: str | None = None  # whether the one completion is good
    good: list[str] = option(factory=lambda: ["true", "1"])  # values of `thumbs`
    bad: list[str] = option(factory=lambda: ["false", "0"])
    missing: list[str] = option(factory=lambda: [""])  # values that say that a judgement was not given

    question: str = ""  # what was asked, for files that are read together with others
    annotator: str | None = None  # who judged; an empty cell is nobody in particular
    strength: str | None = None  # of the preference, never negative
    swapped: str | None = None  # true where the second completion was shown on the left or first
    created: str | None = None
    seconds: str | None = None  # that the judgement took
    id: str | None = None
    topic: str | None = None

    def columns(self) -> list[str]:
        """Return every column that the table reads."""
        single = (
            self.system, self.messages, self.completion_list, self.chosen, self.rejected, self.thumbs, self.annotator,
            self.strength, self.swapped, self.created, self.seconds, self.id, self.topic,
        )  # fmt: skip
        lists = (self.prompt, self.completions, self.models, self.ratings, self.ranks)
        verdicts = [verdict.column for verdict in self.verdicts]
        return [*(name for names in lists for name in names), *verdicts, *(name for name in single if name is not None)]


def load_tables(search_path: list[Path]) -> dict[str, TableConfig]:
    """Read every ``table/<name>.yaml`` strictly, the first of a name on the search path.

    Raises:
        ConfigError: A file has an unknown key, a wrong value, or columns that make no table.
    """
    files: dict[str, Path] = {}
    for folder in search_path:
        for file in sorted((folder / "table").glob("*.yaml")):
            files.setdefault(file.stem, file)
    return {name: _load(name, files[name]) for name in sorted(files)}


def _load(name: str, path: Path) -> TableConfig:
    """Read one table."""
    try:
        return _table(name, path.read_text(encoding="utf-8"))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        message = str(error)
        raise ConfigError(f"{path}: {explain_unknown_key(message, TableConfig) or message}") from error
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in str(error).splitlines())) from error


@cache  # the tables that come with us take a fifth of the time of composing
def _table(name: str, content: str) -> TableConfig:
    """Return the table that a file describes.

    Raises:
        ConfigError: What is wrong with it, one problem a line.
    """
    written = _text_keys(OmegaConf.to_container(OmegaConf.load(io.StringIO(content)), resolve=True))
    if not isinstance(written, dict):
        raise ConfigError("a table is a mapping of keys such as `prompt` and `completions`.")
    table = cast("TableConfig", OmegaConf.to_object(OmegaConf.merge(schema_of(TableConfig), {"name": name}, written)))
    problems = [*out_of_bounds(table, ""), *_problems(table)]
    if problems:
        raise ConfigError("\n".join(problems))
    return table


def _text_keys(value: Any) -> Any:
    """Write the keys of `values` as the text that cells hold, so that `1: first` needs no quotes."""
    if isinstance(value, dict):
        return {
            str(key).lower() if isinstance(key, bool) else str(key): _text_keys(item) for key, item in value.items()
        }
    return value


def _problems(table: TableConfig) -> Iterator[str]:
    """Yield what keeps the columns from being a table."""
    if len(table.unless) and not table.recognise:
        yield "unless: it only narrows `recognise`, which is empty."
    yield from _completion_problems(table)
    judged = {
        "verdicts": table.verdicts, "ratings": table.ratings, "ranks": table.ranks, "thumbs": table.thumbs,
        "chosen": table.chosen,
    }  # fmt: skip
    if len(given := [key for key, value in judged.items() if value]) > 1:
        yield f"{', '.join(given)}: a table holds one kind of judgement. Keep one, and write a second table."
    if not given and len(table.completions) > 1:
        yield "completions: nothing says which is better. Name verdicts, ratings or ranks."
    if (table.chosen is None) != (table.rejected is None):
        yield "chosen and rejected: name both or neither."
    if table.verdicts and not table.values:
        yield "values: it says what the values of `verdicts` mean, and is empty."
    if table.verdicts and not table.completion_list and len(table.completions) != 2:
        yield "completions: a verdict is on two of them."
    for key in ("ratings", "ranks"):
        columns = getattr(table, key)
        expected = 1 if table.completion_list else len(table.completions)
        if columns and len(columns) != expected:
            yield f"{key}: {len(columns)} columns for {expected} of completions."
    if table.thumbs and not table.messages and len(table.completions) != 1:
        yield "completions: thumbs are on one of them."
    if table.lowest is not None and table.highest is not None and table.lowest >= table.highest:
        yield f"lowest={table.lowest:g}: must be less than highest={table.highest:g}."
    if both := sorted({text.casefold() for text in table.good} & {text.casefold() for text in table.bad}):
        yield f"good and bad: {', '.join(both)} is in both."


def _completion_problems(table: TableConfig) -> Iterator[str]:
    """Yield what is wrong with where prompts and completions stand."""
    places = {
        "messages": table.messages, "completions": table.completions, "completion_list": table.completion_list,
        "chosen": table.chosen,
    }  # fmt: skip
    if len(given := [key for key, value in places.items() if value]) != 1:
        yield f"messages, completions, completion_list, chosen: name one of them, not {', '.join(given) or 'none'}."
    if table.messages and (table.prompt or table.system):
        yield "messages: it is the whole conversation; remove `prompt` and `system`."
    if not table.messages and not table.prompt and not table.chosen:
        yield "prompt: no column is named."
    expected = 1 if table.completion_list else len(table.completions)
    if table.models and len(table.models) != expected:
        yield f"models: {len(table.models)} columns for {expected} of completions."
