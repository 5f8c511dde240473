"""Reading the exports of a data set: every record counted, the same prompt one item, the same person one vote."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config.data import DataConfig, SourceConfig, SourceSplit, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.config.tables import TableConfig
from pipeline.data.accounts import SourceAccount
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Demonstration, Reason, content_key
from pipeline.data.sources import read_source, source_names, source_path
from pipeline.errors import DataError
from pipeline.labels.importers.registry import ImportContext, ReadRecord, choose_importer
from pipeline.labels.votes import Candidate, Imported, Item, Status, Vote

NUM_LOOKED_AT = 20  # records by which a format is recognised


@dataclass(kw_only=True)
class ExportAccount:
    """What one export holds, in records and in votes."""

    records: SourceAccount
    importer: str = ""
    votes: Counter[str] = field(default_factory=Counter)  # by status
    copies: int = 0  # the same annotation exported twice; it is one vote
    unlabelled: int = 0  # tasks that nobody has judged yet
    demonstrations: int = 0
    repeated_demonstrations: int = 0  # the same text as an earlier one

    def summary(self) -> list[str]:
        """Say it in two lines, for the log."""
        statuses = [f"{count:,} {status}" for status, count in sorted(self.votes.items())]
        others = (
            ("tasks without a vote", self.unlabelled),
            ("demonstrations", self.demonstrations),
            ("repeated demonstrations", self.repeated_demonstrations),
            ("copies of a vote", self.copies),
        )
        statuses += [f"{count:,} {name}" for name, count in others if count]
        importer = f"; read by `{self.importer}`" if self.importer else ""
        return [f"{self.records.summary()}{importer}", f"  {', '.join(statuses) or 'no votes'}"]

    def as_dict(self) -> dict[str, Any]:
        """For counts.json."""
        return {
            **self.records.as_dict(),
            "importer": self.importer,
            "votes": dict(sorted(self.votes.items())),
            "copies": self.copies,
            "unlabelled": self.unlabelled,
            "demonstrations": self.demonstrations,
            "repeated_demonstrations": self.repeated_demonstrations,
        }


@dataclass(kw_only=True)
class Collected:
    """Everything that the exports of a data set hold."""

    items: dict[str, Item] = field(default_factory=dict)
    votes: list[Vote] = field(default_factory=list)
    demonstrations: dict[str, list[Demonstration]] = field(default_factory=lambda: {"auto": [], "test": []})
    accounts: list[ExportAccount] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Who hears what while exports are read."""

    bad_record: Callable[[dict[str, Any]], None]  # each record that is set aside, as a line of quarantine.jsonl
    account: Callable[[ExportAccount], None]  # each export when it is read, before the run may stop because of it


def collect(
    data: DataConfig, config: IngestConfig, tables: Mapping[str, TableConfig], reporting: Reporting
) -> Collected:
    """Read every export of ``data``.

    Raises:
        ConfigError: No importer has the name that a source gives.
        DataError: An export cannot be read, is of no known format, or is too bad.
    """
    collected, seen = Collected(), _Seen()
    for index, (name, source) in enumerate(zip(source_names(data), data.sources, strict=True)):
        if source.table is not TableName.exports:
            continue
        key = f"data.sources[{index}]"
        records = SourceAccount(
            source=name,
            path=source.path,
            table=source.table.value,
            protected=source.split is SourceSplit.test,
        )
        account = ExportAccount(records=records)
        collected.accounts.append(account)
        _read(source, key, collected, account, seen, tables, reporting)
        records.close()
        reporting.account(account)
        records.refuse_if_bad(config.max_quarantined_fraction, "ingest.max_quarantined_fraction")
    collected.votes = _supersede(collected.votes)
    return collected


@dataclass(kw_only=True)
class _Seen:
    """What makes a later vote or demonstration a copy."""

    votes: set[tuple[Any, ...]] = field(default_factory=set)
    demonstrations: set[str] = field(default_factory=set)


def _read(
    source: SourceConfig,
    key: str,
    collected: Collected,
    account: ExportAccount,
    seen: _Seen,
    tables: Mapping[str, TableConfig],
    reporting: Reporting,
) -> None:
    """Read one export into what is collected so far."""
    stream = read_source(source, key)
    first = _first_records(stream)
    sample = [record.fields for record in first if record.fields is not None]
    read: ReadRecord | None = None
    if sample:
        name, path = account.records.source, source_path(source, key)
        context = ImportContext(source=source, key=key, name=name, path=path, sample=sample)
        importer = choose_importer(context, tables)
        account.importer, read = importer.name, importer.open(context)
    told: set[str] = set()
    records = account.records
    for record in itertools.chain(first, stream):
        records.read += 1
        if source.limit is not None and records.accepted >= source.limit:
            records.over_limit += 1
            continue
        try:
            imported = _imported(record, read)
        except BadRowError as problem:
            reporting.bad_record(records.set_aside(record, problem))
            continue
        records.accepted += 1
        for notice in imported.notices:
            if notice not in told:
                told.add(notice)
                collected.notices.append(f"{records.source}: {notice}")
        _keep(imported, collected, account, seen)


def _first_records(stream: Iterator[Record]) -> list[Record]:
    """Return the records by which a format is recognised, and more where none of them can be read."""
    first = list(itertools.islice(stream, NUM_LOOKED_AT))
    if not any(record.fields is not None for record in first):
        for record in stream:
            first.append(record)
            if record.fields is not None:
                break
    return first


def _imported(record: Record, read: ReadRecord | None) -> Imported:
    """Import one record.

    Raises:
        BadRowError: It is bad as a whole.
    """
    if record.problem is not None:
        raise record.problem
    if read is None or record.fields is None:
        raise BadRowError(Reason.schema, "the record has no fields")
    return read(record.fields)


def _keep(imported: Imported, collected: Collected, account: ExportAccount, seen: _Seen) -> None:
    """Put what a record holds to the rest."""
    for item in imported.items:
        known = collected.items.get(item.id)
        collected.items[item.id] = item if known is None else merged(known, item)
    account.unlabelled += imported.unlabelled
    for vote in imported.votes:
        # The same annotation with the same verdict in two files or twice in one is one vote. Ranks alone are no
        # verdict: the one completion of a thumb is first whatever was said of it.
        verdict = (vote.ranks, vote.ratings, vote.strength, vote.status)
        key = (vote.tool, vote.id, vote.item, vote.annotator, vote.question, vote.candidates, verdict)
        if key in seen.votes:
            account.copies += 1
            continue
        seen.votes.add(key)
        account.votes[vote.status.value] += 1
        collected.votes.append(vote)
    for row in imported.demonstrations:
        content = content_key(row)
        if content in seen.demonstrations:
            account.repeated_demonstrations += 1
            continue
        seen.demonstrations.add(content)
        account.demonstrations += 1
        collected.demonstrations["test" if account.records.protected else "auto"].append(row)


def merged(first: Item, second: Item) -> Item:
    """Join what two records say about one prompt: all their candidates, protected if either is."""
    candidates = dict(first.candidates)
    for candidate in second.candidates.values():
        known = candidates.get(candidate.id)
        if known is None or (known.model is None and candidate.model is not None):
            candidates[candidate.id] = Candidate(
                id=candidate.id, messages=(known or candidate).messages, model=candidate.model
            )
    topic = first.topic if first.topic is not None else second.topic
    return replace(first, candidates=candidates, protected=first.protected or second.protected, topic=topic)


def _supersede(votes: Iterable[Vote]) -> list[Vote]:
    """Let only the latest vote of an annotator on the same candidates and the same question count.

    Later is what was created later; where no times are given, what stands further down. Who is not named cannot be
    recognised, so that each unnamed vote counts. A known answer and a vote of its author are two things.
    """
    votes = list(votes)
    latest: dict[tuple[Any, ...], int] = {}
    superseded: set[int] = set()
    for index, vote in enumerate(votes):
        if vote.annotator is None or vote.status is not Status.submitted:
            continue
        key = (vote.annotator, vote.item, vote.question, vote.scale, vote.candidates, vote.gold)
        before = latest.setdefault(key, index)
        if before != index:
            newer = index if (vote.created or "") >= (votes[before].created or "") else before
            superseded.add(before if newer == index else index)
            latest[key] = newer
    return [
        replace(vote, status=Status.superseded) if index in superseded else vote for index, vote in enumerate(votes)
    ]


def require_something(collected: Collected) -> None:
    """Refuse exports from which nothing can be learned.

    Raises:
        DataError: There is neither a vote that counts nor a demonstration.
    """
    if any(vote.status is Status.submitted for vote in collected.votes) or any(collected.demonstrations.values()):
        return
    files = ", ".join(account.records.path for account in collected.accounts)
    raise DataError(f"No vote that counts and no demonstration is in {files}. Export submitted annotations.")
