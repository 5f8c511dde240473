"""Strict readers: bytes of a file in, one record per row out, with the place it came from and never a guess.

The usual loaders change data in silence: text that looks like a date becomes a time stamp, ``None`` and ``N/A`` in a
CSV become null, ``007`` becomes 7, the second of two equal keys wins. Here a row is read as it stands or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.config.data import SourceFormat
from pipeline.data.delimited_reader import read_delimited
from pipeline.data.json_reader import read_json, read_jsonl
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.errors import DataError

ENDINGS = {
    ".jsonl": SourceFormat.jsonl, ".ndjson": SourceFormat.jsonl, ".json": SourceFormat.json, ".csv": SourceFormat.csv,
    ".tsv": SourceFormat.tsv, ".parquet": SourceFormat.parquet,
}  # fmt: skip


def detect_format(path: Path, format: SourceFormat) -> SourceFormat:
    """Return the format of a file: the one given, or what its ending says (``.gz`` may follow it)."""
    if format is not SourceFormat.auto:
        return format
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if ending not in ENDINGS:
        raise DataError(
            f"E_FORMAT: {path} does not end with a known ending ({', '.join(ENDINGS)}, each also with .gz). "
            f"Set the source's `format`."
        )
    return ENDINGS[ending]


def read_file(path: Path, format: SourceFormat) -> Iterator[Record]:
    """Read the rows of a file in order.

    Raises:
        DataError: The file as a whole is not what its format says.
    """
    if not path.is_file():
        raise DataError(f"E_FORMAT: {path} is not a plain file. Give the path of one.")
    readers: dict[SourceFormat, Callable[[Path], Iterator[Record]]] = {
        SourceFormat.jsonl: read_jsonl,
        SourceFormat.json: read_json,
        SourceFormat.csv: lambda file: read_delimited(file, ","),
        SourceFormat.tsv: lambda file: read_delimited(file, "\t"),
        SourceFormat.parquet: _read_parquet,
    }
    return readers[detect_format(path, format)](path)


def _read_parquet(path: Path) -> Iterator[Record]:
    """Read Parquet batch by batch; values keep their types, so that what is not text is noticed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for index in range(batch.num_rows):
                number += 1
                fields, problem = None, None
                try:
                    fields = batch.slice(index, 1).to_pylist()[0]
                except UnicodeDecodeError:
                    problem = BadRowError(Reason.encoding, "a text of the row is not UTF-8")
                raw = b"" if fields is None else json.dumps(fields, ensure_ascii=True, default=str).encode()
                yield Record(line=number, offset=None, raw=raw, fields=fields, problem=problem)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"E_FORMAT: {path} cannot be read as Parquet: {error}.") from error
