"""The record of a judge: one JSON line per question, from which every win rate can be computed again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.config.evaluation import CriterionConfig
from pipeline.errors import ArtifactError
from pipeline.evaluation.judges.protocol import Answer, Judge, Order, Question, Status
from pipeline.evaluation.samples import GenerationSample

VERDICTS_FILE = "verdicts.jsonl"
IDENTICAL = "identical"  # detail of a pair that says the same on both sides: half a win each, and nobody was asked


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictRow:
    """What became of one question."""

    id: str
    cluster: str
    order: str | None  # "ab", "ba", or None for a single completion
    # Of a pair in [0, 1]: 1 is the FIRST NAMED policy, whatever the order shown. None where the status is not ok.
    score: float | None
    status: str
    detail: str | None = None
    criterion: str | None = None  # of a rating of a single completion, from 1 to 5

    def problem(self) -> str | None:
        """Return what contradicts itself in this row."""
        if self.status not in list(Status) or (self.order is not None and self.order not in list(Order)):
            return f"its status is {self.status!r} and its order {self.order!r}"
        if (self.score is None) is (self.status == Status.ok):
            return f"its status is {self.status} and its score {self.score}"
        low, high = (0, 1) if self.order else (1, 5) if self.criterion else (-math.inf, math.inf)
        in_range = self.score is None or low <= self.score <= high
        return None if in_range else f"its score {self.score} lies outside [{low}, {high}]"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The questions about the items of a suite, and the rows of those that need no judge."""

    questions: list[Question]
    settled: list[VerdictRow]
    clusters: Mapping[str, str]  # item -> cluster
    missing: int  # items of which a policy has no completion: nothing can be asked about them


def questions_about(samples: Sequence[Sequence[GenerationSample]], judge: Judge) -> Asked:
    """Return what a judge is asked about the samples of one policy, or of two on the same items.

    Raises:
        ArtifactError: The two policies were not given the same items.
    """
    first = {row.id: row for row in samples[0]}
    others = [{row.id: row for row in rows} for rows in samples[1:]]
    if any(other.keys() != first.keys() for other in others):
        raise ArtifactError("Two policies that are to be compared were not given the same items of the suite.")
    questions: list[Question] = []
    settled: list[VerdictRow] = []
    missing = 0
    for item in sorted(first):
        rows = [first[item], *(other[item] for other in others)]
        if any(row.unscored is not None for row in rows):
            missing += 1
            continue
        texts = tuple(row.completion for row in rows)
        for order in judge.orders:
            if len(texts) == 2 and texts[0] == texts[1]:
                settled.append(
                    VerdictRow(id=item, cluster=rows[0].cluster, order=order, score=0.5, status="ok", detail=IDENTICAL)
                )
                continue
            shown = texts[::-1] if order is Order.ba else texts
            questions.append(
                Question(id=item, prompt=rows[0].prompt, shown=shown, order=order, reference=rows[0].reference)
            )
    clusters = {item: row.cluster for item, row in first.items()}
    return Asked(questions=questions, settled=settled, clusters=clusters, missing=missing)


def rating_questions(rows: Sequence[GenerationSample], rubric: Sequence[CriterionConfig]) -> Asked:
    """Return what a judge is asked about single completions: every item by every criterion."""
    scored = [row for row in rows if row.unscored is None]
    questions = [
        Question(id=row.id, prompt=row.prompt, shown=(row.completion,), order=None, criterion=criterion)
        for row in sorted(scored, key=lambda row: row.id)
        for criterion in rubric
    ]
    clusters = {row.id: row.cluster for row in rows}
    return Asked(questions=questions, settled=[], clusters=clusters, missing=len(rows) - len(scored))


def verdict_row(question: Question, answer: Answer, cluster: str) -> VerdictRow:
    """Return the row of an answer: what was said of the first shown becomes what is said of the first named."""
    score = answer.score
    if score is not None and question.order is Order.ba:
        score = 1 - score
    return VerdictRow(
        id=question.id,
        cluster=cluster,
        order=question.order,
        score=score,
        status=answer.status,
        detail=answer.detail,
        criterion=question.criterion.name if question.criterion else None,
    )


def write_verdicts(path: Path, rows: Iterable[VerdictRow]) -> None:
    """Write the rows in the order of their ids; the same rows give the same bytes."""
    ordered = sorted(rows, key=lambda row: (row.id, row.criterion or "", row.order or ""))
    # ASCII escapes keep half a surrogate pair, which UTF-8 has no bytes for.
    lines = [json.dumps(asdict(row), sort_keys=True, allow_nan=False) + "\n" for row in ordered]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def read_verdicts(path: Path) -> list[VerdictRow]:
    """Read the rows of a verdicts file.

    Raises:
        ArtifactError: A line is no verdict, or occurs twice.
    """
    expected = {field.name for field in fields(VerdictRow)}
    rows: list[VerdictRow] = []
    seen: set[tuple[str | None, ...]] = set()
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            values: Any = json.loads(line)
        except ValueError as error:
            raise _damaged(path, number, f"no JSON: {error}") from None
        if not isinstance(values, dict) or values.keys() != expected:
            raise _damaged(path, number, f"a verdict has {', '.join(sorted(expected))}")
        row = VerdictRow(**values)
        problem = "it occurs twice" if (row.id, row.order, row.criterion) in seen else row.problem()
        if problem:
            raise _damaged(path, number, problem)
        seen.add((row.id, row.order, row.criterion))
        rows.append(row)
    return rows


def _damaged(path: Path, number: int, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{path}:{number}: {problem}. These verdicts are unusable; delete their folder and run the evaluation again."
    )
