"""From a Label Studio task to its item, votes and demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.data import SourceSplit
from pipeline.data.rows import (
    BadRowError,
    Demonstration,
    Message,
    Reason,
    check_conversation,
    check_text,
    is_blank,
    split_demonstration,
)
from pipeline.data.turns import as_turns
from pipeline.labels.importers.label_studio_flat import parse_cell
from pipeline.labels.importers.label_studio_layout import Layout
from pipeline.labels.importers.label_studio_records import Annotation, Form, Region, Task
from pipeline.labels.importers.label_studio_verdicts import Judged, Verdict, read_silence, read_verdicts
from pipeline.labels.importers.registry import ImportContext
from pipeline.labels.importers.values import completion_turns, exchange
from pipeline.labels.votes import Imported, Item, Status, Vote, make_item

NAME = "label_studio"
BODIES = ("body", "text", "html", "content", "completion", "response", "answer")  # of an entry of a Ranker's list
BUCKETS_TIE = "candidates in one bucket of a Ranker count as equally good"


def import_task(task: Task, layout: Layout, context: ImportContext, form: Form) -> Imported:
    """Return everything that a task holds.

    Raises:
        BadRowError: Its prompt or its candidates are no text.
    """
    imported = Imported(unlabelled=int(task.unlabelled), notices=list(task.notices))
    judged = None if layout.prompt is None else _judged(task.data, layout, context, form)
    if judged is not None:
        imported.items.append(judged.item)
    for annotation in task.annotations:
        about = judged
        if about is None:  # a chat that the annotator led is an item of its own
            about = _judged_chat(task.data, annotation, layout, context, form)
            imported.items.append(about.item)
        written, problems = _written(annotation, layout, context, about)
        annotation.problems += problems
        imported.demonstrations += written
        verdicts = read_verdicts(annotation, layout, about)
        if not verdicts and not written:
            verdicts = [read_silence(annotation, layout, about)]
        imported.votes += [_vote(annotation, verdict, about, context) for verdict in verdicts]
        if any(_has_buckets(region) for region in annotation.regions):
            imported.notices.append(BUCKETS_TIE)
    return imported


def _has_buckets(region: Region) -> bool:
    return region.kind == "ranker" and isinstance(region.value, dict) and "rank" not in region.value


def _judged(data: Mapping[str, Any], layout: Layout, context: ImportContext, form: Form) -> Judged:
    """Build the item of a task."""
    values, names = _candidates(data, layout, form)
    sides = [completion_turns(value, where) for where, value, _ in values]
    prompt, checked = exchange(_prompt_turns(data, layout, form), sides)
    writers = [model if isinstance(model, str) and model else None for _, _, model in values]
    topic = data.get(layout.topic) if layout.topic else None
    topic = None if topic in (None, "") else check_text(topic, "topic")
    item, ids = _item(prompt, list(zip(checked, writers, strict=True)), context, topic)
    return Judged(item=item, ids=ids, names=names)


def _judged_chat(
    data: Mapping[str, Any], annotation: Annotation, layout: Layout, context: ImportContext, form: Form
) -> Judged:
    """Build the item of a conversation: the annotator's, else the one that the task's data show."""
    turns = [region.value for region in annotation.regions if region.kind == "chat"]
    turns = turns or list(_structured(data.get(layout.chat or ""), form) or [])
    try:
        prompt, reply = split_demonstration(check_conversation(turns))
    except BadRowError as error:
        if turns and not annotation.problems:
            annotation.problems.append(str(error))
        item, ids = _item([], [], context, None)
        return Judged(item=item, ids=ids)
    item, ids = _item(prompt, [(reply, None)], context, None)
    return Judged(item=item, ids=ids)


def _item(
    prompt: list[Message],
    completions: Sequence[tuple[list[Message], str | None]],
    context: ImportContext,
    topic: str | None,
) -> tuple[Item, list[str]]:
    return make_item(
        prompt,
        completions,
        source=context.name,
        licence=context.source.licence,
        topic=topic,
        protected=context.source.split is SourceSplit.test,
    )


def _prompt_turns(data: Mapping[str, Any], layout: Layout, form: Form) -> list[Any]:
    turns = as_turns(_value(data, layout.prompt or "", form), "user", "prompt")
    extra = check_text(data.get(layout.input) or "", layout.input) if layout.input else ""
    if not is_blank(extra) and len(turns) == 1:
        turns = [{"role": "user", "content": f"{check_text(turns[0]['content'], 'prompt')}\n\n{extra}"}]
    if layout.system and (system := data.get(layout.system)) not in (None, ""):
        turns = [{"role": "system", "content": system}, *turns]
    return turns


def _candidates(data: Mapping[str, Any], layout: Layout, form: Form) -> tuple[list[tuple[str, Any, Any]], list[str]]:
    """Return where each candidate stands, its value and its model, and the ids that the task's list gives them."""
    values: list[tuple[str, Any, Any]] = []
    names: list[str] = []
    if layout.items:
        entries = _value(data, layout.items, form)
        if not isinstance(entries, list):
            raise BadRowError(Reason.schema, f"`{layout.items}` is no list of candidates")
        for number, entry in enumerate(entries):
            where = f"{layout.items}[{number}]"
            body = next((key for key in BODIES if isinstance(entry, dict) and key in entry), None)
            if body is None or not isinstance(entry.get("id"), str | int):
                raise BadRowError(Reason.schema, f"{where} is no object with `id` and one of {', '.join(BODIES)}")
            names.append(str(entry["id"]))
            values.append((where, entry[body], entry.get("title")))
        if len(set(names)) < len(names):
            raise BadRowError(Reason.schema, f"two entries of `{layout.items}` have the same id")
    else:
        models = [data.get(name) for name in layout.models] or [None] * len(layout.candidates)
        values = [
            (name, _value(data, name, form), model) for name, model in zip(layout.candidates, models, strict=True)
        ]
    return values, names


def _value(data: Mapping[str, Any], name: str, form: Form) -> Any:
    if data.get(name) is None:
        raise BadRowError(Reason.schema, f"the task's data have {'null in' if name in data else 'no'} {name!r}")
    return _structured(data[name], form)


def _structured(value: Any, form: Form) -> Any:
    """Return the list of objects that a cell of CSV holds, and any other value as it is."""
    if form is not Form.cells or not isinstance(value, str):
        return value
    parsed = parse_cell(value)
    is_list = isinstance(parsed, list) and bool(parsed) and all(isinstance(entry, dict) for entry in parsed)
    return parsed if is_list else value


def _written(
    annotation: Annotation, layout: Layout, context: ImportContext, judged: Judged
) -> tuple[list[Demonstration], list[str]]:
    """Return the conversations that an annotator wrote, and what is wrong with those that are none."""
    conversations: list[list[Any]] = []
    for region in annotation.regions:
        by_hand = region.control == layout.completion if layout.completion else not layout.judges
        if region.kind == "textarea" and by_hand:
            texts = region.value if isinstance(region.value, list) else [region.value]
            conversations += [[*judged.item.prompt, {"role": "assistant", "content": text}] for text in texts]
    chat = [region.value for region in annotation.regions if region.kind == "chat"]
    if chat and not annotation.problems:
        conversations.append(chat)
    written: list[Demonstration] = []
    problems: list[str] = []
    if annotation.status is not Status.submitted:
        return written, problems
    for number, conversation in enumerate(conversations):
        try:
            prompt, completion = split_demonstration(check_conversation(conversation))
        except BadRowError as error:
            problems.append(str(error))
            continue
        written.append(
            Demonstration(
                id=f"{context.name}:{annotation.id}" + (f"/{number}" if len(conversations) > 1 else ""),
                source=context.name,
                licence=context.source.licence,
                prompt=prompt,
                completion=completion,
                topic=judged.item.topic,
            )
        )
    return written, problems


def _vote(annotation: Annotation, verdict: Verdict, judged: Judged, context: ImportContext) -> Vote:
    """Put the candidates in order of id and say what became of the annotation."""
    order = sorted(range(len(judged.ids)), key=lambda index: judged.ids[index])
    status = annotation.status
    if status is Status.submitted and (verdict.problem or verdict.skipped):
        status = Status.invalid if verdict.problem else Status.skipped
    notes = [note for note in (verdict.problem, verdict.note, *annotation.notes) if note]
    return Vote(
        id=annotation.id,
        source=context.name,
        item=judged.item.id,
        annotator=annotation.annotator,
        question=verdict.question,
        scale=verdict.scale,
        candidates=tuple(judged.ids[index] for index in order),
        ranks=None if verdict.ranks is None else tuple(verdict.ranks[index] for index in order),
        ratings=None if verdict.ratings is None else tuple(verdict.ratings[index] for index in order),
        strength=verdict.strength,
        positions=tuple(order),
        created=annotation.created,
        seconds=annotation.seconds,
        tool=NAME,
        status=status,
        gold=annotation.gold,
        note="; ".join(notes) or None,
    )
