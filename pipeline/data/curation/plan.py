"""What is read, in the order of placement, and in which pieces."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.data import CurateConfig, DataConfig, SourceConfig, SourceFormat, SourceSplit, TableName
from pipeline.data.archives import COMPRESSIONS
from pipeline.data.columns import Mapping, choose_columns
from pipeline.data.readers import detect_format
from pipeline.data.sources import read_source, source_names, source_path
from pipeline.errors import ConfigError

SPLITS = ("train", "validation", "test")
# In the order in which they are placed.
TABLES = (TableName.demonstrations, TableName.prompts, TableName.comparisons, TableName.unpaired)
FIELDS = {
    TableName.demonstrations: ("prompt", "completion"),
    TableName.prompts: ("prompt",),
    TableName.comparisons: ("prompt", "chosen", "rejected"),
    TableName.unpaired: ("prompt", "completion"),
}
NUM_LOOKED_AT = (
    100  # rows that can be read, whose column names count, because not every row of JSON Lines has every key
)
SHARD_BYTES = 8 << 20  # of a file that is cut; whatever the number of workers, so that it changes no result
LABEL_TABLES = (TableName.demonstrations, TableName.comparisons, TableName.unpaired)  # that a labels artifact may hold


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source as it is read: a file or data set of the configuration, or a table of the labels."""

    number: int  # in the order of placement
    origin: int  # in `data.sources`; behind them come the tables of the labels
    name: str  # what its account is called
    config: SourceConfig
    mapping: Mapping | None  # None for a table of the labels, and where no row has fields
    labels: Path | None = None  # the folder of the labels that it is a table of

    @property
    def key(self) -> str:
        """Its place in the configuration."""
        return f"data.sources[{self.origin}]"

    @property
    def protected(self) -> bool:
        """Whether its rows are for evaluation only."""
        return self.config.split is not SourceSplit.auto

    @property
    def guards(self) -> bool:
        """Whether its rows go into no table: they only keep what is like them from being trained on."""
        return self.config.split is SourceSplit.guard

    @property
    def file(self) -> Path | None:
        """The file that it is read from; None for a data set of the hub."""
        if self.labels is not None:
            return self.labels / self.config.path
        return None if self.config.format is SourceFormat.hub else source_path(self.config, self.key)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of a source that one worker reads."""

    number: int  # in the order of placement
    source: Source
    begin: int = 0  # byte at which a row begins
    end: int | None = None  # byte behind the piece's last row; None is the end of the file


def plan_sources(data: DataConfig, config: CurateConfig, labels: Path | None) -> list[Source]:
    """Return the sources in the order of placement: protected ones, then table by table, those of the labels last.

    Among the protected ones those that only guard come last, so that they never stand in the place of a test row.

    Raises:
        ConfigError: What no single field can tell is wrong.
        DataError: A source cannot be read, or its columns fit no table.
    """
    _check_config(data, config, labels)
    found: list[tuple[int, str, SourceConfig, Path | None]] = [
        (index, name, source, None)
        for index, (name, source) in enumerate(zip(source_names(data), data.sources, strict=True))
        if source.table is not TableName.exports
    ]
    for table, split in itertools.product(LABEL_TABLES, SourceSplit):
        path = f"{table.value}/{split.value}.parquet"
        if labels is not None and (labels / path).is_file():
            source = SourceConfig(table=table, path=path, format=SourceFormat.parquet, split=split)
            found.append((len(data.sources) + len(found), f"labels/{table.value}/{split.value}", source, labels))
    order = (SourceSplit.test, SourceSplit.guard, SourceSplit.auto)
    found.sort(key=lambda item: (order.index(item[2].split), TABLES.index(item[2].table), item[0]))
    return [
        Source(
            number=number,
            origin=origin,
            name=name,
            config=source,
            mapping=_mapping(source, f"data.sources[{origin}]") if folder is None else None,
            labels=folder,
        )
        for number, (origin, name, source, folder) in enumerate(found)
    ]


def cut(sources: list[Source]) -> list[Shard]:
    """Cut plain JSON Lines at line ends into pieces of about `SHARD_BYTES`; any other source is one piece."""
    pieces = [(source, begin, end) for source in sources for begin, end in _ranges(source)]
    return [
        Shard(number=number, source=source, begin=begin, end=end) for number, (source, begin, end) in enumerate(pieces)
    ]


def _ranges(source: Source) -> list[tuple[int, int | None]]:
    file = source.file
    if file is None or source.labels is not None or file.suffix.lower() in (*COMPRESSIONS, ".zip"):
        return [(0, None)]
    if detect_format(file, source.config.format) is not SourceFormat.jsonl or file.stat().st_size <= SHARD_BYTES:
        return [(0, None)]
    begins = [0]
    with file.open("rb") as stream:
        while stream.seek(begins[-1] + SHARD_BYTES) < file.stat().st_size:
            while (block := stream.readline(1 << 20)) and not block.endswith(b"\n"):
                pass
            if (begin := stream.tell()) >= file.stat().st_size:
                break
            begins.append(begin)
    return list(zip(begins, [*begins[1:], None], strict=True))


def _mapping(source: SourceConfig, key: str) -> Mapping | None:
    """Decide by the first rows how a source is read."""
    readable = (record.fields for record in read_source(source, key) if record.fields is not None)
    present = list(dict.fromkeys(name for fields in itertools.islice(readable, NUM_LOOKED_AT) for name in fields))
    return choose_columns(source, key, present) if present else None


def _check_config(data: DataConfig, config: CurateConfig, labels: Path | None) -> None:
    """Refuse what no single field can tell."""
    if not data.sources:
        raise ConfigError(
            "data.sources is empty: there is nothing to curate. Choose data sources, as in data=helpdesk."
        )
    for index, source in enumerate(data.sources):
        if source.table is TableName.exports and labels is None:
            raise ConfigError(
                f"data.sources[{index}].table: exports are read by the stage `ingest`, which did not run. "
                f"Add `ingest` to `stages`, before `curate`."
            )
    if config.validation_fraction + config.test_fraction >= 1:
        raise ConfigError("curate.validation_fraction and curate.test_fraction leave nothing to train on. Lower them.")
