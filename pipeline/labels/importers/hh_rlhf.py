"""Anthropic's hh-rlhf: two transcripts per record that differ in their last reply.

Format: https://github.com/anthropics/hh-rlhf. One unnamed crowd worker per record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.rows import BadRowError, Reason
from pipeline.data.transcripts import is_transcript, parse_transcript_pair
from pipeline.labels.importers.ballots import Ballots
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.votes import Imported

FIELDS = ("chosen", "rejected")


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    return most(set(fields) == set(FIELDS) and all(is_transcript(fields[name]) for name in FIELDS) for fields in sample)


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "hh_rlhf")

    def read(fields: dict[str, Any]) -> Imported:
        for name in FIELDS:
            if fields.get(name) is None:
                raise BadRowError(Reason.schema, f"{name!r} is missing")
        return ballots.better(*parse_transcript_pair(fields["chosen"], fields["rejected"]))

    return read


register_importer(Importer(name="hh_rlhf", recognises=_recognises, open=_open))
