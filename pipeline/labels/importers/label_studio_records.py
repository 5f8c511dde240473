"""Records of Label Studio's exports as tasks with annotations; those of JSON, which has everything, are read here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pipeline.data.rows import BadRowError, Reason, check_id
from pipeline.labels.votes import Status, person

FLAT_COLUMNS = frozenset({"annotation_id", "annotator", "created_at", "updated_at", "lead_time"})
# Columns of a flat export that are neither data nor an answer.
RESERVED_COLUMNS = FLAT_COLUMNS | {"id", "agreement", "history"}
VALUE_KEYS = {
    "pairwise": "selected", "choices": "choices", "rating": "rating", "ranker": "ranker", "textarea": "text",
    "chat": "chatmessage",
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
    annotation = Annotation(id=_id(entry.get("id"), task, index), annotator=read_person(entry.get("completed_by")))
    if cancelled:
        annotation.status = Status.skipped
    elif _is_refused(entry):
        annotation.status = Status.refused
    annotation.gold = entry.get("ground_truth") is True
    _read_regions(annotation, entry.get("result"), where)
    read_times(annotation, entry)
    return annotation


def _own(entry: dict[str, Any], status: Status, task: Mapping[str, Any], index: int) -> Annotation:
    """Read a draft or a prediction, neither of which is a vote."""
    annotation = Annotation(id=f"{status}-{_id(entry.get('id'), task, index)}", status=status)
    annotation.annotator = _drafter(entry) if status is Status.draft else _text(entry.get("model_version"))
    _read_regions(annotation, entry.get("result"), f"{status}s[{index}]")
    read_times(annotation, entry)
    return annotation


def _drafter(entry: dict[str, Any]) -> str | None:
    """Return who drafts: the server names the person by e-mail and, after a comma, by the number it uses elsewhere."""
    _, comma, number = str(entry.get("created_username", "")).rpartition(", ")
    return number if comma and number.isdecimal() else read_person(entry.get("user"))


def _is_refused(entry: dict[str, Any]) -> bool:
    """Whether the last review refused the annotation."""
    reviews = entry.get("reviews")
    if isinstance(reviews, list) and reviews and isinstance(reviews[-1], dict):
        return reviews[-1].get("accepted") is False
    return entry.get("last_action") == "rejected"


def read_person(value: Any) -> str | None:
    """Name an annotator as the flat exports do: by e-mail where there is one, else by number."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return None if value is None or isinstance(value, bool) else _text(value)


def _text(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return person(value) if isinstance(value, str) else None


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


def read_times(annotation: Annotation, entry: Mapping[str, Any]) -> None:
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
