"""OpenAssistant's message trees: the replies to one message, ranked by people whom the export does not name.

Format: https://github.com/LAION-AI/Open-Assistant, oasst-data/oasst_data/schemas.py. A record is a whole tree, or its
first message with everything below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.rows import BadRowError, Reason, check_text
from pipeline.labels.importers.ballots import Ballots, Judgement
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import exchange, shown, text_or_none
from pipeline.labels.votes import Imported, Scale, Status

FINAL = "ready_for_export"
REFUSED = frozenset({"aborted_low_grade", "halted_by_moderator"})
ROLES = {"prompter": "user", "assistant": "assistant"}
REMOVED = "deleted messages and those that reviewers refused are not read, nor is what was said in reply to them"


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    trees = [fields.get("prompt") if "message_tree_id" in fields else fields for fields in sample]
    return most(isinstance(tree, dict) and {"message_id", "text", "replies"} <= set(tree) for tree in trees)


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "openassistant")

    def read(fields: dict[str, Any]) -> Imported:
        root, status = _root(fields)
        found = Imported()
        walk = _Walk()
        for path, replies in walk.questions(root):
            prompt, sides = exchange(path, [[_turn(reply)] for reply in replies])
            completions = [(side, _author(reply)) for side, reply in zip(sides, replies, strict=True)]
            judgements = _ranking(replies, status)
            one = ballots.imported(prompt, completions, judgements)
            found.items += one.items
            found.votes += one.votes
            found.unlabelled += one.unlabelled
        if walk.num_removed:
            found.notices.append(REMOVED)
        return found

    return read


def _root(fields: dict[str, Any]) -> tuple[dict[str, Any], Status]:
    """Return the first message of a record, and what the state of its tree makes of the rankings in it."""
    root = fields.get("prompt") if "message_tree_id" in fields else fields
    if not isinstance(root, dict):
        raise BadRowError(Reason.schema, "the tree has no first message in 'prompt'")
    state = fields.get("tree_state", FINAL)
    if not isinstance(state, str):
        raise BadRowError(Reason.schema, f"tree_state is {shown(state)}, not text")
    if state in REFUSED:
        return root, Status.refused
    return root, Status.submitted if state == FINAL else Status.draft


class _Walk:
    """Goes through a tree without recursion, because files choose how deep they are."""

    def __init__(self) -> None:
        self.num_removed = 0

    def questions(self, root: dict[str, Any]) -> Iterator[tuple[list[dict[str, str]], list[dict[str, Any]]]]:
        """Yield every message of a prompter that has several replies, as the turns up to it and the replies."""
        if root.get("role") != "prompter":
            raise BadRowError(Reason.role, f"the first message is of {shown(root.get('role'))}, not of a prompter")
        waiting = [([_turn(root)], root)] if self._stands(root) else []
        while waiting:
            path, message = waiting.pop()
            replies = [reply for reply in _replies(message) if self._stands(reply)]
            if message["role"] == "prompter" and len(replies) > 1:
                yield path, replies
            waiting += [([*path, _turn(reply)], reply) for reply in reversed(replies)]

    def _stands(self, message: dict[str, Any]) -> bool:
        removed = message.get("deleted") is True or message.get("review_result") is False
        self.num_removed += removed
        return not removed


def _replies(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was said in reply, the other one's turn each."""
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise BadRowError(
            Reason.schema, f"the replies of {shown(message.get('message_id'))} are not a list of messages"
        )
    return replies


def _turn(message: dict[str, Any]) -> dict[str, str]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRowError(Reason.role, f"a message is of {shown(role)}, not of prompter or assistant")
    return {"role": ROLES[role], "content": check_text(message.get("text"), "text")}


def _author(reply: dict[str, Any]) -> str | None:
    return text_or_none(reply.get("model_name"), "model_name") if reply.get("synthetic") is True else None


def _ranking(replies: list[dict[str, Any]], status: Status) -> list[Judgement]:
    """Return the order of replies as one judgement; none where fewer than two of them have a place."""
    ranks = [reply.get("rank") for reply in replies]
    for rank in ranks:
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int)):
            raise BadRowError(Reason.label, f"the rank {shown(rank)} is not a whole number")
    placed = sorted({rank for rank in ranks if rank is not None})
    if sum(rank is not None for rank in ranks) < 2:
        return []
    num_synthetic = sum(reply.get("synthetic") is True for reply in replies)
    return [
        Judgement(
            scale=Scale.ranking,
            ranks=[None if rank is None else 1 + placed.index(rank) for rank in ranks],
            status=status,
            note=f"{num_synthetic} of {len(replies)} replies are synthetic" if num_synthetic else None,
        )
    ]


register_importer(Importer(name="openassistant", recognises=_recognises, open=_open))
