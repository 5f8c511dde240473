"""What a Label Studio annotation says about the candidates of its task, question by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.data.rows import Reason
from pipeline.labels.importers.label_studio_layout import Layout
from pipeline.labels.importers.label_studio_records import VALUE_KEYS, Annotation, Region
from pipeline.labels.importers.label_studio_wording import PLAIN_GRADE, VERDICTS, read_choice, read_thumb
from pipeline.labels.votes import Item, Scale, Status

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


def read_verdicts(annotation: Annotation, layout: Layout, judged: Judged) -> list[Verdict]:
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


def read_silence(annotation: Annotation, layout: Layout, judged: Judged) -> Verdict:
    """Return what an annotation without an answer says: a tie where the control has no other word for it."""
    pair, question = layout.pair_control, ""
    if pair is not None:
        question = layout.questions.get(pair.name, "")
    if strange := sorted({region.kind for region in annotation.regions} - VALUE_KEYS.keys()):
        return _invalid(_scale(layout, judged), question, f"it answers with {', '.join(strange)} and nothing else")
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
    if number == 1:
        return _thumb(name, region, question)
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


def _thumb(name: str, region: Region, question: str) -> Verdict:
    """Read a choice that calls the only candidate good or bad."""
    thumb, wording = read_thumb(name), read_choice(name)
    if thumb is not None:
        return Verdict(scale=Scale.thumbs, question=question, ranks=(1,), ratings=(thumb,))
    if wording is not None and wording.skipped:
        return Verdict(scale=Scale.thumbs, question=question, skipped=True, note=f"{region.control}: {name}")
    return _invalid(Scale.thumbs, question, f"{name!r} of `{region.control}` says neither good nor bad")


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
