"""Exports of Label Studio: JSON, JSON_MIN, CSV and TSV, with what each of them cannot carry.

What counts: an annotation that was submitted. Skipped ones, drafts, predictions and what a review refused are kept with
their status. A Pairwise control has no word for a tie: it is an annotation that was submitted without an answer.

The four formats say the same wherever they can. JSON_MIN, CSV and TSV leave out skipped annotations, drafts,
predictions, reviews and which annotation is gold, and CSV and TSV write every value as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.rows import BadRowError
from pipeline.errors import DataError
from pipeline.labels.importers.label_studio_flat import flat_controls, read_flat
from pipeline.labels.importers.label_studio_interface import Control, Interface, read_interface
from pipeline.labels.importers.label_studio_layout import (
    COMPLETIONS,
    CONTROL_FIELDS,
    Layout,
    choose_layout,
    observed_interface,
)
from pipeline.labels.importers.label_studio_records import (
    RESERVED_COLUMNS,
    Form,
    Task,
    form_of,
    read_task,
)
from pipeline.labels.importers.label_studio_votes import NAME, import_task
from pipeline.labels.importers.label_studio_wording import candidate_families
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, register_importer
from pipeline.labels.votes import Imported, Status

LEFT_OUT = "leaves out skipped annotations, drafts, predictions, reviews and which annotations are gold; JSON has them"
AS_TEXT = "CSV writes every value as text: data that were true, false or a number cannot be told from text"
PLAIN_TEXTS = "without `labeling_config` a choice or a text in a column of its own cannot be told from the task's data"
ALL_EMPTY = (
    "none of the first annotations holds an answer: all are read as ties. A Rating whose toName lists two texts "
    "exports nothing; if that is so here, the votes are lost"
)


def recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Whether most of the first records are Label Studio's."""
    return 2 * sum(form_of(fields) is not None for fields in sample) > len(sample)


def open_export(context: ImportContext) -> ReadRecord:
    """Work out how the tasks of an export are laid out.

    Raises:
        ConfigError: ``columns`` or the labeling configuration is wrong.
        DataError: Nothing says what is the prompt and what are the candidates, or the file lost them.
    """
    source = context.source
    form = next((form for form in map(form_of, context.sample) if form is not None), None)
    if form is None:
        raise DataError(f"{context.path} is no export of Label Studio. Set `{context.key}.importer` to what it is.")
    given = read_interface(source.labeling_config, context.key) if source.labeling_config else None
    if form is Form.tasks:
        layout, notices = _open_tasks(context, given)
    else:
        layout, notices = _open_flat(context, given, form)
    data_keys = {layout.prompt, layout.system, layout.input, layout.topic, layout.items, layout.chat}
    data_keys |= {*layout.candidates, *layout.models}

    def read(fields: dict[str, Any]) -> Imported:
        task = read_task(fields) if form is Form.tasks else read_flat(fields, layout.controls, form, data_keys)
        imported = import_task(task, layout, context, form)
        imported.notices += notices
        return imported

    return read


def _open_tasks(context: ImportContext, given: Interface | None) -> tuple[Layout, list[str]]:
    tasks = [task for task in map(_readable, context.sample) if task is not None]
    regions = [region for task in tasks for annotation in task.annotations for region in annotation.regions]
    interface = given or observed_interface(
        (region.control, region.kind, [target for target in region.targets if target != region.control], region.value)
        for region in regions
    )
    keys = dict.fromkeys(str(key) for task in tasks for key in task.data)
    layout = choose_layout(context, interface, list(keys))
    submitted = [each for task in tasks for each in task.annotations if each.status is Status.submitted]
    is_silent = bool(submitted) and not any(each.regions for each in submitted)
    return layout, [ALL_EMPTY] if is_silent and layout.candidates else []


def _readable(fields: Mapping[str, Any]) -> Task | None:
    try:
        return read_task(fields)
    except BadRowError:
        return None


def _open_flat(context: ImportContext, given: Interface | None, form: Form) -> tuple[Layout, list[str]]:
    records = [fields for fields in context.sample if form_of(fields) is not None]
    columns = dict.fromkeys(name for fields in records for name in fields if name not in RESERVED_COLUMNS)
    notices = [f"{form} {LEFT_OUT}"] + [AS_TEXT] * (form is Form.cells)
    if given is None:
        given = _seen_interface(context, records, list(columns), form)
        notices.append(PLAIN_TEXTS)
    controls = given.controls
    renamed = [name.removeprefix("_data_") for name in columns if name.removeprefix("_data_") in controls
               and name.startswith("_data_")]  # fmt: skip
    keys = [name for name in columns if name not in controls and not name.startswith("_data_")] + renamed
    lost = {key for key in given.objects.values() if key in controls and key not in renamed}
    if lost:
        raise DataError(
            f"{context.path}: {form} has overwritten the task's {', '.join(sorted(lost))} with the answers of the "
            f"control of the same name. Export JSON, or rename the control."
        )
    return choose_layout(context, given, keys), notices


def _seen_interface(
    context: ImportContext, records: Sequence[Mapping[str, Any]], columns: Sequence[str], form: Form
) -> Interface:
    """Return what the columns of a flat export show of the labeling configuration."""
    chosen = context.source.columns
    data = {column for field, column in chosen.items() if field not in CONTROL_FIELDS}
    controls: dict[str, Control] = {}
    for field, kind in (("verdict", "choices"), ("completion", "textarea")):
        if chosen.get(field) in columns:
            controls[chosen[field]] = Control(name=chosen[field], kind=kind)
    for fields in records:
        controls.update(flat_controls(fields, controls, form, data))
    if not controls and not candidate_families(columns) and "completion" not in chosen:
        # The stock project for demonstrations: a prompt and one text area.
        area = next((name for name in COMPLETIONS if name in columns and name not in data), None)
        if area is not None and ("prompt" in columns or "prompt" in chosen):
            controls[area] = Control(name=area, kind="textarea")
    answers: list[tuple[str, str, Sequence[str], Any]] = []
    for name, control in controls.items():
        values = [fields.get(name) for fields in records]
        texts = [value for value in values if isinstance(value, str) and value and control.kind == "choices"]
        buckets = _buckets(records, name, form) if control.kind == "ranker" else {}
        answers.append((name, control.kind, control.targets, buckets or texts))
    return observed_interface(answers)


def _buckets(records: Sequence[Mapping[str, Any]], name: str, form: Form) -> dict[str, Any]:
    control = {name: Control(name=name, kind="ranker")}
    regions = [
        region
        for fields in records
        for annotation in read_flat(fields, control, form, ()).annotations
        for region in annotation.regions
    ]
    return {bucket: [] for region in regions if isinstance(region.value, dict) for bucket in region.value}


register_importer(Importer(name=NAME, recognises=recognises, open=open_export))
