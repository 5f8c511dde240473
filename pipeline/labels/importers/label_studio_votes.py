"""From a Label Studio task to its item, votes and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.data import SourceSplit
from pipeline.data.building import as_turns
from pipeline.data.rows import (
    BadRowError,
    Demonstration,
    Message,
    Reason,
    check_conversation,
    check_prompt,
    check_text,
    is_blank,
    split_demonstration,
)
from pipeline.labels.importers.label_studio_layout import Layout
from pipeline.labels.importers.label_studio_records import Annotation, Form, Region, Task, parse_cell
from pipeline.labels.importers.label_studio_wording import PLAIN_GRADE, VERDICTS, read_choice
from pipeline.labels.importers.registry import ImportContext
from pipeline.labels.votes import Imported, Item, Scale, Status, Vote, make_item

NAME = "label_studio"
BODIES = ("body", "text", "html", "content", "completion", "response", "answer")  # of an entry of a Ranker's list
BUCKETS_TIE = "candidates in one bucket of a Ranker count as equally good"
UNANSWERED = "submitted without an answer"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A task's item with its candidates as they were shown."""

    item: Item
    ids: Sequence[str]  # of the candidates, in the order shown
    names: Sequence[str] = ()  # ids that the task's own list gives them


@dataclass(kw_only=True)
class Verdict:
    """What an annotation says to one question; ranks and ratings in the order shown."""

    scale: Scale
    question: str
    ranks: tuple[int | None, ...] | None = None
    ratings: tuple[float | None, ...] | None = None
    strength: float | None = None
    skipped: bool = False
    problem: str | None = None
    note: str | None = None


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
        verdicts = _verdicts(annotation, layout, about)
        if not verdicts and not written:
            verdicts = [_silence(annotation, layout, about)]
        imported.votes += [_vote(annotation, verdict, about, context) for verdict in verdicts]
        if any(_has_buckets(region) for region in annotation.regions):
            imported.notices.append(BUCKETS_TIE)
    return imported


def _has_buckets(region: Region) -> bool:
    return region.kind == "ranker" and isinstance(region.value, dict) and "rank" not in region.value


def _judged(data: Mapping[str, Any], layout: Layout, context: ImportContext, form: Form) -> Judged:
    """Build the item of a task."""
    prompt = check_prompt(check_conversation(_prompt_turns(data, layout, form)))
    completions, names = _completions(data, layout, form, prompt)
    topic = data.get(layout.topic) if layout.topic else None
    topic = None if topic in (None, "") else check_text(topic, "topic")
    item, ids = _item(prompt, completions, context, topic)
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


def _completions(
    data: Mapping[str, Any], layout: Layout, form: Form, prompt: list[Message]
) -> tuple[list[tuple[list[Message], str | None]], list[str]]:
    """Return the candidates with their models, and the ids that the task's list gives them."""
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
    completions = []
    for where, value, model in values:
        turns = check_conversation([*prompt, *as_turns(value, "assistant", where)])[len(prompt) :]
        completions.append((turns, model if isinstance(model, str) and model else None))
    return completions, names


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


def _verdicts(annotation: Annotation, layout: Layout, judged: Judged) -> list[Verdict]:
    """Return what an annotation says, question by question."""
    by_control: dict[str, list[Region]] = {}
    ratings: dict[str, list[Region]] = {}
    for region in annotation.regions:
        if region.kind == "rating":
            ratings.setdefault(layout.questions.get(region.control, region.control), []).append(region)
        elif region.kind in {"pairwise", "ranker"} or _is_verdict(region, layout):
            by_control.setdefault(region.control, []).append(region)
        elif region.kind in {"choices", "textarea"} and (said := _said(region)):
            annotation.notes.append(said)
    verdicts = [Verdict(scale=_scale(layout, judged), question="", problem=text) for text in annotation.problems]
    for control, regions in by_control.items():
        question = layout.questions.get(control, control)
        reader = _READERS[regions[0].kind]
        if len(regions) > 1:
            verdict = _invalid(_scale(layout, judged), question, f"`{control}` is answered {len(regions)} times")
        else:
            verdict = reader(regions[0], question, layout, judged)
        verdicts.append(verdict)
    verdicts += [_rating(regions, question, layout, judged) for question, regions in ratings.items()]
    pair = layout.pair_control
    if verdicts and pair and pair.name not in by_control and not annotation.problems and _is_answered(annotation):
        verdicts.append(_tie(layout.questions.get(pair.name, "")))
    return verdicts


def _is_answered(annotation: Annotation) -> bool:
    return annotation.status in {Status.submitted, Status.refused}


def _silence(annotation: Annotation, layout: Layout, judged: Judged) -> Verdict:
    """Return what an annotation without an answer says: a tie where the control has no other word for it."""
    pair, question = layout.pair_control, ""
    if pair is not None:
        question = layout.questions.get(pair.name, "")
    asks_nothing_else = len(layout.candidates) == 2 and not layout.questions
    if (pair or asks_nothing_else) and _is_answered(annotation):
        return _tie(question)
    silent = Verdict(scale=_scale(layout, judged), question=question, skipped=True)
    silent.note = UNANSWERED if _is_answered(annotation) else None
    return silent


def _is_verdict(region: Region, layout: Layout) -> bool:
    """Whether a Choices control compares the candidates; one that is new is judged by its name."""
    known = region.control in layout.controls or len(layout.candidates) < 2
    return region.kind == "choices" and (
        region.control in layout.verdicts or (not known and region.control.lower() in VERDICTS)
    )


def _said(region: Region) -> str:
    texts = region.value if isinstance(region.value, list) else [region.value]
    return f"{region.control}: {' | '.join(str(text) for text in texts)}" if any(texts) else ""


def _scale(layout: Layout, judged: Judged) -> Scale:
    if len(layout.candidates) == 2:
        return Scale.pairwise
    return Scale.ranking if layout.items or len(judged.ids) != 1 else Scale.rating


def _tie(question: str) -> Verdict:
    return Verdict(scale=Scale.pairwise, question=question, ranks=(1, 1))


def _invalid(scale: Scale, question: str, problem: str) -> Verdict:
    return Verdict(scale=scale, question=question, problem=f"{Reason.label}: {problem}")


def _pairwise(region: Region, question: str, layout: Layout, judged: Judged) -> Verdict:
    """Read a Pairwise control; the editor takes a selection back by selecting "none"."""
    ranks = {"left": (1, 2), "right": (2, 1), "none": (1, 1)}.get(str(region.value))
    if ranks is None or len(judged.ids) != 2:
        return _invalid(Scale.pairwise, question, f"{region.value!r} of `{region.control}` is neither left nor right")
    return Verdict(scale=Scale.pairwise, question=question, ranks=ranks)


def _choice(region: Region, question: str, layout: Layout, judged: Judged) -> Verdict:
    """Read a choice between the candidates."""
    number = len(judged.ids)
    scale = Scale.pairwise if number == 2 else Scale.ranking
    choices = region.value if isinstance(region.value, list) else [region.value]
    if len(choices) != 1 or not isinstance(choices[0], str):
        return _invalid(scale, question, f"{choices!r} of `{region.control}` is not one choice")
    name = choices[0].strip()
    wording = read_choice(name)
    key = layout.objects.get(name, name)
    side = layout.candidates.index(key) if key in layout.candidates else wording.side if wording else None
    if side is None and wording is None:
        return _invalid(scale, question, f"{name!r} of `{region.control}` does not say which candidate is better")
    if side is not None and side >= number:
        return _invalid(scale, question, f"{name!r} of `{region.control}` names a candidate that is not there")
    if side is None and wording is not None and wording.skipped:
        return Verdict(scale=scale, question=question, skipped=True, note=f"{region.control}: {name}")
    grade = wording.grade if wording else None
    if side is None:
        tied = Verdict(scale=scale, question=question, ranks=(1,) * number)
        tied.strength = 0.0 if layout.graded else None
        tied.note = f"{region.control}: {name}" if "bad" in name.lower() or "neither" in name.lower() else None
        return tied
    ranks = tuple(1 if index == side else 2 for index in range(number))
    strength = grade if grade is not None else PLAIN_GRADE if layout.graded else None
    return Verdict(scale=scale, question=question, ranks=ranks, strength=strength)


def _ranker(region: Region, question: str, layout: Layout, judged: Judged) -> Verdict:
    """Read an order of the list, or its distribution over buckets; "_" holds what is in none."""
    if not isinstance(region.value, dict) or not all(isinstance(names, list) for names in region.value.values()):
        return _invalid(Scale.ranking, question, f"`{region.control}` holds no lists of candidates")
    buckets = {name: [str(entry) for entry in names] for name, names in region.value.items() if name != "_"}
    placed = [entry for names in buckets.values() for entry in names]
    if strange := [entry for entry in placed if entry not in judged.names]:
        return _invalid(Scale.ranking, question, f"`{region.control}` ranks {strange[0][:60]!r}, which is not listed")
    if len(set(placed)) < len(placed):
        return _invalid(Scale.ranking, question, f"`{region.control}` ranks a candidate twice")
    if buckets.keys() <= {"rank"}:
        order = [[entry] for entry in placed]
    elif buckets.keys() <= set(layout.buckets):
        order = [buckets[name] for name in layout.buckets if buckets.get(name)]
    else:
        names = ", ".join(sorted(buckets))
        return _invalid(
            Scale.ranking, question,
            f"the buckets {names} have no known order; name them, best first, in `columns.buckets`",
        )  # fmt: skip
    places = {entry: place for place, group in enumerate(order, start=1) for entry in group}
    ranks = tuple(places.get(name) for name in judged.names)
    if not placed:
        return Verdict(scale=Scale.ranking, question=question, skipped=True, note=UNANSWERED)
    return Verdict(scale=Scale.ranking, question=question, ranks=ranks)


def _rating(regions: Sequence[Region], question: str, layout: Layout, judged: Judged) -> Verdict:
    """Read the numbers that one question was answered with, one per candidate."""
    ratings: list[float | None] = [None] * len(judged.ids)
    for region in regions:
        control = layout.controls.get(region.control)
        largest = control.max_rating if control else None
        place = layout.candidate_of(region.control, region.targets)
        if place is None and len(ratings) == 1:
            place = 0
        if place is None or ratings[place] is not None:
            return _invalid(Scale.rating, question, f"`{region.control}` does not say which candidate it rates")
        value = region.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
        if not is_number or value < 0:
            return _invalid(Scale.rating, question, f"{value!r} of `{region.control}` is no whole number of stars")
        if largest is not None and value > largest:
            return _invalid(Scale.rating, question, f"{value!r} of `{region.control}` is more than {largest} stars")
        ratings[place] = float(value)
    order = sorted({rating for rating in ratings if rating is not None}, reverse=True)
    ranks = tuple(None if rating is None else order.index(rating) + 1 for rating in ratings)
    return Verdict(scale=Scale.rating, question=question, ranks=ranks, ratings=tuple(ratings))


_READERS: dict[str, Callable[[Region, str, Layout, Judged], Verdict]] = {
    "pairwise": _pairwise, "choices": _choice, "ranker": _ranker,
}  # fmt: skip


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
