"""From sources to tables: rows are read, checked, freed of duplicates, given their split, and all of them counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.data import CurateConfig, DataConfig, SourceConfig, SourceSplit, TableName
from pipeline.data.accounts import SourceAccount
from pipeline.data.building import build_row
from pipeline.data.columns import choose_columns
from pipeline.data.rows import BadRowError, Message, Prompt, Reason, Row, content_key, prompt_hash, prompt_key
from pipeline.data.sources import read_source, source_name
from pipeline.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
TABLES = (TableName.demonstrations, TableName.prompts)  # in the order in which they are placed
NUM_LOOKED_AT = 100  # rows whose column names count, because not every row of JSON Lines has every key


@dataclass(kw_only=True)
class Curated:
    """Rows by table and split, in the order of the sources, and the account of all rows."""

    tables: dict[TableName, dict[str, list[Any]]] = field(
        default_factory=lambda: {table: {split: [] for split in SPLITS} for table in TABLES}
    )
    accounts: list[SourceAccount] = field(default_factory=list)
    from_demonstrations: dict[str, int] = field(default_factory=dict)  # prompts taken from demonstrations, and repeats
    notices: list[str] = field(default_factory=list)

    def non_empty(self) -> Iterator[tuple[TableName, str, list[Any]]]:
        """Go through the splits that have rows."""
        for table, splits in self.tables.items():
            for split, rows in splits.items():
                if rows:
                    yield table, split, rows

    def counts(self) -> dict[str, Any]:
        """What was read, kept and set aside, by source and by table."""
        tables = {
            table.value: {split: len(rows) for split, rows in found.items()} for table, found in self.tables.items()
        }
        return {
            "sources": [account.as_dict() for account in self.accounts],
            "tables": tables,
            "prompts_from_demonstrations": self.from_demonstrations,
        }


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Who hears what while sources are read."""

    bad_row: Callable[[dict[str, Any]], None]  # each row that is set aside, as a line of quarantine.jsonl
    account: Callable[[SourceAccount], None]  # each source when it is read, before the run may stop because of it


@dataclass
class _Placement:
    """What is placed already, and where a new row goes."""

    config: CurateConfig
    protected: set[str] = field(default_factory=set)  # keys of prompts that may not be trained on
    seen: dict[TableName, set[str]] = field(default_factory=lambda: {table: set() for table in TABLES})
    ids: dict[TableName, set[str]] = field(default_factory=lambda: {table: set() for table in TABLES})

    def split_of(self, prompt: list[Message]) -> str:
        """Return the split of a prompt: by hash alone, so that new rows never move old ones."""
        place = int(prompt_hash(prompt, self.config.seed)[:16], 16) / 2**64
        if place < self.config.test_fraction:
            return "test"
        return "validation" if place < self.config.test_fraction + self.config.validation_fraction else "train"


def curate_sources(data: DataConfig, config: CurateConfig, reporting: Reporting) -> Curated:
    """Read every source of ``data`` into tables.

    Args:
        data: The sources.
        config: Split fractions and seed, and how many bad rows are too many.
        reporting: Hears of bad rows and of each source's account.

    Raises:
        ConfigError: A source's configuration makes no sense.
        DataError: A source cannot be read, is too bad, or a table has no rows.
    """
    _check_config(data, config)
    curated, placement = Curated(), _Placement(config)
    for index, source in _in_order(data):
        key = f"data.sources[{index}]"
        account = SourceAccount(
            source=source_name(source, data),
            path=source.path,
            table=source.table.value,
            protected=source.split is SourceSplit.test,
        )
        curated.accounts.append(account)
        _read(source, key, curated, account, placement, reporting)
        account.close()
        reporting.account(account)
        account.refuse_if_bad(config.max_quarantined_fraction, "curate.max_quarantined_fraction")
    for table in {source.table for source in data.sources}:
        if not any(curated.tables[table].values()):
            raise DataError(f"No row is left in {table.value}: every one was set aside, a duplicate or a leak.")
    _take_prompts(data, curated)
    return curated


def _check_config(data: DataConfig, config: CurateConfig) -> None:
    """Refuse what no single field can tell."""
    if not data.sources:
        raise ConfigError(
            "data.sources is empty: there is nothing to curate. Choose data sources, as in data=helpdesk."
        )
    for index, source in enumerate(data.sources):
        if source.table not in TABLES:
            raise ConfigError(
                f"data.sources[{index}].table: {source.table.value} are not read here, "
                f"only {' and '.join(table.value for table in TABLES)}."
            )
    if config.validation_fraction + config.test_fraction >= 1:
        raise ConfigError("curate.validation_fraction and curate.test_fraction leave nothing to train on. Lower them.")


def _in_order(data: DataConfig) -> list[tuple[int, SourceConfig]]:
    """Return the sources in the order of placement: protected ones, then table by table."""
    return sorted(
        enumerate(data.sources),
        key=lambda item: (item[1].split is not SourceSplit.test, TABLES.index(item[1].table), item[0]),
    )


def _read(
    source: SourceConfig,
    key: str,
    curated: Curated,
    account: SourceAccount,
    placement: _Placement,
    reporting: Reporting,
) -> None:
    """Read one source into its table."""
    records = read_source(source, key)
    first = list(itertools.islice(records, NUM_LOOKED_AT))
    present = list(dict.fromkeys(name for record in first if record.fields is not None for name in record.fields))
    mapping = choose_columns(source, key, present) if present else None
    if mapping is not None:
        curated.notices.append(f"{account.source}: {mapping.describe()}")
    for record in itertools.chain(first, records):
        account.read += 1
        if source.limit is not None and account.accepted >= source.limit:
            account.over_limit += 1
            continue
        try:
            if record.problem is not None:
                raise record.problem
            if mapping is None or record.fields is None:
                raise BadRowError(Reason.schema, "the row has no fields")
            row = build_row(record.fields, mapping, source, account.source)
            _place(row, source, curated, account, placement)
        except BadRowError as problem:
            reporting.bad_row(account.set_aside(record, problem))


def _place(row: Row, source: SourceConfig, curated: Curated, account: SourceAccount, placement: _Placement) -> None:
    """Put one row into its split, unless it is a duplicate or a leak.

    Raises:
        BadRowError: Another row with other content has its id.
    """
    content, key = content_key(row), prompt_key(row.prompt)
    if content in placement.seen[source.table]:
        account.duplicates += 1
        return
    if row.id in placement.ids[source.table]:
        raise BadRowError(Reason.id, f"the id {row.id!r} belongs to an earlier row with other content")
    if account.protected:
        placement.protected.add(key)
        split = "test"
    else:
        split = placement.split_of(row.prompt)
        if split != "test" and key in placement.protected:
            account.leaks += 1
            return
    placement.seen[source.table].add(content)
    placement.ids[source.table].add(row.id)
    curated.tables[source.table][split].append(row)
    account.accepted += 1


def _take_prompts(data: DataConfig, curated: Curated) -> None:
    """Fill the prompts with those of the demonstrations where no source gives any.

    A protected source of prompts gives test prompts only: it then is the whole test split, and train and validation
    prompts are still the demonstrations'.
    """
    sources = [source for source in data.sources if source.table is TableName.prompts]
    if any(source.split is not SourceSplit.test for source in sources):
        return
    prompts = curated.tables[TableName.prompts]
    counts = {"taken": 0, "repeated": 0}
    for split in SPLITS[:2] if sources else SPLITS:
        taken: set[str] = set()
        for row in curated.tables[TableName.demonstrations][split]:
            key = prompt_key(row.prompt)
            if key in taken:
                counts["repeated"] += 1
                continue
            taken.add(key)
            counts["taken"] += 1
            prompts[split].append(
                Prompt(
                    id=row.id,
                    source=row.source,
                    licence=row.licence,
                    prompt=row.prompt,
                    reference=row.reference,
                    topic=row.topic,
                )
            )
    curated.from_demonstrations = counts
