"""What an answer in Argilla says of the completions of its record: a preference, an order or ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.rows import BadRowError, Reason
from pipeline.labels.importers.ballots import Judgement, invalid
from pipeline.labels.importers.label_studio_wording import read_choice, split_mark
from pipeline.labels.importers.values import number, shown
from pipeline.labels.votes import Scale, Status

# Ratings by completion, of one person on one question; several where the person rated a completion again.
Ratings = dict[tuple[str, str | None, Status], list[dict[int, float]]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of one person, or of a model."""

    question: str
    value: Any
    annotator: str | None
    status: Status


def judgements_of(answers: Sequence[Answer], names: Sequence[str], notices: list[str]) -> list[tuple[str, Judgement]]:
    """Return what answers say of the completions, each with the part of its vote's id that is its own."""
    found: list[tuple[str, Judgement]] = []
    ratings: Ratings = {}
    for answer in answers:
        known: dict[str, Any] = {"annotator": answer.annotator, "question": answer.question, "status": answer.status}
        own = f"{answer.question}:{answer.annotator}"
        value = answer.value
        try:
            if value is None:
                found.append((own, Judgement(scale=Scale.pairwise, **known)))
            elif isinstance(value, int | float) and not isinstance(value, bool):
                _rate(answer, names, ratings, notices)
            elif isinstance(value, list):
                if (ranks := _order(value, names)) is None:
                    notices.append(f"answers to `{answer.question}` are labels or spans, which judge no completion")
                else:
                    found.append((own, Judgement(scale=Scale.ranking, ranks=ranks, **known)))
            else:
                found.append((own, _choice(value, names, known)))
        except BadRowError as problem:
            del known["status"]
            found.append((own, invalid(Scale.pairwise, problem, **known)))
    for (question, annotator, status), rounds in ratings.items():
        for given in rounds:
            on = sorted(given)
            judgement = Judgement(
                scale=Scale.rating, on=on, ratings=[given[index] for index in on], annotator=annotator,
                question=question, status=status,
            )  # fmt: skip
            found.append((f"{question}:{annotator}", judgement))
    return found


def _rate(answer: Answer, names: Sequence[str], ratings: Ratings, notices: list[str]) -> None:
    """Put a rating to the same person's others: `quality_1` and `quality_2` are one question on two completions."""
    mark = split_mark(answer.question)
    question, index = mark if mark is not None and mark[1] < len(names) and len(names) > 1 else (answer.question, 0)
    if question == answer.question and len(names) > 1:
        notices.append(f"ratings in `{answer.question}` are not read: nothing says which completion they are on")
        return
    value = number(answer.value, question)
    rounds = ratings.setdefault((question, answer.annotator, answer.status), [])
    if (open_round := next((given for given in rounds if index not in given), None)) is None:
        rounds.append(open_round := {})
    open_round[index] = value


def _order(value: list[Any], names: Sequence[str]) -> list[int | None] | None:
    """Return the place of each completion in a ranking; None where the list is something else."""
    if value and all(isinstance(entry, dict) and "rank" in entry for entry in value):
        pairs = [(entry.get("value"), number(entry["rank"], "rank")) for entry in value if entry["rank"] is not None]
    elif all(isinstance(entry, str) for entry in value):
        if not set(value) & set(names):
            return None
        pairs = [(name, float(place)) for place, name in enumerate(value)]
    else:
        return None
    ranked = [name for name, _ in pairs]
    if strange := [name for name in ranked if name not in names]:
        raise BadRowError(Reason.label, f"the ranking names {shown(strange[0])}, which is no completion of this record")
    if len(set(ranked)) < len(ranked):
        raise BadRowError(Reason.label, "the ranking names a completion twice")
    placed = sorted({place for _, place in pairs})
    by_name = {name: 1 + placed.index(place) for name, place in pairs}
    return [by_name.get(name) for name in names]


def _choice(value: Any, names: Sequence[str], known: dict[str, Any]) -> Judgement:
    """Return a label as a preference between two completions."""
    said = read_choice(value) if isinstance(value, str) else None
    side = names.index(value) if value in names else None if said is None else said.side
    positions = (0, 1)
    if len(names) == 2 and side is not None and side < 2:
        ranks = (1, 2) if side == 0 else (2, 1)
        strength = None if said is None else said.grade
        return Judgement(scale=Scale.pairwise, ranks=ranks, strength=strength, positions=positions, **known)
    if len(names) == 2 and said is not None and said.tie:
        return Judgement(scale=Scale.pairwise, ranks=(1, 1), positions=positions, **known)
    if said is not None and said.skipped:
        return Judgement(scale=Scale.pairwise, **{**known, "status": Status.skipped})
    raise BadRowError(Reason.label, f"{shown(value)} does not say which of {len(names)} completions is better")


def named(judgements: Sequence[tuple[str, Judgement]], record_id: str | None) -> list[Judgement]:
    """Name votes after their record, so that they are recognised in an export of another form.

    Where no person is named, two votes are of two people, and each needs a name of its own.
    """
    times: Counter[str] = Counter()
    for own, judgement in judgements:
        times[own] += 1
        suffix = f"#{times[own]}" if times[own] > 1 else ""
        judgement.id = None if record_id is None else f"{record_id}:{own}{suffix}"
    return [judgement for _, judgement in judgements]
