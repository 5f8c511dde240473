"""Curate: raw sources in, one sealed data set out, and no row lost without a count."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import IO, Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import canonical_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.data import CurateConfig, DataConfig
from pipeline.data.accounts import SourceAccount
from pipeline.data.card import write_card
from pipeline.data.curation import SPLITS, Curated, Reporting, curate_sources
from pipeline.pages.dataset_page import write_dataset_page
from pipeline.tracking.job import StageJob

COUNTS_FILE = "counts.json"
EXAMPLES_FILE = "examples.json"
QUARANTINE_FILE = "quarantine.jsonl"
REMOVED_FILE = "removed.jsonl"
QUALITY_FILE = "quality.json"  # of the labels
SOURCE_COLUMNS = (
    "source", "table", "read", "accepted", "guards", "quarantined", "filtered", "duplicates", "near_duplicates",
    "bridges_splits", "leaks", "over_limit", "over_cap",
)  # fmt: skip


def curate(job: StageJob) -> StageOutcome:
    """Read the sources of ``data`` and the tables of the labels into tables with splits.

    Writes ``<table>/<split>.parquet`` for every split that has rows; ``counts.json`` and ``examples.json``;
    ``quarantine.jsonl``, the bad rows with their place, reason and first bytes; ``removed.jsonl``, the sound rows that
    were left out, each with the reason and the row because of which; ``report.html`` and ``data_card.md``. The same
    sources give the same bytes.
    """
    data, config = job.section(DataConfig), job.section(CurateConfig)
    labels = job.one("labels")
    with ExitStack() as stack:
        quarantine, removed = (
            stack.enter_context((job.staging / name).open("w", encoding="utf-8"))
            for name in (QUARANTINE_FILE, REMOVED_FILE)
        )

        def account(account: SourceAccount) -> None:
            """Print a source's account."""
            job.run.notice(account.summary())
            if account.num_quarantined:
                job.run.notice(f"  bad rows of {account.source}: {job.staging / QUARANTINE_FILE}")

        # Both are written row by row: a run that stops because of bad rows must show them.
        reporting = Reporting(
            bad_row=lambda entry: _write_line(quarantine, entry),
            removed=lambda entry: _write_line(removed, entry),
            account=account,
        )
        curated = curate_sources(
            data,
            config,
            reporting,
            staging=job.staging,
            work=job.work.path,
            labels=None if labels is None else labels.path,
        )
    for name, content in ((COUNTS_FILE, curated.counts), (EXAMPLES_FILE, curated.examples)):
        write_durably(job.staging / name, json.dumps(content, indent=2, sort_keys=True) + "\n")
    quality = None if labels is None else json.loads(labels.file(QUALITY_FILE).read_text(encoding="utf-8"))
    write_dataset_page(
        job.staging, counts=curated.counts, examples=curated.examples, quality=quality, title=f"Data set {data.name}"
    )
    write_card(job.staging, counts=curated.counts, quality=quality, data=data, config=config)
    rows = [[_number(source[name]) for name in SOURCE_COLUMNS] for source in curated.counts["sources"]]
    job.run.table("sources", SOURCE_COLUMNS, rows)
    for line in [*curated.notices, *overview(curated)]:
        job.run.notice(line)
    return StageOutcome(parts=curated.parts, metrics=curated.counts)


def overview(curated: Curated) -> list[str]:
    """Lay out the number of rows by table and split."""
    lines = [f"{'':<16}" + "".join(f"{split:>12}" for split in SPLITS)]
    for table, sizes in curated.tables.items():
        lines.append(f"{table.value:<16}" + "".join(f"{sizes[split]:>12,}" for split in SPLITS))
    return lines


def _write_line(file: IO[str], entry: dict[str, Any]) -> None:
    file.write(canonical_json(entry) + "\n")


def _number(value: Any) -> str | int:
    """Return a column of an account as one cell: what is counted by reason as the sum."""
    return sum(value.values()) if isinstance(value, dict) else value
