"""OpenAI's fine-tuning files: conversations to imitate, and preferences between two outputs.

Formats: https://platform.openai.com/docs/guides/supervised-fine-tuning and direct-preference-optimization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.building import refuse_meaningful_columns
from pipeline.data.rows import BadRowError, Reason, check_conversation, split_demonstration
from pipeline.labels.importers.ballots import Ballots
from pipeline.labels.importers.llamafactory import registered_entry
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import exchange
from pipeline.labels.votes import Imported

OUTPUTS = ("preferred_output", "non_preferred_output")
CHAT = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    return registered_entry(path) is None and most(
        {"input", *OUTPUTS} <= set(fields) or (set(fields) <= CHAT and _is_chat(fields.get("messages")))
        for fields in sample
    )


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and "role" in turn and not isinstance(turn.get("content"), list) for turn in value
    )


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "openai")

    def read(fields: dict[str, Any]) -> Imported:
        refuse_meaningful_columns(fields, ())
        if OUTPUTS[0] not in fields:
            turns = check_conversation(fields.get("messages"))
            return Imported(demonstrations=[ballots.demonstration(*split_demonstration(turns))])
        given = fields.get("input")
        if isinstance(given, dict):
            refuse_meaningful_columns(given, ())
            given = given.get("messages")
        for name in OUTPUTS:
            if not isinstance(fields.get(name), list):
                raise BadRowError(Reason.schema, f"{name!r} is not a list of messages")
        prompt, sides = exchange(check_conversation(given, "input"), [fields[name] for name in OUTPUTS])
        return ballots.better(prompt, sides[0], sides[1])

    return read


register_importer(Importer(name="openai", recognises=_recognises, open=_open))
