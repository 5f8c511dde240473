"""Records of Label Studio's exports, whichever of the four formats they come in, as tasks with annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pipeline.data.json_reader import StrictParser
from pipeline.data.rows import BadRowError, Reason, check_id
from pipeline.labels.importers.label_studio_interface import Control
from pipeline.labels.importers.label_studio_wording import VERDICTS, read_choice
from pipeline.labels.votes import Status

FLAT_COLUMNS = frozenset({"annotation_id", "annotator", "created_at", "updated_at", "lead_time"})
# Columns of a flat export that are neither data nor an answer.
RESERVED_COLUMNS = FLAT_COLUMNS | {"id", "agreement", "history"}
VALUE_KEYS = {
    "pairwise": "selected", "choices": "choices", "rating": "rating", "ranker": "ranker", "textarea": "text",
    "chat": "chatmessage",
}  # fmt: skip
KINDS_BY_VALUE = {value: kind for kind, value in VALUE_KEYS.items()}
_VALUE_TYPES: dict[str, type | tuple[type, ...]] = {
    "pairwise": str, "choices": list, "rating": (int, float, str), "ranker": dict, "textarea": list, "chat": dict,
}  # fmt: skip
_MILLISECONDS = 1e11  # an epoch beyond this is not in seconds


class Form(StrEnum):
    """How an export lays its records out."""

    tasks = "JSON"  # one record per task, with everything
    flat = "JSON_MIN"  # one record per annotation
    cells = "CSV"  # the same, every value as text; TSV too


@dataclass(frozen=True, kw_only=True)
class Region:
    """One answer to one control."""

    control: str
    kind: str
    targets: tuple[str, ...]
    value: Any  # what stands under the kind's own key, such as "left" or {"rank": [...]}


@dataclass(kw_only=True)
class Annotation:
    """One submission of one annotator."""

    id: str
    annotator: str | None = None
    created: str | None = None
    seconds: float | None = None
    status: Status = Status.submitted
    gold: bool = False
    regions: list[Region] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # answers that cannot be read
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Task:
    """One task and its annotations, drafts and predictions; in a flat export with a single annotation or none."""

    data: Mapping[str, Any]
    annotations: list[Annotation] = field(default_factory=list)
    unlabelled: bool = False
    notices: list[str] = field(default_factory=list)


def form_of(fields: Mapping[str, Any]) -> Form | None:
    """Return in which form a record is written, or None if Label Studio did not write it."""
    if isinstance(fields.get("data"), dict) and ("annotations" in fields or "completions" in fields):
        return Form.tasks
    if fields.keys() >= FLAT_COLUMNS:
        return Form.cells if all(isinstance(value, str) for value in fields.values()) else Form.flat
    return None


def read_task(fields: Mapping[str, Any]) -> Task:
    """Read a task with all that hangs on it.

    Raises:
        BadRowError: E_SCHEMA, it is no task.
    """
    data = fields.get("data")
    if not isinstance(data, dict):
        raise BadRowError(Reason.schema, "the task has no `data` object")
    name = "annotations" if "annotations" in fields else "completions"  # before version 1.0
    task = Task(data=data)
    for index, entry in enumerate(_objects(fields, name, required=True)):
        task.annotations.append(_annotation(entry, f"{name}[{index}]", fields, index))
    task.unlabelled = not task.annotations
    for name, status in (("drafts", Status.draft), ("predictions", Status.prediction)):
        for index, entry in enumerate(_objects(fields, name, required=False)):
            own = _own(entry, status, fields, index)
            task.annotations.append(own)
    kinds = {region.kind for annotation in task.annotations for region in annotation.regions}
    task.notices += [
        f"regions of type {kind!r} say nothing about completions and are not read"
        for kind in sorted(kinds - VALUE_KEYS.keys())
    ]
    return task


def _objects(fields: Mapping[str, Any], name: str, *, required: bool) -> list[dict[str, Any]]:
    """Return a list of objects; an entry that is a bare id is an object with nothing but that."""
    value = fields.get(name)
    if value is None and not required:
        return []
    if not isinstance(value, list):
        raise BadRowError(Reason.schema, f"`{name}` is no list")
    entries = []
    for index, entry in enumerate(value):
        if isinstance(entry, int) and not isinstance(entry, bool) and not required:
            entry = {"id": entry}
        if not isinstance(entry, dict):
            raise BadRowError(Reason.schema, f"{name}[{index}] is no object")
        entries.append(entry)
    return entries


def _annotation(entry: dict[str, Any], where: str, task: Mapping[str, Any], index: int) -> Annotation:
    """Read one annotation of a task."""
    cancelled = entry.get("was_cancelled", entry.get("skipped", False))
    if not isinstance(cancelled, bool | None):
        raise BadRowError(Reason.schema, f"{where}.was_cancelled is neither true nor false")
    annotation = Annotation(id=_id(entry.get("id"), task, index), annotator=_person(entry.get("completed_by")))
    if cancelled:
        annotation.status = Status.skipped
    elif _is_refused(entry):
        annotation.status = Status.refused
    annotation.gold = entry.get("ground_truth") is True
    _read_regions(annotation, entry.get("result"), where)
    _read_times(annotation, entry)
    return annotation


def _own(entry: dict[str, Any], status: Status, task: Mapping[str, Any], index: int) -> Annotation:
    """Read a draft or a prediction, neither of which is a vote."""
    annotation = Annotation(id=f"{status}-{_id(entry.get('id'), task, index)}", status=status)
    annotation.annotator = _drafter(entry) if status is Status.draft else _text(entry.get("model_version"))
    _read_regions(annotation, entry.get("result"), f"{status}s[{index}]")
    _read_times(annotation, entry)
    return annotation


def _drafter(entry: dict[str, Any]) -> str | None:
    """Return who drafts: the server names the person by e-mail and, after a comma, by the number it uses elsewhere."""
    _, comma, number = str(entry.get("created_username", "")).rpartition(", ")
    return number if comma and number.isdecimal() else _person(entry.get("user"))


def _is_refused(entry: dict[str, Any]) -> bool:
    """Whether the last review refused the annotation."""
    reviews = entry.get("reviews")
    if isinstance(reviews, list) and reviews and isinstance(reviews[-1], dict):
        return reviews[-1].get("accepted") is False
    return entry.get("last_action") == "rejected"


def _person(value: Any) -> str | None:
    """Name an annotator as the flat exports do: by e-mail where there is one, else by number."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return None if value is None or isinstance(value, bool) else _text(value)


def _text(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _id(value: Any, task: Mapping[str, Any], index: int) -> str:
    """Return an annotation's id; one without is named after its task and place."""
    return check_id(value) if value is not None else f"task-{_text(task.get('id')) or 'unnamed'}-{index}"


def _read_regions(annotation: Annotation, result: Any, where: str) -> None:
    """Read the answers of an annotation; what is no answer is a problem of the annotation alone."""
    if not isinstance(result, list):
        if result is not None:
            annotation.problems.append(f"{Reason.schema}: {where}.result is no list")
        return
    origins = set()
    for number, region in enumerate(result):
        at = f"{where}.result[{number}]"
        if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
            annotation.problems.append(f"{Reason.schema}: {at} is no region with a value")
            continue
        kind = str(region.get("type", "")).lower().replace("chatmessage", "chat")
        value = region["value"]
        if kind in VALUE_KEYS and VALUE_KEYS[kind] not in value:
            annotation.problems.append(f"{Reason.schema}: {at}.value has no {VALUE_KEYS[kind]!r}")
            continue
        control, target = str(region.get("from_name", "")), str(region.get("to_name", ""))
        inner = value[VALUE_KEYS[kind]] if kind in VALUE_KEYS else None
        annotation.regions.append(Region(control=control, kind=kind, targets=(target,), value=inner))
        origins.add(region.get("origin"))
    annotation.notes += [f"origin: {origin}" for origin in ("prediction", "prediction-changed") if origin in origins]


def _read_times(annotation: Annotation, entry: Mapping[str, Any]) -> None:
    """Read when the annotation was last changed and how long it took; a time that cannot be one is noted."""
    value = entry.get("updated_at") or entry.get("created_at")
    if value not in (None, ""):
        annotation.created = _utc(value)
        if annotation.created is None:
            annotation.notes.append(f"{Reason.time}: {str(value)[:40]!r} is no time")
    taken = entry.get("lead_time")
    if taken not in (None, ""):
        annotation.seconds = _seconds(taken)
        if annotation.seconds is None:
            annotation.notes.append(f"{Reason.time}: a lead time of {str(taken)[:40]!r}")


def _utc(value: Any) -> str | None:
    """Return ISO 8601 in UTC of a time stamp or of seconds since 1970, which old exports have."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _seconds(value: Any) -> float | None:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def read_flat(
    fields: Mapping[str, Any], controls: Mapping[str, Control], form: Form, data_keys: Container[str | None]
) -> Task:
    """Read a record of JSON_MIN, CSV or TSV: one annotation, its answers beside the task's data.

    Args:
        fields: The record.
        controls: What the labeling configuration or earlier records say of its columns.
        form: Which of the two.
        data_keys: Columns that are data, whatever they look like.

    Raises:
        BadRowError: E_SCHEMA or E_ID, it is no such record.
    """
    if form_of(fields) is None:
        raise BadRowError(Reason.schema, f"a column of {', '.join(sorted(FLAT_COLUMNS))} is missing")
    controls = {**controls, **flat_controls(fields, controls, form, data_keys)}
    data = {name: value for name, value in fields.items() if name not in controls and name not in RESERVED_COLUMNS}
    for name in controls:  # a data column of that name is renamed in CSV, and overwritten in JSON_MIN
        if f"_data_{name}" in data:
            data[name] = data.pop(f"_data_{name}")
    if fields["annotation_id"] in (None, ""):
        return Task(data=data, unlabelled=True)
    annotation = Annotation(id=check_id(fields["annotation_id"]), annotator=_person(fields["annotator"]))
    for control in controls.values():
        value = fields.get(control.name)
        if value is None or (form is Form.cells and value == ""):
            continue
        try:
            answers = list(_answers(value, control.kind, form))
        except BadRowError as error:
            annotation.problems.append(f"{error.reason}: {control.name}: {error.detail}")
            continue
        annotation.regions += [
            Region(control=control.name, kind=control.kind, targets=control.targets, value=answer) for answer in answers
        ]
    _read_times(annotation, fields)
    return Task(data=data, annotations=[annotation])


def flat_controls(
    fields: Mapping[str, Any], known: Mapping[str, Control], form: Form, data_keys: Container[str | None]
) -> dict[str, Control]:
    """Return the columns of a record that can be seen to be answers, beside those that are known to be."""
    found = {}
    for name, value in fields.items():
        if name in known or name in data_keys or name in RESERVED_COLUMNS:
            continue
        kind = kind_of_value(value, form)
        if kind is None and name.lower() in VERDICTS and isinstance(value, str) and read_choice(value) is not None:
            kind = "choices"
        if kind is not None:
            found[name] = Control(name=name, kind=kind)
    return found


def _answers(value: Any, kind: str, form: Form) -> Iterable[Any]:
    """Undo the flattening: one value per region, as it stands under the kind's own key."""
    text = value
    if form is Form.cells:
        value = parse_cell(value)
    entries = value if isinstance(value, list) else [value]
    in_words = kind in {"choices", "textarea"}
    if in_words and not all(isinstance(entry, str) or _is_answer(entry, kind) for entry in entries):
        entries = [text]  # an annotator wrote something that looks like JSON
    for entry in entries:
        if _is_answer(entry, kind):
            yield entry[VALUE_KEYS[kind]]
        elif kind == "chat" and isinstance(entry, dict):
            yield entry
        elif in_words and isinstance(entry, str):
            yield [entry]
        else:
            raise BadRowError(Reason.label, f"{json.dumps(entry, ensure_ascii=False)[:60]} is no answer to a {kind}")


def _is_answer(entry: Any, kind: str) -> bool:
    return isinstance(entry, dict) and VALUE_KEYS[kind] in entry


def parse_cell(text: str) -> Any:
    """Return the JSON list or object that a cell holds, or the text itself if it holds none."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        value, end, problem = StrictParser().parse(text)
    except (json.JSONDecodeError, RecursionError):
        return text
    return text if problem is not None or text[end:].strip() else value


def kind_of_value(value: Any, form: Form) -> str | None:
    """Return which kind of control wrote a flat value, or None if that cannot be seen, as with a plain text."""
    if form is Form.cells and isinstance(value, str):
        value = parse_cell(value)
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict):
        return None
    if isinstance(value, list) and {"role", "content", "createdAt"} <= first.keys():
        return "chat"
    kind = KINDS_BY_VALUE.get(next(iter(first), "")) if len(first) == 1 else None
    return kind if kind is not None and isinstance(first[VALUE_KEYS[kind]], _VALUE_TYPES[kind]) else None
