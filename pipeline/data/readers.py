"""Strict readers: bytes of a file in, one record per row out, with the place it came from and never a guess.

The usual loaders change data in silence: text that looks like a date becomes a time stamp, ``None`` and ``N/A`` in a
CSV become null, ``007`` becomes 7, the second of two equal keys wins. Here a row is read as it stands or not at all.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from pipeline.config.data import SourceFormat
from pipeline.data.archives import COMPRESSIONS, Content, contents
from pipeline.data.delimited_reader import read_delimited
from pipeline.data.json_reader import read_json, read_jsonl
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Reason
from pipeline.data.xlsx_reader import read_xlsx
from pipeline.errors import DataError

ENDINGS = {
    ".jsonl": SourceFormat.jsonl, ".ndjson": SourceFormat.jsonl, ".json": SourceFormat.json, ".csv": SourceFormat.csv,
    ".tsv": SourceFormat.tsv, ".parquet": SourceFormat.parquet, ".xlsx": SourceFormat.xlsx,
}  # fmt: skip


TEXT_READERS: dict[SourceFormat, Callable[[Content], Iterator[Record]]] = {
    SourceFormat.jsonl: read_jsonl,
    SourceFormat.json: read_json,
    SourceFormat.csv: lambda content: read_delimited(content, ","),
    SourceFormat.tsv: lambda content: read_delimited(content, "\t"),
}


def detect_format(path: PurePath, format: SourceFormat) -> SourceFormat:
    """Return the format of a file: the one given, or what its ending says (`.gz` or `.zst` may follow it)."""
    if format is not SourceFormat.auto:
        return format
    suffixes = [suffix.lower() for suffix in path.suffixes]
    is_compressed = suffixes[-1:] and suffixes[-1] in COMPRESSIONS and len(suffixes) > 1
    ending = suffixes[-2] if is_compressed else "".join(suffixes[-1:])
    if ending not in ENDINGS:
        raise DataError(
            f"E_FORMAT: {path} does not end with a known ending ({', '.join(ENDINGS)}, each also with .gz or .zst). "
            f"Set the source's `format`."
        )
    return ENDINGS[ending]


def read_file(path: Path, format: SourceFormat) -> Iterator[Record]:
    """Read the rows of a file in order; of a zip archive the rows of its members, in the order of their names.

    A link is followed, because whoever configures its path means what it leads to. What it leads to must be a plain
    file: nothing is read from a pipe or a device.

    Raises:
        DataError: The file as a whole is not what its format says, or holds no rows.
    """
    if not path.is_file():
        raise DataError(f"E_FORMAT: {path} is not a plain file. Give the path of one.")
    if path.suffix.lower() == ".zip":
        records = _read_members(path, format)
    elif (detected := detect_format(path, format)) in TEXT_READERS:
        records = TEXT_READERS[detected](Content(path))
    else:
        records = read_xlsx(path) if detected is SourceFormat.xlsx else _read_parquet(path)
    return _with_rows(records, path)


def _read_members(path: Path, format: SourceFormat) -> Iterator[Record]:
    """Read the members of a zip archive, which are all written the same way."""
    members = contents(path)
    found = {detect_format(member.name, format) for member in members}
    detected = found.pop()
    if found or detected not in TEXT_READERS:
        names = ", ".join(repr(member.member) for member in members[:5])
        raise DataError(
            f"E_ARCHIVE: {path} holds members of several formats, or of one not read from an archive ({names}). "
            f"Unpack it, and give its files as sources of their own."
        )
    return itertools.chain.from_iterable(TEXT_READERS[detected](member) for member in members)


def _with_rows(records: Iterator[Record], path: Path) -> Iterator[Record]:
    """Refuse a file without any row: what should be in it went somewhere else."""
    first = next(records, None)
    if first is None:
        raise DataError(f"E_FORMAT: {path} holds no rows. Give a file with rows, or remove the source.")
    yield first
    yield from records


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
