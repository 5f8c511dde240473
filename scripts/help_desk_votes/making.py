"""From sampled answers to the two exports and the list of what is planted in them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from help_desk_votes.annotators import (
    ANNOTATORS,
    CARELESS_TIES,
    FLIP,
    GOLD_KEEPER,
    TIE_FLOOR,
    TIE_SCALE,
    TIE_SPAN,
    cast,
)
from help_desk_votes.chance import Chance
from help_desk_votes.defects import (
    MALFORMED,
    PERSONAL_DATA,
    Malformed,
    duplicated,
    first_vote,
    nearly_duplicated,
    with_personal_data,
)
from help_desk_votes.label_studio import Project, Task, as_text, written
from help_desk_votes.material import Question, Sample
from help_desk_votes.pairs import Judge, Pair, draw_pairs
from help_desk_votes.utility import EQUAL
from pipeline.data.rows import normalise

VOTES_PER_PAIR = 5
NUM_GOLD, GOLD_GAP = 24, 2.0  # ground truth only where the better answer is plain to see; all annotators vote on it
NUM_DUPLICATES, NUM_NEAR_DUPLICATES, NUM_REPEATS, NUM_UNLABELLED, NUM_ALL_SKIPPED, NUM_DRAFTS = 12, 12, 30, 5, 3, 2
TRAIN_PAIRS = {"sft-sft": 420, "base-sft": 150, "demonstration-sft": 111}
TEST_PAIRS = {"sft-sft": 115, "base-sft": 65}
FIRST_TEST_TASK, FIRST_TEST_ANNOTATION = 5001, 50001
REPEATED_AFTER = 9  # days


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A task before it is imported into a project."""

    pair: Pair
    of: Pair | None = None  # what it duplicates
    malformed: Malformed | None = None


@dataclass(kw_only=True)
class Export:
    """A project that annotators have worked on, and the truth about it."""

    tasks: list[Task] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    flipped: list[int] = field(default_factory=list)  # annotations
    repeats: list[dict[str, int]] = field(default_factory=list)

    def text(self) -> str:
        """Return the file: every task as JSON, the malformed ones damaged."""
        texts = []
        for task, plan in zip(self.tasks, self.planned, strict=True):
            fault = plan.malformed
            if fault and fault.change:
                fault.change(task)
            text = as_text(task)
            texts.append(fault.edit(text) if fault and fault.edit else text)
        return written(texts)


def make(questions: Sequence[Question], samples: Sequence[Sample], judge: Judge) -> dict[str, str]:
    """Return the text of every file by name; the same samples give the same texts."""
    chance = Chance("votes on the help desk")
    train = [question for question in questions if not question.test]
    test = [question for question in questions if question.test]
    plan = plan_tasks(draw_pairs(train, samples, judge, TRAIN_PAIRS, chance), chance)
    votes = annotate(plan, Project(1, 1, 1, datetime(2026, 2, 2, 8, tzinfo=UTC)), chance)
    test_pairs = chance.shuffled(draw_pairs(test, samples, judge, TEST_PAIRS, chance))
    project = Project(2, FIRST_TEST_TASK, FIRST_TEST_ANNOTATION, datetime(2026, 3, 2, 8, tzinfo=UTC))
    test_votes = annotate([Planned(pair=pair) for pair in test_pairs], project, chance)
    planted = {"model": model(), "files": {"votes.json": truth(votes), "test_votes.json": truth(test_votes)}}
    return {
        "votes.json": votes.text(),
        "test_votes.json": test_votes.text(),
        "planted_votes.json": readable(planted) + "\n",
    }


def readable(value: Any, depth: int = 0) -> str:
    """Write JSON with one entry a line, and entries of entries on the same one."""
    if depth == 4 or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, list):
        if not any(isinstance(entry, dict) for entry in value):
            return json.dumps(value)
        body = f",{inner}".join(json.dumps(entry, ensure_ascii=False) for entry in value)
        return f"[{inner}{body}]"
    body = f",{inner}".join(f"{json.dumps(key)}: {readable(entry, depth + 1)}" for key, entry in value.items())
    return f"{{{inner}{body}}}"


def plan_tasks(pairs: list[Pair], chance: Chance) -> list[Planned]:
    """Plant what is to be found in some of the pairs, and put all of them in a random order."""
    left = chance.shuffled(pairs)

    def take(number: int, *, clear: bool = False) -> list[Pair]:
        chosen = [pair for pair in left if not clear or abs(pair.gap) >= GOLD_GAP][:number]
        left[:] = [pair for pair in left if not any(pair is one for one in chosen)]
        return chosen

    planned = [Planned(pair=replace(pair, plant="gold")) for pair in take(NUM_GOLD, clear=True)]
    personal = take(len(PERSONAL_DATA))
    planned += [Planned(pair=with_personal_data(pair, number)) for number, pair in enumerate(personal)]
    planned += [
        Planned(pair=replace(pair, plant="malformed"), malformed=fault)
        for pair, fault in zip(take(len(MALFORMED)), MALFORMED, strict=True)
    ]
    planned += [Planned(pair=replace(pair, plant="unlabelled")) for pair in take(NUM_UNLABELLED)]
    planned += [Planned(pair=replace(pair, plant="all_skipped")) for pair in take(NUM_ALL_SKIPPED)]
    planned += [
        Planned(pair=duplicated(pair, number), of=pair) for number, pair in enumerate(left[:NUM_DUPLICATES])
    ]  # fmt: skip
    originals = left[NUM_DUPLICATES : NUM_DUPLICATES + NUM_NEAR_DUPLICATES]
    planned += [
        Planned(pair=nearly_duplicated(pair, number, chance), of=pair) for number, pair in enumerate(originals)
    ]  # fmt: skip
    planned += [Planned(pair=pair) for pair in left]
    return chance.shuffled(planned)


def annotate(planned: list[Planned], project: Project, chance: Chance) -> Export:
    """Let the annotators vote, and some of them vote once more."""
    export = Export(tasks=[project.task(plan.pair) for plan in planned], planned=planned)
    num_drafts = 0
    for task, plan in zip(export.tasks, planned, strict=True):
        if plan.pair.plant == "unlabelled":
            if num_drafts < NUM_DRAFTS:
                num_drafts += 1
                project.draft(task, num_drafts, chance.pick(ANNOTATORS).user, chance.pick(("left", "right")))
        elif plan.pair.plant == "all_skipped":
            for annotator in chance.shuffled(ANNOTATORS)[:2]:
                project.skip(task, annotator.user)
        else:
            _collect_votes(export, task, plan.pair, project, chance)
    if project.number == 1:
        project.later(REPEATED_AFTER)
        _repeat(export, project, chance)
    return export


def _collect_votes(export: Export, task: Task, pair: Pair, project: Project, chance: Chance) -> None:
    """Ask annotators in random order until there are enough votes: who skips is replaced by the next."""
    gold = pair.plant == "gold"
    wanted = len(ANNOTATORS) if gold else VOTES_PER_PAIR
    if gold:
        project.gold(task, GOLD_KEEPER, pair.better)
    for annotator in chance.shuffled(ANNOTATORS):
        if task["total_annotations"] - gold == wanted:
            break
        if not gold and chance.happens(annotator.skips):
            project.skip(task, annotator.user)
            continue
        vote = cast(annotator, pair, chance)
        number = project.vote(task, vote)
        if vote.flipped:
            export.flipped.append(number)


def _repeat(export: Export, project: Project, chance: Chance) -> None:
    """Let an annotator judge a task again, on tasks without any other peculiarity."""
    known = {annotator.user: annotator for annotator in ANNOTATORS}
    copied = {id(plan.of) for plan in export.planned}
    plain = [
        (task, plan.pair)
        for task, plan in zip(export.tasks, export.planned, strict=True)
        if plan.pair.plant == "none" and id(plan.pair) not in copied
    ]
    for task, pair in chance.shuffled(plain)[:NUM_REPEATS]:
        first = chance.pick([entry for entry in task["annotations"] if not entry["was_cancelled"]])
        vote = cast(known[first["completed_by"]], pair, chance)
        number = project.vote(task, vote)
        if vote.flipped:
            export.flipped.append(number)
        export.repeats.append(
            {"task": task["id"], "annotator": first["completed_by"], "first": first["id"], "later": number}
        )


def model() -> dict[str, Any]:
    """Return how votes were drawn: see `help_desk_votes.annotators`."""
    return {
        "flip": FLIP,
        "tie": {"floor": TIE_FLOOR, "span": TIE_SPAN, "scale": TIE_SCALE, "careless": CARELESS_TIES},
        "equal_below": EQUAL,
        "gold_keeper": GOLD_KEEPER,
        "annotators": [
            {
                "user": annotator.user,
                "kind": annotator.kind,
                "accuracy": annotator.accuracy,
                "named_side_right": round(annotator.named_side_right, 6),
                "skips": annotator.skips,
            }
            for annotator in ANNOTATORS
        ],
    }


def truth(export: Export) -> dict[str, Any]:
    """Return what is true of every task and which defects are planted; must be called before the text is made."""
    number_of = {id(plan.pair): task["id"] for task, plan in zip(export.tasks, export.planned, strict=True)}
    lists: dict[str, Any] = defaultdict(list)
    tasks: dict[str, Any] = {}
    for place, (task, plan) in enumerate(zip(export.tasks, export.planned, strict=True)):
        pair = plan.pair
        tasks[str(task["id"])] = {
            "question": pair.question.id,
            "answers": list(pair.names),
            "utilities": list(pair.utilities),
            "better": pair.better,
        }
        entry: dict[str, Any] = {"task": task["id"], **pair.details}
        if plan.of is not None:
            entry["of"] = number_of[id(plan.of)]
        if plan.malformed is not None:
            entry |= {"index": place, "what": plan.malformed.name}
            entry |= {"reason": plan.malformed.reason, "level": plan.malformed.level}
            if plan.malformed.level == "vote":
                entry["annotation"] = first_vote(task)["id"]
        if pair.plant != "none":
            lists[pair.plant].append(entry if len(entry) > 1 else task["id"])
    drafted = [task["id"] for task in export.tasks if task["drafts"]]
    return {
        **dict(sorted(lists.items())),
        "drafts": drafted,
        "repeats": export.repeats,
        "superseded": superseded(export),
        "flipped": sorted(export.flipped),
        "tasks": tasks,
    }


def superseded(export: Export) -> list[int]:
    """Return the annotations that a later one of the same annotator on the same two answers takes the place of."""
    latest: dict[tuple[str, frozenset[str], int], dict[str, Any]] = {}
    found = []
    for task, plan in zip(export.tasks, export.planned, strict=True):
        if plan.malformed is not None:
            continue
        data = task["data"]
        answers = frozenset((normalise(data["answer1"]), normalise(data["answer2"])))
        for entry in task["annotations"]:
            if entry["was_cancelled"] or entry["ground_truth"]:
                continue
            key = (normalise(data["prompt"]), answers, entry["completed_by"])
            before = latest.get(key)
            if before is not None:
                found.append(min(before, entry, key=_when)["id"])
            latest[key] = entry if before is None else max(before, entry, key=_when)
    return sorted(found)


def _when(entry: dict[str, Any]) -> str:
    return str(entry["created_at"])
