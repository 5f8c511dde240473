"""Curate: raw sources in, one sealed data set out, and no row lost without a count."""

from __future__ import annotations

import json
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import canonical_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.data import CurateConfig, DataConfig
from pipeline.data.accounts import SourceAccount
from pipeline.data.curation import SPLITS, Curated, Reporting, curate_sources
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.tracking.job import StageJob

COUNTS_FILE = "counts.json"
QUARANTINE_FILE = "quarantine.jsonl"


def curate(job: StageJob) -> StageOutcome:
    """Read the sources of ``data`` into tables with splits.

    Writes ``<table>/<split>.parquet`` for every split that has rows, ``counts.json`` and ``quarantine.jsonl``, the bad
    rows with their place, reason and first bytes. The same sources give the same bytes.
    """
    with (job.staging / QUARANTINE_FILE).open("w", encoding="utf-8") as quarantine:

        def bad_row(entry: dict[str, Any]) -> None:
            """Write a bad row down at once: a run that stops because of it must show it."""
            quarantine.write(canonical_json(entry) + "\n")

        def account(account: SourceAccount) -> None:
            """Print a source's account."""
            job.run.notice(account.summary())
            if account.num_quarantined:
                job.run.notice(f"  bad rows of {account.source}: {job.staging / QUARANTINE_FILE}")

        reporting = Reporting(bad_row=bad_row, account=account)
        curated = curate_sources(job.section(DataConfig), job.section(CurateConfig), reporting)
    counts = curated.counts()
    write_durably(job.staging / COUNTS_FILE, json.dumps(counts, indent=2, sort_keys=True) + "\n")
    parts: dict[str, str] = {}
    for table, split, rows in curated.non_empty():
        write_table(job.staging, table.value, split, rows)
        parts[part_name(table.value, split)] = rows_digest(rows)
    for line in [*curated.notices, *overview(curated)]:
        job.run.notice(line)
    return StageOutcome(parts=parts, metrics=counts)


def overview(curated: Curated) -> list[str]:
    """Lay out the number of rows by table and split."""
    lines = [f"{'':<16}" + "".join(f"{split:>12}" for split in SPLITS)]
    for table, splits in curated.tables.items():
        lines.append(f"{table.value:<16}" + "".join(f"{len(splits[split]):>12,}" for split in SPLITS))
    return lines
