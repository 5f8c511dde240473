"""Argilla 2: answers to the questions of a record, nested (`records.to_json`) or flat (`records.to_datasets`).

Format: https://docs.argilla.io, written by argilla 2.8. An export holds no settings, so that what a question asks is
seen from its answers: names of fields are a preference or an order, whole numbers a rating, free text a completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.rows import BadRowError, Demonstration, Message, Reason, check_id
from pipeline.data.turns import as_turns
from pipeline.errors import DataError
from pipeline.labels.importers.argilla_judgements import Answer, judgements_of, named
from pipeline.labels.importers.ballots import Ballots, Judgement, invalid
from pipeline.labels.importers.label_studio_wording import CANDIDATE_STEMS, candidate_families, read_choice
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import completion_turns, exchange, shown
from pipeline.labels.votes import Imported, Scale, Status

PROMPTS = ("prompt", "instruction", "question", "input")
NO_STATUS = (
    "this nested form of Argilla's export leaves out whether an answer was submitted, a draft or discarded: all count "
    "as submitted. The flat form (records.to_datasets()) keeps it"
)
_STATUS = {"submitted": Status.submitted, "draft": Status.draft, "discarded": Status.discarded}
_FLAT = ".responses"


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Which fields are what, and which questions ask for what."""

    prompt: str
    completions: list[str]  # empty where the answers themselves are the completions
    texts: frozenset[str]  # questions that are answered with free text


def _is_nested(fields: Mapping[str, Any]) -> bool:
    return isinstance(fields.get("fields"), dict) and isinstance(fields.get("responses"), dict)


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    return most(_is_nested(fields) or any(name.endswith(f"{_FLAT}.users") for name in fields) for fields in sample)


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "argilla", columns=("prompt", "completion"))
    layout = _layout(context)

    def read(fields: dict[str, Any]) -> Imported:
        shown_fields = _shown_fields(fields)
        asked = as_turns(shown_fields.get(layout.prompt), "user", layout.prompt)
        names = [name for name in layout.completions if shown_fields.get(name) is not None]
        prompt, sides = exchange(asked, [completion_turns(shown_fields[name], name) for name in names])
        answers = list(_answers(fields))
        notices = [NO_STATUS] if _is_nested(fields) else []
        demonstrations: list[Demonstration] = []
        judgements: list[tuple[str, Judgement]] = []
        if names:
            judgements += judgements_of([each for each in answers if each.question not in layout.texts], names, notices)
        for answer in answers:
            if answer.question not in layout.texts:
                continue
            try:
                demonstrations += _written(answer, prompt, context, ballots, notices)
            except BadRowError as problem:
                refused = invalid(Scale.pairwise, problem, annotator=answer.annotator, question=answer.question)
                judgements.append((f"{answer.question}:{answer.annotator}", refused))
        if not names and not judgements:
            return Imported(demonstrations=demonstrations, notices=notices, unlabelled=0 if answers else 1)
        record_id = check_id(fields["id"]) if fields.get("id") is not None else None
        found = ballots.imported(
            prompt, [(side, None) for side in sides], named(judgements, record_id), notices=notices
        )
        found.demonstrations = demonstrations
        found.unlabelled = 0 if answers else 1
        return found

    return read


def _layout(context: ImportContext) -> _Layout:
    """See from the first records what stands where.

    Raises:
        DataError: No field looks like a prompt.
    """
    records = [_shown_fields(fields) for fields in context.sample]
    names = list(dict.fromkeys(name for record in records for name in record))
    chats = [name for name in names if any(_is_chat(record.get(name)) for record in records)]
    families = candidate_families(names)
    single = [name for name in names if name.casefold() in CANDIDATE_STEMS and name not in chats]
    prompts = [name for name in (context.source.columns.get("prompt"), *chats, *PROMPTS) if name in names]
    if not prompts:
        raise DataError(
            f"{context.path} has no field that looks like a prompt (its fields: {', '.join(names[:20])}). "
            f"Name it, as in `{context.key}.columns: {{prompt: text}}`."
        )
    texts: dict[str, list[str]] = {}
    for fields in context.sample:
        for answer in _readable_answers(fields):
            if isinstance(answer.value, str) and answer.value not in names and answer.status is not Status.prediction:
                texts.setdefault(answer.question, []).append(answer.value)
    written = frozenset(
        question for question, values in texts.items()
        if not any(read_choice(value) for value in values) or question == context.source.columns.get("completion")
    )  # fmt: skip
    completions = families[0] if families else single[:1]
    return _Layout(
        prompt=str(prompts[0]), completions=[name for name in completions if name != prompts[0]], texts=written
    )


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def _shown_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the annotator saw; the flat form has it beside metadata."""
    if _is_nested(fields):
        return dict(fields["fields"])
    questions = {name.removesuffix(_FLAT) for name in fields if name.endswith(_FLAT)}
    return {
        name: value
        for name, value in fields.items()
        if name.partition(".")[0] not in questions and name not in ("id", "status", "_server_id")
    }


def _answers(fields: Mapping[str, Any]) -> Iterator[Answer]:
    """Yield every answer of a record, those of models included."""
    if _is_nested(fields):
        for question, given in fields["responses"].items():
            for entry in given if isinstance(given, list) else []:
                if not isinstance(entry, dict):
                    raise BadRowError(Reason.schema, f"an answer to {question!r} is not an object")
                yield Answer(
                    question=question, value=entry.get("value"), annotator=_person(entry.get("user_id")),
                    status=_status(entry.get("status", "submitted")),
                )  # fmt: skip
        suggestions = fields.get("suggestions")
        for question, entry in suggestions.items() if isinstance(suggestions, dict) else ():
            if isinstance(entry, dict) and entry.get("value") is not None:
                yield _suggested(question, entry["value"], entry.get("agent"))
        return
    for name in fields:
        if name.endswith(_FLAT):
            yield from _flat_answers(fields, name.removesuffix(_FLAT))


def _readable_answers(fields: Mapping[str, Any]) -> list[Answer]:
    """Return the answers of a record, or none of one that will be set aside when its turn comes."""
    try:
        return list(_answers(fields))
    except BadRowError:
        return []


def _flat_answers(fields: Mapping[str, Any], question: str) -> Iterator[Answer]:
    """Yield the answers to one question in the flat form, whose parallel lists must be of one length."""
    columns = [fields.get(f"{question}{_FLAT}{part}") or [] for part in ("", ".users", ".status")]
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        raise BadRowError(Reason.schema, f"answers, users and status of {question!r} are not lists of one length")
    for value, user, status in zip(*columns, strict=True):
        yield Answer(question=question, value=value, annotator=_person(user), status=_status(status))
    if fields.get(f"{question}.suggestion") is not None:
        yield _suggested(question, fields[f"{question}.suggestion"], fields.get(f"{question}.suggestion.agent"))


def _suggested(question: str, value: Any, agent: Any) -> Answer:
    return Answer(question=question, value=value, annotator=_person(agent), status=Status.prediction)


def _person(value: Any) -> str | None:
    return None if value is None else check_id(value)


def _status(value: Any) -> Status:
    if not isinstance(value, str) or value not in _STATUS:
        raise BadRowError(Reason.label, f"the status {shown(value)} is none of {', '.join(_STATUS)}")
    return _STATUS[value]


def _written(
    answer: Answer, prompt: list[Message], context: ImportContext, ballots: Ballots, notices: list[str]
) -> list[Demonstration]:  # fmt: skip
    """Return a submitted free text as a completion, where its question asks for one.

    Raises:
        BadRowError: It is none that can be imitated.
    """
    name = answer.question
    if name != context.source.columns.get("completion", name) or (
        "completion" not in context.source.columns and name.casefold() not in CANDIDATE_STEMS
    ):
        notices.append(
            f"free text in answer to `{name}` is not read; if it is a completion, set `columns: {{completion: {name}}}`"
        )
        return []
    if answer.status is not Status.submitted or answer.value is None:
        return []
    _, sides = exchange(prompt, [completion_turns(answer.value, name)])
    return [ballots.demonstration(prompt, sides[0])]


register_importer(Importer(name="argilla", recognises=_recognises, open=_open))
