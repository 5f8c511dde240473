"""The last pass: the rows that stay, as tables. Rows come from the first pass's files as canonical JSON.

Each shard's rows are written twice: as JSON, of which the digest is taken, and as Arrow's columns, so that turning the
one into the other, which takes the longest, is done in parallel.
"""

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
    """Write the rows of a shard, a file of JSON and one of columns for each table and split."""
    paths: dict[tuple[TableName, str], Path] = {}
    numbers = mapped(task.folder / "numbers", NUMBERS)[task.rows]
    with (
        shard_file(task.folder, task.shard, "rows").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        for number, split in enumerate(SPLITS):
            in_split = task.splits == number
            for table, chosen, read in (
                (task.table, np.flatnonzero(in_split), _lines),
                (TableName.prompts, np.flatnonzero(in_split & task.as_prompts), _prompt_lines),
            ):
                if len(chosen):
                    path = paths[table, split] = task.folder / f"shard-{task.shard}.{table.value}.{split}"
                    with path.open("wb") as out:
                        out.writelines(read(task, content, numbers[chosen], chosen))
                    _write_columns(path, SCHEMAS[ROW_TYPES[table]])
    return paths


def _lines(task: WriteTask, content: mmap.mmap, numbers: Any, chosen: Any) -> Iterator[bytes]:
    """Yield rows with their line feeds; those that stand one after the other in one piece."""
    begins, ends = numbers["begin"], numbers["begin"] + numbers["size"] + 1
    if task.table is not TableName.comparisons and (task.times[chosen] == 1).all():
        follows = begins[1:] == ends[:-1]
        begins, ends = begins[np.append(True, ~follows)], ends[np.append(~follows, True)]
        yield from (content[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True))
        return
    for index, begin, end in zip(chosen.tolist(), begins.tolist(), ends.tolist(), strict=True):
        for copy in _copies(content[begin : end - 1], int(task.times[index]), int(task.folds[index]), task.table):
            yield copy + b"\n"


def _prompt_lines(task: WriteTask, content: mmap.mmap, numbers: Any, chosen: Any) -> Iterator[bytes]:
    """Yield the prompts of demonstrations: each of these begins with its completion, and without it is a prompt."""
    begins, ends = numbers["begin"] + numbers["tail"], numbers["begin"] + numbers["size"] + 1
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        yield b"{" + content[begin:end]


def _write_columns(path: Path, schema: pa.Schema) -> None:
    """Write rows of canonical JSON, one a line, as columns into a file beside theirs."""
    with path.open("rb") as file, pa.OSFile(str(_columns(path)), "wb") as out, pa.ipc.new_stream(out, schema) as stream:
        while content := file.read(BLOCK_BYTES) + file.readline():
            rows = pa_json.read_json(
                pa.BufferReader(content),
                read_options=pa_json.ReadOptions(block_size=len(content), use_threads=False),
                parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            )
            stream.write_table(rows.select(schema.names).cast(schema))


def _columns(path: Path) -> Path:
    return path.with_name(f"{path.name}.columns")


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
        """Append what `write_shard` wrote."""
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                self._digest.update(block)
        with pa.memory_map(str(_columns(path))) as source:
            rows = pa.ipc.open_stream(source).read_all()
        self._waiting.append(rows)
        self.num_rows += rows.num_rows
        self._num_waiting += rows.num_rows
        self._write(ROW_GROUP_ROWS)
        path.unlink()
        _columns(path).unlink()

    def close(self) -> str:
        """Write what is left, and return the digest, which is that of `tables.rows_digest`."""
        self._write(1)
        if self._writer is not None:
            self._writer.close()
        return self._digest.hexdigest()

    def _write(self, at_least: int) -> None:
        """Write full row groups, or, at the end, whatever there is."""
        if self._num_waiting < at_least:
            return
        table = pa.concat_tables(self._waiting)
        while table.num_rows >= at_least:
            if self._writer is None:
                self._writer = table_writer(self._path, self._schema)
            group = table.slice(0, ROW_GROUP_ROWS).combine_chunks()
            self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            table = table.slice(ROW_GROUP_ROWS)
        self._waiting = [table]
        self._num_waiting = table.num_rows
