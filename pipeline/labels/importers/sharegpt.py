"""ShareGPT: conversations of {from, value} to imitate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.building import refuse_meaningful_columns
from pipeline.data.rows import check_conversation, split_demonstration
from pipeline.data.turns import plain_turns
from pipeline.labels.importers.ballots import Ballots
from pipeline.labels.importers.llamafactory import registered_entry
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import text_or_none
from pipeline.labels.votes import Imported

JUDGED = frozenset({"chosen", "rejected", "label", "kto_tag"})


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    return registered_entry(path) is None and most(
        isinstance(fields.get("conversations"), list) and not JUDGED & set(fields) for fields in sample
    )


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "sharegpt")

    def read(fields: dict[str, Any]) -> Imported:
        refuse_meaningful_columns(fields, ())
        turns = plain_turns(fields.get("conversations"))
        system = text_or_none(fields.get("system"), "system")
        if system is not None and isinstance(turns, list):
            turns = [{"role": "system", "content": system}, *turns]
        prompt, completion = split_demonstration(check_conversation(turns, "conversations"))
        return Imported(demonstrations=[ballots.demonstration(prompt, completion, given_id=fields.get("id"))])

    return read


register_importer(Importer(name="sharegpt", recognises=_recognises, open=_open))
