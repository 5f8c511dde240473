"""Which data of a Label Studio task is the prompt, which are the candidates, and what each control asks about them.

Said by the source's ``columns``, else by the project's labeling configuration, else by well-known names. ``columns``
takes the keys of the task's data (the names of columns in CSV):

============================ ==========================================================================================
``prompt``                   the prompt, text or a list of turns; ``system`` and ``input`` may stand beside it
``first``, ``second``, …     the candidates in the order in which they are shown, up to ``sixth``
``first_model``, …           who wrote them
``items``                    the list of candidates of a Ranker, objects with ``id`` and ``body`` or ``text``
``chat``                     a whole conversation that was rated
``topic``                    kept on the item
``verdict``                  the Choices control that says which candidate is better, or whether the only one is good
``completion``               the TextArea control in which annotators wrote a completion of their own
``buckets``                  names of a Ranker's buckets, best first, with commas between them
============================ ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError, DataError
from pipeline.labels.importers.label_studio_interface import Control, Interface
from pipeline.labels.importers.label_studio_wording import (
    VERDICTS,
    asks_for_thumbs,
    candidate_families,
    marked_families,
    read_choice,
    split_mark,
)
from pipeline.labels.importers.registry import ImportContext

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
FIELDS = (
    "prompt", "system", "input", "topic", "items", "chat", "verdict", "completion", "buckets",
    *ORDINALS, *(f"{ordinal}_model" for ordinal in ORDINALS),
)  # fmt: skip
CONTROL_FIELDS = ("verdict", "completion")  # these name controls, the others data
PROMPTS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "messages",
    "conversation",
    "dialogue",
    "context",
    "document",
    "chat",
)
ITEM_LISTS = ("items", "candidates", "answers", "responses", "completions")
COMPLETIONS = ("instruction", "completion", "response", "answer", "reply", "output")  # controls of text areas
BUCKET_ORDERS = (
    ("best", "worst"), ("good", "bad"), ("better", "worse"), ("chosen", "rejected"), ("preferred", "rejected"),
    ("good", "neutral", "bad"), ("good", "ok", "bad"), ("high", "medium", "low"), ("high", "low"),
    ("accepted", "rejected"), ("relevant_results", "biased_results"), ("relevant", "irrelevant"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the tasks of one export are read."""

    prompt: str | None  # None only where ``chat`` is the whole conversation
    controls: Mapping[str, Control]
    system: str | None = None
    input: str | None = None
    topic: str | None = None
    candidates: tuple[str, ...] = ()  # keys of the data, in the order shown
    models: tuple[str, ...] = ()
    items: str | None = None
    chat: str | None = None
    objects: Mapping[str, str]  # name of what is shown -> key of the data
    verdicts: frozenset[str] = frozenset()  # Choices controls that judge the candidates
    completion: str | None = None  # the TextArea control whose texts are demonstrations; else all, if nothing is judged
    buckets: tuple[str, ...] = ()  # best first
    graded: bool = False  # whether the verdicts say how clearly one is better
    questions: Mapping[str, str]  # control -> what it asks

    def candidate_of(self, control: str, targets: Iterable[str]) -> int | None:
        """Return which candidate a control is about, by what it points at or by the mark in its name."""
        for target in targets:
            key = self.objects.get(target, target)
            if key in self.candidates:
                return self.candidates.index(key)
        for name in (*targets, control):
            cut = split_mark(name)
            if cut is not None and cut[1] < len(self.candidates):
                return cut[1]
        return 0 if len(self.candidates) == 1 else None

    @property
    def judges(self) -> bool:
        """Whether there is something to judge; where there is not, annotators write."""
        return bool(self.candidates or self.items or self.chat)

    @property
    def pair_control(self) -> Control | None:
        """The Pairwise control, which says a tie by saying nothing."""
        return next((control for control in self.controls.values() if control.kind == "pairwise"), None)


def choose_layout(context: ImportContext, interface: Interface, data_keys: Sequence[str]) -> Layout:
    """Decide how to read an export.

    Args:
        context: Of the export.
        interface: The labeling configuration, or what its answers show of it.
        data_keys: Keys that the data of the first tasks have.

    Raises:
        ConfigError: ``columns`` names a field that does not exist or does not fit the others.
        DataError: A column is missing, or nothing says what is the prompt and what are the candidates.
    """
    given = _checked_columns(context, interface, data_keys)
    shown = [key for key in interface.objects.values() if key in data_keys]
    ranker = next((control for control in interface.controls.values() if control.kind == "ranker"), None)
    items = given.get("items") or (_items(ranker, interface, data_keys) if ranker else None)
    candidates = () if items else _candidates(context, given, interface, data_keys)
    chat = None if candidates or items else given.get("chat") or _chat(interface)
    prompt = given.get("prompt") or (None if chat else _prompt(data_keys, {*candidates, items or ""}, shown))
    if prompt is None and chat is None:
        raise _unclear(context, data_keys, "what the prompt is", "prompt: question")
    verdicts = _verdicts(given, interface, candidates)
    models = tuple(given[f"{ordinal}_model"] for ordinal in ORDINALS if f"{ordinal}_model" in given)
    seen = {choice for name in verdicts for choice in interface.controls[name].choices}
    return Layout(
        prompt=prompt,
        controls=interface.controls,
        system=given.get("system") or ("system" if "system" in data_keys and "system" not in candidates else None),
        input=given.get("input") or ("input" if prompt == "instruction" and "input" in data_keys else None),
        topic=given.get("topic") or ("topic" if "topic" in data_keys else None),
        candidates=candidates,
        models=models or _models(data_keys, len(candidates)),
        items=items,
        chat=chat,
        objects=interface.objects,
        verdicts=frozenset(verdicts),
        completion=given.get("completion"),
        buckets=_bucket_order(given, ranker),
        graded=any((wording := read_choice(choice)) and wording.grade is not None for choice in seen),
        questions=_questions(interface, verdicts, len(candidates)),
    )


def _checked_columns(context: ImportContext, interface: Interface, data_keys: Sequence[str]) -> dict[str, str]:
    """Return the columns that the user gave, each of them there."""
    key = f"{context.key}.columns"
    given = {field: column for field, column in context.source.columns.items() if column}
    for field, column in given.items():
        if field not in FIELDS:
            raise ConfigError(
                f"{key}.{field}: there is no such field.{near_miss(field, FIELDS)} Fields of Label Studio exports: "
                f"{', '.join(FIELDS)}."
            )
        known: Collection[str] = interface.controls if field in CONTROL_FIELDS else data_keys
        if field != "buckets" and column not in known:
            what = "controls" if field in CONTROL_FIELDS else "data"
            raise DataError(
                f"{key}.{field}: {context.path} has no {column!r} among its {what}.{near_miss(column, known)} "
                f"It has: {', '.join(sorted(known)[:20]) or 'none'}."
            )
    for before, after in zip(ORDINALS, ORDINALS[1:], strict=False):
        if after in given and before not in given:
            raise ConfigError(f"{key}: `{after}` is given without `{before}`.")
    if "items" in given and "first" in given:
        raise ConfigError(f"{key}: `items` and `first` both name the candidates. Keep one.")
    return given


def _candidates(
    context: ImportContext, given: Mapping[str, str], interface: Interface, data_keys: Sequence[str]
) -> tuple[str, ...]:
    """Return the keys of the candidates in the order shown; none where annotators write and judge nothing."""
    if "first" in given:
        return tuple(given[ordinal] for ordinal in ORDINALS if ordinal in given)
    controls = interface.controls.values()
    for control in controls:
        keys = tuple(interface.objects.get(target, target) for target in control.targets)
        if control.kind == "pairwise" and len(keys) == 2 and set(keys) <= set(data_keys):
            return keys
    families = candidate_families(data_keys)
    if len(families) == 1:
        return tuple(families[0])
    ratings = [control for control in controls if control.kind == "rating" or _gives_thumbs(control)]
    rated = [interface.objects.get(target, target) for control in ratings for target in control.targets]
    rated = [name for name in dict.fromkeys(rated) if name in data_keys and name not in PROMPTS]
    if rated:
        return tuple(rated)
    if families or any(control.kind == "pairwise" for control in controls):
        raise _unclear(context, data_keys, "what the candidates are", "first: answer1, second: answer2")
    return ()


def _items(ranker: Control, interface: Interface, data_keys: Sequence[str]) -> str | None:
    keys = [interface.objects.get(target, target) for target in ranker.targets]
    return next((key for key in (*keys, *ITEM_LISTS) if key in data_keys), None)


def _chat(interface: Interface) -> str | None:
    """Return where the conversation of a Chat control is."""
    names = [control.name for control in interface.controls.values() if control.kind == "chat"]
    return next((interface.objects.get(name, name) for name in names), None)


def _prompt(keys: Iterable[str], taken: Collection[str], shown: Sequence[str]) -> str | None:
    free = [key for key in dict.fromkeys(keys) if key not in taken]
    known = next((name for name in PROMPTS if name in free), None)
    others = [key for key in shown if key not in taken]
    return known or (others[0] if len(others) == 1 else None)


def _verdicts(given: Mapping[str, str], interface: Interface, candidates: Sequence[str]) -> list[str]:
    """Return the Choices controls whose every choice says which candidate is better, and those named like it.

    Where there is one candidate they are those that call it good or bad.
    """
    if "verdict" in given:
        return [given["verdict"]]
    if len(candidates) < 2:
        return [control.name for control in interface.controls.values() if candidates and _gives_thumbs(control)]
    verdicts = []
    for control in interface.controls.values():
        about = {interface.objects.get(target, target) for target in control.targets}
        if control.kind != "choices" or about & set(candidates) == about != set():
            continue  # what is asked of one candidate alone compares nothing
        wordings = [read_choice(choice) for choice in control.choices]
        understood = bool(wordings) and all(
            wording is not None and (wording.side is None or wording.side < len(candidates)) for wording in wordings
        )
        if control.name.lower() in VERDICTS or (understood and any(w and not w.skipped for w in wordings)):
            verdicts.append(control.name)
    return verdicts


def _gives_thumbs(control: Control) -> bool:
    return control.kind == "choices" and asks_for_thumbs(control.choices)


def _questions(interface: Interface, verdicts: Collection[str], num_candidates: int) -> dict[str, str]:
    """Return what each control asks: its name without a candidate's mark, and nothing where only one thing is asked."""
    questions = {}
    for name, control in interface.controls.items():
        if control.kind in {"pairwise", "ranker"} or name in verdicts:
            questions[name] = name
        elif control.kind == "rating":
            cut = split_mark(name)
            questions[name] = cut[0] or "rating" if cut is not None and cut[1] < num_candidates else name
    return {name: "" if len(set(questions.values())) == 1 else question for name, question in questions.items()}


def _models(data_keys: Sequence[str], number: int) -> tuple[str, ...]:
    found = marked_families(data_keys).get("model", [])
    return tuple(found) if len(found) == number else ()


def _bucket_order(given: Mapping[str, str], ranker: Control | None) -> tuple[str, ...]:
    """Return the buckets of a Ranker from the best to the worst, or nothing where no name says so."""
    if "buckets" in given:
        return tuple(name.strip() for name in given["buckets"].split(",") if name.strip())
    names = {name.lower() for name in ranker.buckets} if ranker else set()
    order = next((order for order in BUCKET_ORDERS if set(order) == names), ())
    spelled = {name.lower(): name for name in ranker.buckets} if ranker else {}
    return tuple(spelled[name] for name in order)


def _unclear(context: ImportContext, data_keys: Sequence[str], what: str, example: str) -> DataError:
    return DataError(
        f"{context.path}: nothing says {what}; the data of its tasks: {', '.join(sorted(data_keys)[:20]) or 'none'}. "
        f"Name it in `{context.key}.columns`, as in {{{example}}}, or give the project's XML as "
        f"`{context.key}.labeling_config`."
    )


def observed_interface(answers: Iterable[tuple[str, str, Sequence[str], Any]]) -> Interface:
    """Return what the answers (control, kind, targets, value) show of the labeling configuration."""
    controls: dict[str, Control] = {}
    for name, kind, targets, value in answers:
        known = controls.get(name)
        choices = [str(choice) for choice in value] if kind == "choices" and isinstance(value, list) else []
        buckets = [bucket for bucket in value if bucket not in {"rank", "_"}] if kind == "ranker" else []
        controls[name] = Control(
            name=name,
            kind=kind,
            targets=tuple(dict.fromkeys([*(known.targets if known else ()), *targets])),
            choices=tuple(dict.fromkeys([*(known.choices if known else ()), *choices])),
            buckets=tuple(dict.fromkeys([*(known.buckets if known else ()), *buckets])),
        )
    return Interface(controls=controls, objects={})
