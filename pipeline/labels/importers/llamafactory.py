"""LLaMA-Factory: files whose columns and roles the `dataset_info.json` beside them explains.

Format: https://github.com/hiyouga/LLaMA-Factory, data/README.md. Files of its version 1, whose turns hold typed parts
and a weight, explain themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.data.building import refuse_meaningful_columns
from pipeline.data.rows import (
    BadRowError,
    Message,
    Reason,
    check_conversation,
    check_text,
    is_blank,
    split_demonstration,
)
from pipeline.data.transcripts import split_pair
from pipeline.errors import DataError
from pipeline.labels.importers.ballots import Ballots, Judgement, invalid
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import completion_turns, exchange, shown, text_or_none
from pipeline.labels.votes import Imported, Scale

REGISTRY = "dataset_info.json"
MAX_REGISTRY_BYTES = 4 << 20
ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
SHAREGPT = {"messages": "conversations"}
TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "system_tag": "system",
}  # fmt: skip
UNREAD = ("images", "videos", "audios", "tools")  # columns of a registry that change what a reply means
V1 = ("chosen_messages", "rejected_messages")


def registered_entry(path: Path) -> dict[str, Any] | None:
    """Return what the registry beside a file says of it, or None where there is none or it is silent."""
    return _entries(path.parent / REGISTRY).get(path.name) if path.name != REGISTRY else None


@lru_cache(maxsize=8)
def _entries(registry: Path) -> dict[str, dict[str, Any]]:
    """Return a registry's entries by file name; what is no registry has none."""
    if not registry.is_file() or registry.stat().st_size > MAX_REGISTRY_BYTES:
        return {}
    try:
        parsed = json.loads(registry.read_bytes())
    except (ValueError, RecursionError):
        return {}
    entries = parsed.values() if isinstance(parsed, dict) else []
    return {
        entry["file_name"]: entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str)
    }


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    if registered_entry(path) is not None:
        return True
    return most(set(V1) <= set(fields) or _is_typed(fields.get("messages")) for fields in sample)


def _is_typed(value: Any) -> bool:
    """Whether a conversation is one of version 1."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and isinstance(turn.get("content"), list) for turn in value)
    )


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "llamafactory")
    entry = registered_entry(context.path)
    if entry is None:
        return lambda fields: _read_v1(fields, ballots)
    reader = _Registered(entry, ballots)
    reader.require(context)
    return reader.read


def _names(entry: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return the names that a registry's entry gives under a key."""
    given = entry.get(key)
    pairs = given.items() if isinstance(given, dict) else ()
    return {field: name for field, name in pairs if isinstance(name, str)}


class _Registered:
    """Reads the records of a file as its entry in the registry says."""

    def __init__(self, entry: Mapping[str, Any], ballots: Ballots) -> None:
        self._ballots = ballots
        self._is_sharegpt = entry.get("formatting") == "sharegpt"
        self._columns = _names(entry, "columns") or dict(SHAREGPT if self._is_sharegpt else ALPACA)
        self._tags = {**TAGS, **_names(entry, "tags")}
        self._is_ranking = entry.get("ranking") is True

    def require(self, context: ImportContext) -> None:
        """Check that the file can be anything but running text.

        Raises:
            DataError: The registry names no column in which replies stand, or the file lacks it.
        """
        present = {name for fields in context.sample for name in fields}
        needed = ["messages"] if self._is_sharegpt else ["prompt"]
        needed += ["chosen", "rejected"] if self._is_ranking else [] if self._is_sharegpt else ["response"]
        for field in needed:
            if self._columns.get(field) not in present:
                raise DataError(
                    f"{context.path}: the {REGISTRY} beside it names no column for `{field}` that the file has. "
                    f"Running text is neither votes nor demonstrations. Correct the entry, or name the "
                    f"importer that fits in `{context.key}.importer`."
                )

    def read(self, fields: dict[str, Any]) -> Imported:
        """Read one record."""
        for name in UNREAD:
            if fields.get(self._columns.get(name, "")) not in (None, "", [], {}):
                raise BadRowError(Reason.schema, f"{name} belong to the record, which training here would ignore")
        refuse_meaningful_columns(fields, list(self._columns.values()))
        turns = self._conversation(fields)
        if self._is_ranking:
            sides = [self._reply(fields, name) for name in ("chosen", "rejected")]
            prompt, checked = exchange(turns, sides)
            return self._ballots.better(prompt, checked[0], checked[1])
        if not self._is_sharegpt:
            turns = [*turns, *self._reply(fields, "response")]
        if "kto_tag" in self._columns:
            prompt, checked = exchange(turns[:-1], [turns[-1:]])
            return self._ballots.imported(prompt, [(checked[0], None)], self._thumbs(fields))
        return Imported(demonstrations=[self._ballots.demonstration(*split_demonstration(check_conversation(turns)))])

    def _get(self, fields: Mapping[str, Any], name: str) -> Any:
        return fields.get(self._columns[name]) if name in self._columns else None

    def _conversation(self, fields: Mapping[str, Any]) -> list[Any]:
        """Return the turns of the prompt, or of the whole conversation, unchecked."""
        system = text_or_none(self._get(fields, "system"), "system")
        head = [] if system is None else [{"role": "system", "content": system}]
        if self._is_sharegpt:
            turns = self._get(fields, "messages")
            if not isinstance(turns, list):
                raise BadRowError(Reason.schema, f"{self._columns['messages']!r} is not a list of turns")
            return [*head, *(self._turn(turn) for turn in turns)]
        texts = [check_text(self._get(fields, "prompt"), "prompt"), text_or_none(self._get(fields, "query"), "query")]
        asked = "\n\n".join(text for text in texts if text is not None and not is_blank(text))
        earlier: list[dict[str, Any]] = []
        history = self._get(fields, "history") or []
        for pair in history if isinstance(history, list) else [history]:
            if not isinstance(pair, list) or len(pair) != 2:
                raise BadRowError(Reason.schema, "'history' is not a list of pairs of a question and its answer")
            earlier += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
        return [*head, *earlier, {"role": "user", "content": asked}]

    def _turn(self, turn: Any) -> Any:
        """Write a turn with our keys and roles; what is unknown is left for the check to name."""
        if not isinstance(turn, dict):
            return turn
        tags = self._tags
        roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system"}
        role, named = turn.get(tags["role_tag"]), {tags["role_tag"], tags["content_tag"]}
        others = {key: value for key, value in turn.items() if key not in named}
        return {
            **others,
            "role": roles.get(role, role) if isinstance(role, str) else role,
            "content": turn.get(tags["content_tag"]),
        }

    def _reply(self, fields: Mapping[str, Any], name: str) -> list[Any]:
        value = self._get(fields, name)
        if isinstance(value, dict):
            return [self._turn(value)]
        if isinstance(value, list):
            return [self._turn(turn) for turn in value]
        return completion_turns(value, name)

    def _thumbs(self, fields: Mapping[str, Any]) -> list[Judgement]:
        value = self._get(fields, "kto_tag")
        if isinstance(value, bool):
            return [Judgement(scale=Scale.thumbs, ratings=(float(value),))]
        name = self._columns["kto_tag"]
        return [invalid(Scale.thumbs, BadRowError(Reason.label, f"{name} is {shown(value)}, not true or false"))]


def _read_v1(fields: dict[str, Any], ballots: Ballots) -> Imported:
    """Read a record of version 1."""
    if V1[0] in fields:
        return ballots.better(*split_pair(*(_typed_turns(fields.get(name), name) for name in V1)))
    turns = _typed_turns(fields.get("messages"), "messages")
    return Imported(demonstrations=[ballots.demonstration(*split_demonstration(turns))])


def _typed_turns(value: Any, field: str) -> list[Message]:
    """Return turns whose content is one part of text. A weight of 0 is what every turn but a reply has anyway."""
    if not isinstance(value, list):
        raise BadRowError(Reason.schema, f"{field} is {shown(value)}, not a list of turns")
    turns: list[Any] = []
    for index, turn in enumerate(value):
        parts = turn.get("content") if isinstance(turn, dict) else None
        one = parts[0] if isinstance(parts, list) and len(parts) == 1 else None
        if not isinstance(one, dict) or one.get("type") != "text":
            raise BadRowError(Reason.schema, f"{field}[{index}] is not a turn with one part of text")
        others = {key: entry for key, entry in turn.items() if key != "content"}
        if turn.get("role") != "assistant" and others.get("loss_weight") == 0:
            del others["loss_weight"]
        turns.append({**others, "content": one.get("value")})
    return check_conversation(turns, field)


register_importer(Importer(name="llamafactory", recognises=_recognises, open=_open))
