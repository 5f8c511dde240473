"""Tables of a data set on disk: Parquet with a fixed schema, read back as typed rows."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import canonical_json
from pipeline.data.rows import Comparison, Demonstration, Prompt, Unpaired
from pipeline.errors import DataError

Row = TypeVar("Row", Demonstration, Prompt, Comparison, Unpaired)
ROW_GROUP_ROWS = 16384

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string(), False), pa.field("content", pa.string(), False)]))
_COMMON = [
    pa.field("id", pa.string(), False),
    pa.field("source", pa.string(), False),
    pa.field("licence", pa.string()),
    pa.field("prompt", MESSAGES, False),
]
_LAST = [pa.field("reference", pa.string()), pa.field("topic", pa.string())]
SCHEMAS: dict[type, pa.Schema] = {
    Demonstration: pa.schema([*_COMMON, pa.field("completion", MESSAGES, False), *_LAST]),
    Prompt: pa.schema([*_COMMON, *_LAST]),
    Comparison: pa.schema(
        [
            *_COMMON,
            pa.field("chosen", MESSAGES, False),
            pa.field("rejected", MESSAGES, False),
            pa.field("confidence", pa.float64(), False),
            pa.field("num_votes", pa.int64(), False),
            pa.field("margin", pa.float64()),
            pa.field("tie", pa.float64()),
            pa.field("fold", pa.int8()),
            pa.field("topic", pa.string()),
        ]
    ),
    Unpaired: pa.schema(
        [
            *_COMMON,
            pa.field("completion", MESSAGES, False),
            pa.field("label", pa.bool_(), False),
            pa.field("confidence", pa.float64(), False),
            pa.field("num_votes", pa.int64(), False),
            pa.field("topic", pa.string()),
        ]
    ),
}


_SORTED: dict[type, list[str]] = {row_type: sorted(schema.names) for row_type, schema in SCHEMAS.items()}


def part_name(name: str, split: str) -> str:
    """Name of a table's split as a part of the data set: ``demonstrations/train``."""
    return f"{name}/{split}"


def write_table(folder: Path, name: str, split: str, rows: Sequence[Row]) -> Path:
    """Write rows of one type to ``<folder>/<name>/<split>.parquet``; the same rows give the same bytes."""
    if not rows:
        raise ValueError(f"{part_name(name, split)} has no rows, and an empty table is not written")
    schema = SCHEMAS[type(rows[0])]
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)
    path = table_file(folder, name, split)
    with table_writer(path, schema) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return path


def table_file(folder: Path, name: str, split: str) -> Path:
    """Return where a table's split lies, in a folder that is made if need be."""
    path = folder / name / f"{split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def table_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a table's file for writing, in row groups of `ROW_GROUP_ROWS`."""
    return pq.ParquetWriter(path, schema, compression="zstd", version="2.6")


def read_table(dataset: Artifact | Path, name: str, split: str, row_type: type[Row]) -> list[Row]:
    """Read a table's split back.

    Args:
        dataset: A sealed data set, or a folder that holds its files.
        name: Table, such as ``demonstrations``.
        split: ``train``, ``validation`` or ``test``.
        row_type: What the rows are.

    Raises:
        DataError: The split has no rows, or the file has other columns than ``row_type``.
    """
    file = f"{name}/{split}.parquet"
    folder = dataset if isinstance(dataset, Path) else dataset.path
    if not (folder / file).is_file():
        present = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.parquet"))
        raise DataError(
            f"The data set {folder.name} has no rows in {name}/{split}; it has {', '.join(present) or 'none at all'}. "
            f"Add a source with table: {name} to `data.sources`, or change the fractions in `curate`."
        )
    path = folder / file if isinstance(dataset, Path) else dataset.file(file)
    table = pq.read_table(path, partitioning=None)
    expected = SCHEMAS[row_type]
    if table.schema.names != expected.names:
        raise DataError(f"{path} has the columns {table.schema.names}; {row_type.__name__} has {expected.names}.")
    return [row_type(**values) for values in table.to_pylist()]


def rows_digest(rows: Sequence[Demonstration | Prompt | Comparison | Unpaired]) -> str:
    """Hex sha256 over the rows as canonical JSON, one line each, in order: what a table is, whatever its bytes."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row_json(row).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def row_json(row: Demonstration | Prompt | Comparison | Unpaired) -> str:
    """Write a row as `canonical_json` would, which does not know that most of it is text and takes twice as long."""
    return "{" + ",".join([f'"{name}":{_json(getattr(row, name))}' for name in _SORTED[type(row)]]) + "}"


def _json(value: Any) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, list):
        turns = [
            f'{{"content":{encode_basestring(turn["content"])},"role":{encode_basestring(turn["role"])}}}'
            for turn in value
        ]
        return f"[{','.join(turns)}]"
    return "null" if value is None else canonical_json(value)
