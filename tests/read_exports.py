"""One export read as `ingest` reads it, and exports written for a test."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.data import DataConfig, SourceConfig, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.config.tables import TableConfig, load_tables
from pipeline.labels.collecting import Collected, Reporting, collect
from pipeline.labels.votes import Item, Vote

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@functools.cache
def shipped_tables() -> dict[str, TableConfig]:
    return load_tables([CONFIGS])


@dataclass
class Export:
    """What one export gave."""

    collected: Collected
    bad: list[dict[str, Any]] = field(default_factory=list)

    @property
    def importer(self) -> str:
        return self.collected.accounts[0].importer

    @property
    def votes(self) -> list[Vote]:
        return self.collected.votes

    @property
    def counts(self) -> dict[str, Any]:
        return self.collected.accounts[0].as_dict()

    @property
    def reasons(self) -> dict[int, str]:
        """Reason of each bad record by its line."""
        return {entry["line"]: entry["reason"] for entry in self.bad}

    @property
    def replies(self) -> list[str]:
        return [row.completion[-1]["content"] for rows in self.collected.demonstrations.values() for row in rows]

    def item(self, vote: Vote) -> Item:
        return self.collected.items[vote.item]

    def order(self, vote: Vote) -> dict[str, int | None] | None:
        """Place of each completion by its text."""
        candidates = self.item(vote).candidates
        texts = [candidates[name].messages[-1]["content"] for name in vote.candidates]
        return None if vote.ranks is None else dict(zip(texts, vote.ranks, strict=True))

    def rated(self, vote: Vote) -> dict[str, float | None] | None:
        """Rating of each completion by its text."""
        candidates = self.item(vote).candidates
        texts = [candidates[name].messages[-1]["content"] for name in vote.candidates]
        return None if vote.ratings is None else dict(zip(texts, vote.ratings, strict=True))


def read_export(path: Path, *, tables: dict[str, TableConfig] | None = None, **source: Any) -> Export:
    """Read an export whatever share of it is bad."""
    data = DataConfig(name="real", sources=[SourceConfig(table=TableName.exports, path=str(path), **source)])
    bad: list[dict[str, Any]] = []
    reporting = Reporting(bad_record=bad.append, account=lambda _: None)
    known = shipped_tables() if tables is None else tables
    return Export(collect(data, IngestConfig(max_quarantined_fraction=1.0), known, reporting), bad)


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
