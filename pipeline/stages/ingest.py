"""Ingest: annotation exports in, votes out, and comparisons and labelled completions with a confidence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import canonical_json, sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.data import DataConfig, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.data.tables import Row, part_name, rows_digest, write_table
from pipeline.labels.aggregation import Aggregated, aggregate
from pipeline.labels.collecting import Collected, ExportAccount, Reporting, collect, require_something
from pipeline.labels.quality import Quality, assess
from pipeline.labels.tables import write_items, write_votes
from pipeline.pages.dataset_page import account_lines
from pipeline.tracking.job import StageJob

QUALITY_FILE = "quality.json"
COUNTS_FILE = "counts.json"
QUARANTINE_FILE = "quarantine.jsonl"
SIDES = ("auto", "test")  # the split that a source declares: `test` rows may not be trained on
SCORECARD = ("annotator", "votes", "ties", "skipped", "agreement", "gold", "first side", "seconds", "set aside")


def ingest(job: StageJob) -> StageOutcome:
    """Read the exports of ``data``, judge the annotators, and join their votes into rows.

    Writes ``votes.parquet`` and ``items.parquet`` (every vote of whatever status), ``comparisons/<side>.parquet``,
    ``unpaired/<side>.parquet`` and ``demonstrations/<side>.parquet`` (side is ``auto``, or ``test`` for protected
    exports), ``quality.json``, ``counts.json`` and ``quarantine.jsonl``. The same exports give the same bytes.
    """
    config = job.section(IngestConfig)
    collected = _collect(job, config)
    require_something(collected)
    quality = assess(collected.items, collected.votes, config)
    aggregated = aggregate(collected.items, collected.votes, config, set(quality.set_aside))
    for line in [*collected.notices, *_said(quality, aggregated)]:
        job.run.notice(line)
    parts = {
        "items": write_items(job.staging, collected.items.values()),
        "votes": write_votes(job.staging, collected.votes),
    }
    for side in SIDES:
        protected = side == "test"
        comparisons = [pair.row for pair in aggregated.comparisons if pair.protected is protected]
        parts |= _write(job, TableName.comparisons, side, comparisons)
        unpaired = [thumb.row for thumb in aggregated.unpaired if thumb.protected is protected]
        parts |= _write(job, TableName.unpaired, side, unpaired)
        parts |= _write(job, TableName.demonstrations, side, collected.demonstrations[side])
    judged = {
        **quality.as_dict(),
        "estimated": aggregated.annotators,
        "exports": [account.as_dict() for account in collected.accounts],
        "aggregated": aggregated.counts,
    }
    write_durably(job.staging / QUALITY_FILE, json.dumps(judged, indent=2, sort_keys=True) + "\n")
    parts["quality"] = sha256_json(judged)
    counts = _counts(collected, aggregated)
    write_durably(job.staging / COUNTS_FILE, json.dumps(counts, indent=2, sort_keys=True) + "\n")
    job.run.table("annotators", SCORECARD, [_scorecard(entry) for entry in judged["annotators"]])
    return StageOutcome(parts=parts, metrics=counts)


def _collect(job: StageJob, config: IngestConfig) -> Collected:
    """Read the exports; bad records are written down at once, because a run that stops because of one must show it."""
    path = job.staging / QUARANTINE_FILE
    with path.open("w", encoding="utf-8") as quarantine:

        def bad_record(entry: dict[str, Any]) -> None:
            quarantine.write(canonical_json(entry) + "\n")

        def account(account: ExportAccount) -> None:
            for line in account.summary():
                job.run.notice(line)
            if account.records.num_quarantined:
                job.run.notice(f"  bad records of {account.records.source}: {path}")

        reporting = Reporting(bad_record=bad_record, account=account)
        return collect(job.section(DataConfig), config, job.params["tables"], reporting)


def _write(job: StageJob, table: TableName, side: str, rows: Sequence[Row]) -> dict[str, str]:
    """Write the rows of one side, if there are any, and return the part that they are."""
    if not rows:
        return {}
    write_table(job.staging, table.value, side, rows)
    return {part_name(table.value, side): rows_digest(rows)}


def _counts(collected: Collected, aggregated: Aggregated) -> dict[str, Any]:
    votes: Counter[str] = Counter()
    for account in collected.accounts:
        votes.update(account.votes)
    statuses = Counter(vote.status.value for vote in collected.votes)
    return {
        "exports": [account.as_dict() for account in collected.accounts],
        "items": len(collected.items),
        "votes": dict(sorted(statuses.items())),
        "votes_as_read": dict(sorted(votes.items())),  # before the latest of an annotator superseded the others
        "aggregated": aggregated.counts,
        "problems": aggregated.problems,
        "demonstrations": {side: len(rows) for side, rows in collected.demonstrations.items()},
    }


def _said(quality: Quality, aggregated: Aggregated) -> list[str]:
    """Say what became of the annotators, of the pairs and of single completions."""
    lines = [f"set aside: annotator {name}: {'; '.join(why)}" for name, why in sorted(quality.set_aside.items())]
    if lines:
        lines.append("  ingest.quality.keep=[NAME] brings one back")
    return [*lines, *(f"{name}: {line}" for name, line in account_lines(aggregated.counts).items())]


def _scorecard(entry: dict[str, Any]) -> list[str | int | float | None]:
    def estimate(name: str) -> float | None:
        return None if entry[name] is None else entry[name]["estimate"]

    return [
        entry["annotator"],
        entry["num_votes"],
        entry["num_ties"],
        entry["skipped"],
        estimate("agreement"),
        estimate("gold"),
        estimate("first_share"),
        entry["median_seconds"],
        "; ".join(entry["reasons"]) if entry["set_aside"] else "",
    ]
