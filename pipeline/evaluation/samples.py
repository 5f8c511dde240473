"""The record of an evaluation: one JSON line per item, from which every number can be computed again.

An item without a result keeps its line and says why in ``unscored``, so the lines of a file are the items of the suite.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.evaluation import SuiteKind
from pipeline.errors import ArtifactError, DataError

SAMPLES_FILE = "samples.jsonl"
FINISH_REASONS = ("stop", "length")
ITEM_DIGITS = 16  # of an item's digest: among a million items two are alike by chance once in 10^7

Messages = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSample:
    """What a policy wrote in answer to a prompt."""

    id: str
    cluster: str  # items that are not independent of each other share it
    prompt: Messages
    reference: str | None
    topic: str | None
    completion: str
    finish_reason: str | None  # "stop" at an end-of-turn token, "length" where it was cut; None where unscored
    num_tokens: int
    unscored: str | None = None  # why there is no completion

    def problem(self) -> str | None:
        """Return what contradicts itself in this row."""
        if self.num_tokens < 0:
            return f"num_tokens is {self.num_tokens}"
        if self.unscored is not None:
            held = self.completion or self.finish_reason is not None
            return "an unscored item has a completion or a finish_reason" if held else None
        known = self.finish_reason in FINISH_REASONS
        return None if known else f"finish_reason is {self.finish_reason!r}, not one of {', '.join(FINISH_REASONS)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodSample:
    """How likely a policy finds the reference completion."""

    id: str
    cluster: str
    prompt: Messages
    reference: str | None
    topic: str | None
    completion: Messages
    nats: float | None  # negative log-likelihood, summed over the supervised tokens; None where unscored
    tokens: int  # supervised ones
    bytes: int  # of the supervised text in UTF-8
    unscored: str | None = None

    def problem(self) -> str | None:
        """Return what contradicts itself in this row."""
        if self.unscored is not None:
            return "an unscored item has nats" if self.nats is not None else None
        if self.nats is None or not math.isfinite(self.nats) or self.nats < 0:
            return f"nats is {self.nats}, not a finite negative log-likelihood"
        if self.tokens < 1 or self.bytes < 1:
            return f"tokens is {self.tokens} and bytes is {self.bytes}, and a scored item has at least one of each"
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSample:
    """What somebody else's task made of a policy's answer to one of its items."""

    id: str
    cluster: str
    prompt: Messages
    reference: str | None
    topic: str | None
    completion: str  # empty where the task compares likelihoods
    scores: dict[str, float]  # the task's metrics
    lower_is_better: list[str]  # names of those metrics of which less is better
    unscored: str | None = None

    def problem(self) -> str | None:
        """Return what contradicts itself in this row."""
        if self.unscored is not None:
            return "an unscored item has scores" if self.scores else None
        if not self.scores:
            return "a scored item has no score"
        bad = [name for name, score in self.scores.items() if not math.isfinite(score)]
        return f"{bad[0]} is {self.scores[bad[0]]}" if bad else None


Sample = GenerationSample | LikelihoodSample | ScoredSample
SampleType = TypeVar("SampleType", bound=Sample)
ROW_TYPES: dict[SuiteKind, type[GenerationSample] | type[LikelihoodSample] | type[ScoredSample]] = {
    SuiteKind.generation: GenerationSample,
    SuiteKind.likelihood: LikelihoodSample,
    SuiteKind.lm_eval: ScoredSample,
}

_TEXT: tuple[type, ...] = (str,)
_MESSAGES: tuple[type, ...] = (list,)
_INTEGER: tuple[type, ...] = (int,)
_NUMBER: tuple[type, ...] = (int, float)
_COLUMNS: dict[str, tuple[tuple[type, ...], bool]] = {  # JSON types of each column, and whether it may be null
    "id": (_TEXT, False),
    "cluster": (_TEXT, False),
    "prompt": (_MESSAGES, False),
    "reference": (_TEXT, True),
    "topic": (_TEXT, True),
    "finish_reason": (_TEXT, True),
    "num_tokens": (_INTEGER, False),
    "nats": (_NUMBER, True),
    "tokens": (_INTEGER, False),
    "bytes": (_INTEGER, False),
    "unscored": (_TEXT, True),
    "scores": ((dict,), False),
    "lower_is_better": ((list,), False),
}


def write_samples(path: Path, rows: Iterable[Sample]) -> None:
    """Write the rows in the order of their ids; the same rows give the same bytes.

    Raises:
        DataError: Two rows share an id, or a row contradicts itself.
    """
    ordered = sorted(rows, key=lambda row: row.id)
    lines = []
    for index, row in enumerate(ordered):
        problem = row.problem()
        if index and ordered[index - 1].id == row.id:
            problem = "the id occurs twice"
        if problem:
            raise DataError(f"{path.name}: the item {row.id!r}: {problem}. Correct the stage that made the row.")
        # ASCII escapes keep half a surrogate pair, which UTF-8 has no bytes for.
        lines.append(json.dumps(asdict(row), sort_keys=True, allow_nan=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def read_samples(path: Path, sample_type: type[SampleType]) -> list[SampleType]:
    """Read the rows of a samples file.

    Raises:
        ArtifactError: A line is no row of this type, or the ids are not strictly ascending.
    """
    rows: list[SampleType] = []
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise _damaged(path, content.count(b"\n") + 1, "it ends without a newline, so it was cut")
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise _damaged(path, number, f"no JSON: {error}") from None
        row = _row(values, sample_type, path, number)
        problem = row.problem()
        if rows and row.id <= rows[-1].id:
            problem = f"the id {row.id!r} does not come after {rows[-1].id!r}"
        if problem:
            raise _damaged(path, number, problem)
        rows.append(row)
    return rows


def row_type(kind: SuiteKind) -> type[GenerationSample] | type[LikelihoodSample] | type[ScoredSample]:
    """Return the row type of a kind of suite."""
    return ROW_TYPES[kind]


def same_item(rows: Sequence[Sample]) -> bool:
    """Whether rows of several policies are about the same item."""
    return all(_question(row) == _question(rows[0]) for row in rows)


def item_digest(row: Sample) -> str:
    """Return a digest of what the item is: rows of two evaluations with the same one are about the same item."""
    return hashlib.sha256(json.dumps(_question(row), sort_keys=True).encode("ascii")).hexdigest()[:ITEM_DIGITS]


def _question(row: Sample) -> tuple[Any, ...]:
    """Return what an item is, whatever a policy made of it."""
    asked = (row.id, row.cluster, row.prompt, row.reference, row.topic)
    return (*asked, row.completion, row.bytes) if isinstance(row, LikelihoodSample) else asked


def _row(values: Any, sample_type: type[SampleType], path: Path, number: int) -> SampleType:
    expected = {field.name for field in fields(sample_type)}
    if not isinstance(values, dict) or values.keys() != expected:
        found = ", ".join(sorted(values)) if isinstance(values, dict) else type(values).__name__
        raise _damaged(path, number, f"a {sample_type.__name__} has {', '.join(sorted(expected))}, not {found}")
    for name, value in values.items():
        if not _fits(name, value, sample_type):
            raise _damaged(path, number, f"{name} cannot be {value!r}")
    return sample_type(**values)


def _fits(name: str, value: Any, sample_type: type[Any]) -> bool:
    written = _MESSAGES if sample_type is LikelihoodSample else _TEXT
    types, nullable = (written, False) if name == "completion" else _COLUMNS[name]
    if value is None:
        return nullable
    if name == "scores":
        return isinstance(value, dict) and all(_is_number(score) for score in value.values())
    if types is _MESSAGES:
        return isinstance(value, list) and all(_is_message(message) for message in value)
    return isinstance(value, types) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {"role", "content"}
        and all(isinstance(text, str) for text in value.values())
    )


def _damaged(path: Path, number: int, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{path}:{number}: {problem}. These samples are unusable; delete their folder and run the evaluation again."
    )
