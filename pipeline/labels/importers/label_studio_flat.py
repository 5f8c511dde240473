"""JSON_MIN, CSV and TSV of Label Studio: one record per annotation, its answers beside the task's data."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

from pipeline.data.json_reader import StrictParser
from pipeline.data.rows import BadRowError, Reason, check_id
from pipeline.labels.importers.label_studio_interface import Control
from pipeline.labels.importers.label_studio_records import (
    FLAT_COLUMNS,
    RESERVED_COLUMNS,
    VALUE_KEYS,
    Annotation,
    Form,
    Region,
    Task,
    form_of,
    read_person,
    read_times,
)
from pipeline.labels.importers.label_studio_wording import VERDICTS, read_choice

_KINDS = {value: kind for kind, value in VALUE_KEYS.items()}
_VALUE_TYPES: dict[str, type | tuple[type, ...]] = {
    "pairwise": str, "choices": list, "rating": (int, float, str), "ranker": dict, "textarea": list, "chat": dict,
}  # fmt: skip


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
    annotation = Annotation(id=check_id(fields["annotation_id"]), annotator=read_person(fields["annotator"]))
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
    read_times(annotation, fields)
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
    kind = _KINDS.get(next(iter(first), "")) if len(first) == 1 else None
    return kind if kind is not None and isinstance(first[VALUE_KEYS[kind]], _VALUE_TYPES[kind]) else None
