"""The first pass: one shard of a source in, its rows and their numbers in files out. Any engine may run it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.artifacts.hashing import canonical_json
from pipeline.config.data import CurateConfig, TableName
from pipeline.config.plugins import load_plugins
from pipeline.data.accounts import describe_bad_row
from pipeline.data.archives import Content
from pipeline.data.building import build_row
from pipeline.data.curation.filtering import Dropped, Filtering
from pipeline.data.curation.minhash import Banding, MinHash
from pipeline.data.curation.plan import FIELDS, Shard
from pipeline.data.curation.spill import KINDS, NUMBERS, ShardResult, shard_file
from pipeline.data.curation.words import Ragged, grams, mix, number_words
from pipeline.data.json_reader import read_jsonl
from pipeline.data.records import Record
from pipeline.data.rows import (
    BadRowError,
    Comparison,
    Demonstration,
    Message,
    Reason,
    Row,
    Unpaired,
    content_key,
    key_hash,
    prompt_key,
)
from pipeline.data.sources import read_source
from pipeline.data.tables import row_json

BUFFER_BYTES = 1 << 17  # that are written at a time
BATCH_ROWS = 4096  # whose words are in memory at a time
ROW_TYPES: dict[TableName, type[Demonstration] | type[Comparison] | type[Unpaired]] = {
    TableName.demonstrations: Demonstration,
    TableName.comparisons: Comparison,
    TableName.unpaired: Unpaired,
}
# Fields of `NUMBERS` that are known when a row is written, in the order in which they are noted.
_INTEGERS = ("ordinal", "line", "begin", "size", "tail", "asked", "changed", "origin", "licence")
_FIELD_SALTS = mix(np.arange(1, 4, dtype=np.uint64))  # so that a run of words in two fields counts as two


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """A shard, and what is done with its rows."""

    shard: Shard
    config: CurateConfig
    folder: Path
    origins: dict[str, int]  # the source in `data.sources` by what rows of the labels call it
    plugins: tuple[str, ...] = ()  # files of the user's own filters


def read_shard(task: ReadTask) -> ShardResult:
    """Read, check and filter the rows of a shard, and write them with their numbers into the folder."""
    load_plugins(list(task.plugins))
    source = task.shard.source
    filtering = Filtering(source.config.table, task.config)
    result = ShardResult(number=task.shard.number, examples=filtering.examples)
    with _Writer.open(task, result) as writer:
        for record in shard_records(task.shard):
            ordinal = result.num_records
            result.num_records += 1
            try:
                row, changed = filtering.apply(row_of(record, task.shard), ordinal)
            except BadRowError as problem:
                entry = describe_bad_row(source.name, source.config.path, record, problem)
                writer.write_event("bad", {"ordinal": ordinal, **entry})
                continue
            if isinstance(row, Dropped):
                writer.write_event("filtered", _filtered_event(record, ordinal, row, changed))
            else:
                writer.add(row, record, ordinal, changed)
    result.num_lines = _num_lines(task.shard)
    return result


def shard_records(shard: Shard) -> Iterator[Record]:
    """Read the records of a shard; lines are numbered from its beginning."""
    source = shard.source
    if shard.begin or shard.end is not None:
        if (file := source.file) is None:
            raise ValueError("only a file is cut into pieces")
        return read_jsonl(Content(file, begin=shard.begin, end=shard.end))
    if source.labels is not None:
        return _read_labels(source.labels / source.config.path)
    return read_source(source.config, source.key)


def row_of(record: Record, shard: Shard) -> Row:
    """Build the row of a record.

    Raises:
        BadRowError: It breaks a rule.
    """
    source = shard.source
    if record.problem is not None:
        raise record.problem
    if record.fields is None:
        raise BadRowError(Reason.schema, "the row has no fields")
    if source.labels is not None:
        return ROW_TYPES[source.config.table](**record.fields)
    if source.mapping is None:
        raise BadRowError(Reason.schema, "the row has no fields")
    return build_row(record.fields, source.mapping, source.config, source.name)


def _read_labels(path: Path) -> Iterator[Record]:
    """Read a table of the labels, whose rows were checked when they were made."""
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
        for fields in batch.to_pylist():
            number += 1
            yield Record(line=number, offset=None, raw=canonical_json(fields).encode(), fields=fields)


def _num_lines(shard: Shard) -> int:
    """Count the lines of a piece that another piece of the same file follows."""
    if shard.end is None or (file := shard.source.file) is None:
        return 0
    count, left = 0, shard.end - shard.begin
    with file.open("rb") as stream:
        stream.seek(shard.begin)
        while left and (block := stream.read(min(left, 1 << 20))):
            count += block.count(b"\n")
            left -= len(block)
    return count


def _filtered_event(record: Record, ordinal: int, dropped: Dropped, changed: int) -> dict[str, Any]:
    return {
        "ordinal": ordinal,
        "line": record.line,
        "id": dropped.id,
        "filter": dropped.place,
        "reason": str(dropped.drop.reason),
        "detail": dropped.drop.detail,
        "changed": changed,
    }


class _Writer:
    """Writes the rows of a shard and, batch by batch, what their words say."""

    def __init__(self, task: ReadTask, result: ShardResult, files: dict[str, IO[bytes]]) -> None:
        self._task, self._result, self._files = task, result, files
        near = task.config.near_duplicates
        self._ngram = near.ngram
        self._minhash = None
        if near.enabled:
            self._minhash = MinHash(Banding.choose(near.threshold, near.num_permutations), near.seed)
        self._fields = FIELDS[task.shard.source.config.table]
        self._licences: dict[str | None, int] = {}
        self._written = 0
        self._integers = array("q")  # for each row one value for each of `_INTEGERS`, and its fields' characters
        self._contents, self._places, self._ids = bytearray(), bytearray(), bytearray()  # digests, row after row
        self._texts: list[str] = []

    @classmethod
    @contextmanager
    def open(cls, task: ReadTask, result: ShardResult) -> Iterator[_Writer]:
        """Open the shard's files, and write what is left at the end."""
        with ExitStack() as stack:
            kinds = ["rows", "numbers", "words", "bad", "filtered", *KINDS]
            files: dict[str, IO[bytes]] = {
                kind: stack.enter_context(shard_file(task.folder, task.shard.number, kind).open("wb", BUFFER_BYTES))
                for kind in kinds
            }
            writer = cls(task, result, files)
            yield writer
            writer._flush()
            result.licences = list(writer._licences)

    def write_event(self, kind: str, event: dict[str, Any]) -> None:
        """Note a row that goes no further."""
        self._files[kind].write(canonical_json(event).encode() + b"\n")

    def add(self, row: Row, record: Record, ordinal: int, changed: int) -> None:
        """Write a row, and remember its texts until the batch is full."""
        line, tail = _as_line(row)
        self._files["rows"].write(line + b"\n")
        key = prompt_key(row.prompt)
        asked, given = _turns_of(row.prompt, key)
        self._texts.append(f"{asked}\n{given}" if given else asked)
        self._texts += [_text(getattr(row, name)) for name in self._fields[1:]]
        characters = [sum([len(turn["content"]) for turn in getattr(row, name)]) for name in self._fields]
        self._contents += bytes.fromhex(content_key(row))[:24]
        self._places += bytes.fromhex(key_hash(key, self._task.config.seed))[:16]
        self._ids += _short_hash(row.id.encode())
        self._integers.extend(
            (
                ordinal,
                record.line,
                self._written,
                len(line),
                tail,
                int(number_words([asked])[1][0]) if given else -1,
                changed,
                self._origin(row),
                self._licences.setdefault(row.licence, len(self._licences)),
                *characters,
            )
        )
        self._written += len(line) + 1
        self._result.num_rows += 1
        if self._result.num_rows % BATCH_ROWS == 0:
            self._flush()

    def _origin(self, row: Row) -> int:
        """Return the place in `data.sources` of what a row is from; rows of the labels are from exports."""
        source = self._task.shard.source
        return source.origin if source.labels is None else self._task.origins.get(row.source, -1)

    def _flush(self) -> None:
        """Number the words of the batch, and write what follows from them."""
        if not self._integers:
            return
        columns = np.frombuffer(self._integers, np.int64).reshape(-1, len(_INTEGERS) + len(self._fields))
        numbers = np.zeros(len(columns), NUMBERS)
        for place, name in enumerate(_INTEGERS):
            numbers[name] = columns[:, place]
        numbers["characters"][:, : len(self._fields)] = columns[:, len(_INTEGERS) :]
        numbers["content"] = np.frombuffer(self._contents, "<u8").reshape(-1, 3)
        numbers["place"] = np.frombuffer(self._places, ">u8").reshape(-1, 2)
        numbers["id"] = np.frombuffer(self._ids, "<u8")
        words, lengths = number_words(self._texts)
        by_row = lengths.reshape(len(numbers), len(self._fields))
        starts = (np.cumsum(lengths) - lengths).reshape(by_row.shape)
        numbers["lengths"][:, : len(self._fields)] = by_row
        numbers["asked"] = np.where(numbers["asked"] < 0, by_row[:, 0], numbers["asked"])
        numbers["words"] = self._result.num_words + starts[:, 0]
        data = words.tobytes()
        prompts = [
            _short_hash(data[4 * start : 4 * (start + length)])
            for start, length in zip(starts[:, 0].tolist(), by_row[:, 0].tolist(), strict=True)
        ]
        numbers["prompt"] = np.frombuffer(b"".join(prompts), "<u8")
        self._files["numbers"].write(numbers.tobytes())
        self._files["words"].write(data)
        if self._minhash is not None:
            self._write_bands(self._minhash, grams(words, starts.ravel(), lengths, self._ngram), by_row.shape)
        self._result.num_words += len(words)
        self._integers, self._texts = array("q"), []
        self._contents, self._places, self._ids = bytearray(), bytearray(), bytearray()

    def _write_bands(self, minhash: MinHash, runs: Ragged, shape: tuple[int, int]) -> None:
        salts = np.repeat(np.tile(_FIELD_SALTS[: shape[1]], shape[0]), runs.lengths)
        minima = minhash.minima(Ragged(runs.values ^ salts, runs.lengths)).reshape(-1, *shape)
        fields = [minima[:, :, field] for field in range(shape[1])]
        self._files["prompts"].write(minhash.bands(fields[0]).tobytes())
        self._files["contents"].write(minhash.bands(reduce(np.minimum, fields)).tobytes())


def _turns_of(prompt: list[Message], key: str) -> tuple[str, str]:
    """Return what the user and what the assistant said; of a prompt of one turn that is its key."""
    given = [turn for turn in prompt if turn["role"] == "assistant"] if len(prompt) > 1 else []
    if not given:
        return key, ""
    return prompt_key([turn for turn in prompt if turn["role"] == "user"]), prompt_key(given)


def _as_line(row: Row) -> tuple[bytes, int]:
    """Return a row as canonical JSON, and where the completion ends that a demonstration begins with.

    Only behind the turns does a comma stand before a key `id`: within a text the quotation marks would be escaped.
    """
    line = row_json(row).encode()
    return line, line.index(b'],"id":') + 2 if isinstance(row, Demonstration) else 0


def _text(turns: list[Message]) -> str:
    """Return the turns' text; where nothing of it is a word it is still told apart from others."""
    return "\n".join([turn["content"] for turn in turns])


def _short_hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()
