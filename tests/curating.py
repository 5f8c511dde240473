"""Sources written for one test, and what `curate_sources` makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.data import CurateConfig, DataConfig, SourceConfig, TableName
from pipeline.data.accounts import SourceAccount
from pipeline.data.curation import Curated, Reporting, curate_sources
from pipeline.data.rows import Comparison, Demonstration, Prompt
from pipeline.data.tables import read_table

PROMPTS, DEMONSTRATIONS, COMPARISONS = TableName.prompts, TableName.demonstrations, TableName.comparisons
TYPES: dict[TableName, Any] = {PROMPTS: Prompt, DEMONSTRATIONS: Demonstration, COMPARISONS: Comparison}


def pair(prompt: Any, completion: str = "So.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


@dataclass(kw_only=True)
class Made:
    """A data set that was made, and what was told on the way."""

    curated: Curated
    folder: Path
    bad: list[dict[str, Any]]
    removed: list[dict[str, Any]]

    @property
    def accounts(self) -> list[SourceAccount]:
        return self.curated.accounts

    @property
    def counts(self) -> dict[str, Any]:
        return self.curated.counts

    def rows(self, table: TableName, split: str) -> list[Any]:
        """Read a split back; nothing where it has no rows."""
        if not (self.folder / table.value / f"{split}.parquet").exists():
            return []
        return read_table(self.folder, table.value, split, TYPES[table])

    def fates(self) -> dict[str, str]:
        """Why each removed row was removed, by its id."""
        return {entry["id"]: entry["why"] for entry in self.removed}


class Bench:
    """A folder of sources, and what was reported while they were read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bad: list[dict[str, Any]] = []
        self.accounts: list[SourceAccount] = []
        self._number = 0

    def source(self, name: str, rows: list[Any], table: TableName = DEMONSTRATIONS, **more: Any) -> SourceConfig:
        content = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        (self.folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
        return SourceConfig(table=table, path=str(self.folder / f"{name}.jsonl"), **more)

    def curate(self, *sources: SourceConfig, labels: Path | None = None, **config: Any) -> Made:
        self._number += 1
        folder, work = self.folder / f"made-{self._number}", self.folder / f"work-{self._number}"
        removed: list[dict[str, Any]] = []
        reporting = Reporting(bad_row=self.bad.append, removed=removed.append, account=self.accounts.append)
        curated = curate_sources(
            DataConfig(name="desk", sources=list(sources)),
            CurateConfig(**{"max_quarantined_fraction": 1.0, **config}),
            reporting,
            staging=folder,
            work=work,
            labels=labels,
        )
        assert list(work.iterdir()) == []
        return Made(curated=curated, folder=folder, bad=self.bad, removed=removed)
