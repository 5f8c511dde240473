"""Tasks and annotations as the server of Label Studio 1.23 writes them in its JSON export."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from help_desk_votes.annotators import Cast
from help_desk_votes.chance import Chance
from help_desk_votes.pairs import Pair

CONTROL = "comparison"  # the name of the Pairwise control in labeling.xml
SECONDS_BETWEEN = 23  # two annotations of the project
Task = dict[str, Any]


class Project:
    """Gives ids and times to what happens in a project, in the order in which it happens."""

    def __init__(self, number: int, first_task: int, first_annotation: int, start: datetime) -> None:
        self._chance = Chance(f"label studio {number}")
        self.number = number
        self._imported = start
        self._now = start + timedelta(hours=1)
        self._first_task = self._next_task = first_task
        self._next_annotation = first_annotation

    def task(self, pair: Pair) -> Task:
        """Import a task that nobody has seen yet."""
        moment = self._stamp(self._imported)
        number, self._next_task = self._next_task, self._next_task + 1
        return {
            "id": number,
            "annotations": [],
            "drafts": [],
            "predictions": [],
            "data": {
                "prompt": pair.prompt,
                "answer1": pair.answers[0],
                "answer2": pair.answers[1],
                "topic": pair.question.topic,
            },
            "meta": {},
            "created_at": moment,
            "updated_at": moment,
            "allow_skip": True,
            "inner_id": number - self._first_task + 1,
            "total_annotations": 0,
            "cancelled_annotations": 0,
            "total_predictions": 0,
            "comment_count": 0,
            "unresolved_comment_count": 0,
            "last_comment_updated_at": None,
            "project": self.number,
            "updated_by": None,
            "comment_authors": [],
        }

    def vote(self, task: Task, vote: Cast) -> int:
        """Let an annotator submit a vote and return its id; a tie leaves no region, as in the interface."""
        result = [] if vote.verdict == "tie" else [self._region(vote.verdict)]
        return self._annotate(task, vote.annotator.user, vote.seconds, result)

    def gold(self, task: Task, user: int, side: str) -> int:
        """Let the keeper of the ground truth mark the right answer."""
        return self._annotate(task, user, 30.0, [self._region(side)], ground_truth=True)

    def skip(self, task: Task, user: int) -> int:
        """Let an annotator skip the task."""
        return self._annotate(task, user, 2.0 + self._chance.whole(4000) / 1000, [], cancelled=True)

    def draft(self, task: Task, number: int, user: int, side: str) -> None:
        """Leave a vote that was begun and not submitted."""
        self._now += timedelta(seconds=SECONDS_BETWEEN)
        moment, mail = self._stamp(self._now), f"annotator{user}@hearthlog.example"
        region = self._region(side)
        del region["origin"]
        task["drafts"].append(
            {
                "id": number,
                "user": mail,
                "created_username": f"{mail}, {user}",
                "created_ago": "0\u00a0minutes",
                "result": [region],
                "lead_time": 3.0,
                "was_postponed": False,
                "import_id": None,
                "created_at": moment,
                "updated_at": moment,
                "task": task["id"],
                "annotation": None,
            }
        )

    def later(self, days: int) -> None:
        """Let time pass."""
        self._now += timedelta(days=days)

    def _annotate(
        self,
        task: Task,
        user: int,
        seconds: float,
        result: list[dict[str, Any]],
        *,
        cancelled: bool = False,
        ground_truth: bool = False,
    ) -> int:
        self._now += timedelta(seconds=SECONDS_BETWEEN)
        moment = self._stamp(self._now)
        number, self._next_annotation = self._next_annotation, self._next_annotation + 1
        task["annotations"].append(
            {
                "id": number,
                "completed_by": user,
                "result": result,
                "was_cancelled": cancelled,
                "ground_truth": ground_truth,
                "created_at": moment,
                "updated_at": moment,
                "draft_created_at": None,
                "lead_time": seconds,
                "prediction": {},
                "result_count": len(result),
                "unique_id": str(uuid.UUID(hex=self._chance.hexadecimal(32), version=4)),
                "import_id": None,
                "last_action": None,
                "bulk_created": False,
                "task": task["id"],
                "project": self.number,
                "updated_by": user,
                "parent_prediction": None,
                "parent_annotation": None,
                "last_created_by": None,
            }
        )
        task["cancelled_annotations" if cancelled else "total_annotations"] += 1
        task["updated_at"], task["updated_by"] = moment, user
        return number

    def _region(self, side: str) -> dict[str, Any]:
        return {
            "id": self._chance.hexadecimal(10),
            "from_name": CONTROL,
            "to_name": CONTROL,
            "type": "pairwise",
            "origin": "manual",
            "value": {"selected": side},
        }

    def _stamp(self, moment: datetime) -> str:
        return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{self._chance.whole(1_000_000):06d}Z"


def written(tasks: list[str]) -> str:
    """Return the export, a task a line: JSON texts in, the text of one array out."""
    return "[" + ",\n".join(tasks) + "]\n"


def as_text(task: Any) -> str:
    """Write a task as the server does: without spaces, and with letters as they are."""
    return json.dumps(task, ensure_ascii=False, separators=(",", ":"))
