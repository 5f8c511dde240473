"""Curation from end to end, in memory that does not grow with the texts.

Four passes: shards are read, checked and filtered, and their rows spilled to disk with a few numbers each; near
prompts and rows are found by those numbers; rows are placed one after the other; the rows that stay are written.
All but the third run in parallel. The same sources give the same bytes, however many processes take part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.durable import storage_errors
from pipeline.artifacts.temporary import remove, temporary_path
from pipeline.config.data import CurateConfig, DataConfig, SourceSplit, TableName
from pipeline.config.plugins import loaded_plugins
from pipeline.data.accounts import SourceAccount
from pipeline.data.curation.accounting import Accounting
from pipeline.data.curation.duplicates import look_for_duplicates
from pipeline.data.curation.executors import Executor, open_executor
from pipeline.data.curation.filtering import check_filters
from pipeline.data.curation.minhash import Banding
from pipeline.data.curation.mixing import mix_sources
from pipeline.data.curation.placement import Fate, Placed, Placing
from pipeline.data.curation.plan import SPLITS, TABLES, Shard, Source, cut, plan_sources
from pipeline.data.curation.reading import ReadTask, read_shard
from pipeline.data.curation.showing import examples
from pipeline.data.curation.spill import Spill, join
from pipeline.data.curation.writing import TableFile, WriteTask, write_shard
from pipeline.data.sources import source_names
from pipeline.data.tables import part_name
from pipeline.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Who hears what while sources are read."""

    bad_row: Callable[[dict[str, Any]], None]  # each row that is set aside, as a line of quarantine.jsonl
    removed: Callable[[dict[str, Any]], None]  # each row that was read and is in no table, as a line of removed.jsonl
    account: Callable[[SourceAccount], None]  # each source, before the run may stop because of it


@dataclass(kw_only=True)
class Curated:
    """What was made."""

    tables: dict[TableName, dict[str, int]]  # rows by table and split
    parts: dict[str, str]  # digest of each table's split that has rows
    accounts: list[SourceAccount]
    counts: dict[str, Any]  # as in counts.json
    examples: dict[str, Any]  # as in examples.json
    notices: list[str] = field(default_factory=list)


def curate_sources(
    data: DataConfig,
    config: CurateConfig,
    reporting: Reporting,
    *,
    staging: Path,
    work: Path,
    labels: Path | None = None,
) -> Curated:
    """Read every source of ``data`` into tables with splits.

    Args:
        data: The sources.
        config: Filters, near-duplicates, split fractions and seed, and how many bad rows are too many.
        reporting: Hears of rows that are set aside or removed, and of each source's account.
        staging: The folder that ``<table>/<split>.parquet`` is written to.
        work: A folder for files that are needed on the way; none of them is left.
        labels: A labels artifact's folder, whose tables are further sources.

    Raises:
        ConfigError: A source's or a filter's configuration makes no sense.
        DataError: A source cannot be read, is too bad, or a table has no rows.
    """
    check_filters(config)
    sources = plan_sources(data, config, labels)
    shards = cut(sources)
    folder = temporary_path(work)
    with storage_errors(work):
        folder.mkdir(parents=True)
    try:
        with (
            storage_errors(folder),
            open_executor(config.engine, config.num_workers, _num_bytes(sources)) as executor,
            closing(_read(shards, data, config, folder, executor)) as spill,
        ):
            accounting = Accounting(spill, sources, config, reporting.bad_row, reporting.removed, reporting.account)
            accounting.refuse_early()
            placed = Placing(spill, look_for_duplicates(spill, sources, config, executor), config, executor).place_all(
                sources
            )
            times, mixing = mix_sources(spill, placed, data, config.seed)
            as_prompts, taken = _take_prompts(data, spill, placed)
            # Other processes write the rows that stay while this one tells of those that do not.
            written = executor.map(write_shard, _write_tasks(spill, placed, times, as_prompts))
            accounting.tell(placed)
            counts = accounting.counts(placed, times)
            shown = examples(spill, config, placed)
            tables, parts = _collect(written, staging)
            _require_rows(sources, tables)
            counts |= {
                "tables": {table.value: sizes for table, sizes in tables.items()},
                "prompts_from_demonstrations": taken,
                "mixing": mixing,
            }
    finally:
        remove(folder)
    notices = [f"{source.name}: {source.mapping.describe()}" for source in sources if source.mapping is not None]
    return Curated(
        tables=tables, parts=parts, accounts=accounting.accounts, counts=counts, examples=shown, notices=notices
    )


def _num_bytes(sources: list[Source]) -> int:
    """Return how much there is to read; data sets of the hub, which are read in one piece, count for nothing."""
    return sum(file.stat().st_size for source in sources if (file := source.file) is not None)


def _read(shards: list[Shard], data: DataConfig, config: CurateConfig, folder: Path, executor: Executor) -> Spill:
    """Run the first pass."""
    origins = {
        name: index
        for index, (name, source) in enumerate(zip(source_names(data), data.sources, strict=True))
        if source.split is not SourceSplit.guard
    }
    tasks = [
        ReadTask(shard=shard, config=config, folder=folder, origins=origins, plugins=loaded_plugins())
        for shard in shards
    ]
    results = list(executor.map(read_shard, tasks))
    near = config.near_duplicates
    num_bands = Banding.choose(near.threshold, near.num_permutations).num_bands if near.enabled else 0
    return join(folder, shards, results, num_bands)


def _take_prompts(data: DataConfig, spill: Spill, placed: Placed) -> tuple[Any, dict[str, int]]:
    """Choose the demonstrations whose prompts fill the table of prompts, where no source gives any.

    A protected source of prompts gives test prompts only: it then is the whole test split, and train and validation
    prompts are still the demonstrations'.
    """
    chosen = np.zeros(len(spill.numbers), bool)
    prompts = [source for source in data.sources if source.table is TableName.prompts]
    sources = [source for source in prompts if source.split is not SourceSplit.guard]
    if any(source.split is not SourceSplit.test for source in sources):
        return chosen, {}
    splits = np.frombuffer(placed.split, np.int8)
    kept = np.frombuffer(placed.fate, np.int8) == Fate.kept
    counts = {"taken": 0, "repeated": 0}
    is_demonstration = np.zeros(len(spill.numbers), bool)
    for shard in spill.shards:
        if shard.source.config.table is TableName.demonstrations:
            own = spill.rows_of(shard.number)
            is_demonstration[own.start : own.stop] = True
    for split in range(len(SPLITS) - bool(sources)):
        rows = np.flatnonzero(kept & is_demonstration & (splits == split))
        _, first = np.unique(spill.numbers["prompt"][rows], return_index=True)
        chosen[rows[first]] = True
        counts["taken"] += len(first)
        counts["repeated"] += len(rows) - len(first)
    return chosen, counts


def _collect(
    written: Iterator[dict[tuple[TableName, str], Path]], staging: Path
) -> tuple[dict[TableName, dict[str, int]], dict[str, str]]:
    """Join what the last pass wrote, and return the number of rows and the digest of each table's split."""
    files = {(table, split): TableFile(staging, table, split) for table in TABLES for split in SPLITS}
    for paths in written:
        for key, path in paths.items():
            files[key].add(path)
    digests = {key: file.close() for key, file in files.items()}
    parts = {part_name(key[0].value, key[1]): digests[key] for key, file in files.items() if file.num_rows}
    return {table: {split: files[table, split].num_rows for split in SPLITS} for table in TABLES}, parts


def _write_tasks(spill: Spill, placed: Placed, times: Any, as_prompts: Any) -> Iterator[WriteTask]:
    fates, splits, folds = (np.frombuffer(values, np.int8) for values in (placed.fate, placed.split, placed.folds))
    for shard in spill.shards:
        own = spill.rows_of(shard.number)
        rows = own.start + np.flatnonzero(fates[own.start : own.stop] == Fate.kept)
        if len(rows):
            yield WriteTask(
                folder=spill.folder, shard=shard.number, table=shard.source.config.table, rows=rows,
                splits=splits[rows], times=times[rows], folds=folds[rows], as_prompts=as_prompts[rows],
            )  # fmt: skip


def _require_rows(sources: list[Source], tables: dict[TableName, dict[str, int]]) -> None:
    for table in sorted({source.config.table for source in sources if not source.guards}):
        if not any(tables[table].values()):
            raise DataError(f"No row is left in {table.value}: each was bad, filtered, a duplicate or a leak.")
