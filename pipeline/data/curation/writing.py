"""The last pass: the rows that stay, as tables. Rows come from the first pass's files as canonical JSON."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from pipeline.artifacts.hashing import canonical_json
from pipeline.config.data import TableName
from pipeline.data.curation.plan import SPLITS
from pipeline.data.curation.spill import NUMBERS, mapped, shard_file
from pipeline.data.rows import Comparison, Demonstration, Prompt, Unpaired
from pipeline.data.tables import ROW_GROUP_ROWS, SCHEMAS, table_file, table_writer

ROW_TYPES: dict[TableName, type[Demonstration] | type[Prompt] | type[Comparison] | type[Unpaired]] = {
    TableName.demonstrations: Demonstration,
    TableName.prompts: Prompt,
    TableName.comparisons: Comparison,
    TableName.unpaired: Unpaired,
}
BLOCK_BYTES = 8 << 20  # of rows that are turned into columns at a time


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """The rows of one shard that stay."""

    folder: Path
    shard: int
    table: TableName
    rows: Any  # numbers of the rows
    splits: Any  # of each
    times: Any  # how often each is put in
    folds: Any
    as_prompts: Any  # whether its prompt goes into the table of prompts


def write_shard(task: WriteTask) -> dict[tuple[TableName, str], Path]:
    """Write the rows of a shard as canonical JSON, a file for each table and split."""
    paths: dict[tuple[TableName, str], Path] = {}
    numbers = mapped(task.folder / "numbers", NUMBERS)[task.rows]
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero(task.splits == number)
        if len(chosen):
            lines = _lines(task, numbers["begin"][chosen], numbers["size"][chosen])
            path = paths[task.table, split] = task.folder / f"shard-{task.shard}.{task.table.value}.{split}"
            with path.open("wb") as out:
                for index, line in zip(chosen.tolist(), lines, strict=True):
                    for copy in _copies(line, int(task.times[index]), int(task.folds[index]), task.table):
                        out.write(copy + b"\n")
        prompts = np.flatnonzero((task.splits == number) & task.as_prompts)
        if len(prompts):
            path = paths[TableName.prompts, split] = task.folder / f"shard-{task.shard}.prompts.{split}"
            with path.open("wb") as out:
                own = numbers[prompts]
                # A demonstration begins with its completion, and without it is a prompt.
                for line in _lines(task, own["begin"] + own["tail"], own["size"] - own["tail"]):
                    out.write(b"{" + line + b"\n")
    return paths


def _lines(task: WriteTask, begins: Any, sizes: Any) -> Iterator[bytes]:
    """Read rows of the shard."""
    path = shard_file(task.folder, task.shard, "rows")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
            yield content[begin : begin + size]


def _copies(line: bytes, times: int, fold: int, table: TableName) -> Iterator[bytes]:
    """Yield a row as often as it is put in; every further copy has an id of its own."""
    if table is TableName.comparisons:
        line = canonical_json({**json.loads(line), "fold": fold}).encode()
    yield line
    if times > 1:
        row = json.loads(line)
        for number in range(2, times + 1):
            yield canonical_json({**row, "id": f"{row['id']}#{number}"}).encode()


class TableFile:
    """One table's split, written row group by row group, with its digest."""

    def __init__(self, folder: Path, table: TableName, split: str) -> None:
        """Nothing is written before there is a row."""
        self._schema = SCHEMAS[ROW_TYPES[table]]
        self._path = table_file(folder, table.value, split)
        self._writer: pq.ParquetWriter | None = None
        self._digest = hashlib.sha256()
        self._waiting: list[pa.Table] = []
        self.num_rows = 0
        self._num_waiting = 0

    def add(self, path: Path) -> None:
        """Append rows of canonical JSON, one a line."""
        with path.open("rb") as file:
            while lines := file.readlines(BLOCK_BYTES):
                content = b"".join(lines)
                self._digest.update(content)
                self._waiting.append(self._columns(content))
                self.num_rows += len(lines)
                self._num_waiting += len(lines)
                self._write(ROW_GROUP_ROWS)
        path.unlink()

    def close(self) -> str:
        """Write what is left, and return the digest, which is that of `tables.rows_digest`."""
        self._write(1)
        if self._writer is not None:
            self._writer.close()
        return self._digest.hexdigest()

    def _columns(self, content: bytes) -> pa.Table:
        return pa_json.read_json(
            pa.BufferReader(content),
            read_options=pa_json.ReadOptions(block_size=len(content), use_threads=False),
            parse_options=pa_json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="error"),
        ).select(self._schema.names)

    def _write(self, at_least: int) -> None:
        """Write full row groups, or, at the end, whatever there is."""
        if self._num_waiting < at_least:
            return
        table = pa.concat_tables(self._waiting)
        while table.num_rows >= at_least:
            if self._writer is None:
                self._writer = table_writer(self._path, self._schema)
            group = table.slice(0, ROW_GROUP_ROWS).combine_chunks()
            self._writer.write_table(group.cast(self._schema), row_group_size=ROW_GROUP_ROWS)
            table = table.slice(ROW_GROUP_ROWS)
        self._waiting = [table]
        self._num_waiting = table.num_rows
