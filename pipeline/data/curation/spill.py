"""What is known of every row while the whole data set is looked at: numbers in files, and texts on disk only.

The first pass writes these files per shard, and :func:`join` puts them one after the other::

    shard-<n>.rows      canonical JSON, one row a line
    shard-<n>.numbers   an array of `NUMBERS`
    shard-<n>.words     the numbers of all words, field after field
    shard-<n>.prompts   [rows, bands] of the prompts; shard-<n>.contents of whole rows
    shard-<n>.bad       rows set aside, JSON Lines; shard-<n>.filtered rows that a filter dropped
    numbers, words, prompts, contents    joined; the bands as [bands, rows]
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline.data.curation.plan import Shard
from pipeline.data.curation.words import Words

NUMBERS = np.dtype(
    [
        ("ordinal", "<i8"),  # of the record in its shard
        ("line", "<i8"),  # in its source, from 1; before joining, in its shard
        ("begin", "<i8"),  # of its line among the shard's rows, in bytes
        ("size", "<i4"),  # of that line, without the line feed
        ("tail", "<i4"),  # of a demonstration: where in that line its completion ends
        ("shard", "<i4"),
        ("content", "<u8", (3,)),  # hash of its content
        ("prompt", "<u8"),  # hash of its prompt's words
        ("place", "<u8", (2,)),  # hash of its prompt and the seed: decides split and fold
        ("id", "<u8"),  # hash of its id
        ("words", "<i8"),  # where its words begin
        ("lengths", "<i4", (3,)),  # words of each field
        ("asked", "<i4"),  # words of the prompt's user turns, which come first
        ("characters", "<i4", (3,)),  # of each field
        ("changed", "<u8"),  # bit n: the n-th filter changed it
        ("origin", "<i4"),  # the source in `data.sources` that it is from, -1 where none is
        ("licence", "<i4"),  # among the licences of its shard
    ]
)
KINDS = ("prompts", "contents")  # of bands
MAX_OPEN = 64  # files of rows that are kept open
MERGE_ROWS = 1 << 16  # that are held at a time while files are joined
Numbers = npt.NDArray[Any]
_DECODER = json.JSONDecoder()


@dataclass(kw_only=True)
class ShardResult:
    """What the first pass found in one shard."""

    number: int
    num_records: int = 0
    num_lines: int = 0  # of the file, for the line numbers of the next shard
    num_rows: int = 0
    num_words: int = 0
    licences: list[str | None] = field(default_factory=list)
    # The first rows of each filter, with the ordinal of each: kept, dropped and changed ones.
    examples: dict[str, list[list[tuple[int, dict[str, Any]]]]] = field(default_factory=dict)


def shard_file(folder: Path, number: int, kind: str) -> Path:
    """Name a file of a shard."""
    return folder / f"shard-{number}.{kind}"


@dataclass(frozen=True, kw_only=True)
class Spill:
    """The joined files."""

    folder: Path
    shards: list[Shard]
    results: list[ShardResult]
    numbers: Numbers
    words: Words
    num_bands: int  # 0 where near-duplicates are not looked for
    first_rows: list[int]  # of each shard, and the number of all rows
    _open: dict[int, mmap.mmap] = field(default_factory=dict)  # the rows of shards that were asked about

    def rows_of(self, shard: int) -> range:
        """Return the numbers of a shard's rows."""
        return range(self.first_rows[shard], self.first_rows[shard + 1])

    def row(self, number: int) -> dict[str, Any]:
        """Read one row back."""
        found: dict[str, Any] = json.loads(self._line(number))
        return found

    def id_of(self, number: int) -> str:
        """Read one row's id. What a text holds is never taken for the key: its quotation marks are escaped."""
        line = self._line(number)
        found: str = _DECODER.raw_decode(line, line.index('"id":') + 5)[0]
        return found

    def _line(self, number: int) -> str:
        entry = self.numbers[number]
        shard, begin, size = int(entry["shard"]), int(entry["begin"]), int(entry["size"])
        if shard not in self._open:
            if len(self._open) == MAX_OPEN:
                self.close()
            with shard_file(self.folder, shard, "rows").open("rb") as file:
                self._open[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._open[shard][begin : begin + size].decode()

    def close(self) -> None:
        """Close the files that were opened to read rows."""
        while self._open:
            self._open.popitem()[1].close()

    def events(self, shard: int, kind: str) -> Iterator[dict[str, Any]]:
        """Read what was set aside (`bad`) or dropped by a filter (`filtered`), with line numbers of the source."""
        before = sum(
            result.num_lines
            for result, other in zip(self.results[:shard], self.shards[:shard], strict=True)
            if other.source.number == self.shards[shard].source.number
        )
        with shard_file(self.folder, shard, kind).open(encoding="utf-8") as file:
            for line in file:
                event = json.loads(line)
                event["line"] += before
                yield event


def join(folder: Path, shards: Sequence[Shard], results: Sequence[ShardResult], num_bands: int) -> Spill:
    """Put the shards' arrays one after the other and return them, mapped into memory."""
    first_rows = [0]
    for result in results:
        first_rows.append(first_rows[-1] + result.num_rows)
    with (folder / "numbers").open("wb") as numbers, (folder / "words").open("wb") as words:
        num_words = num_lines = 0
        source = -1
        for shard, result in zip(shards, results, strict=True):
            if shard.source.number != source:
                source, num_lines = shard.source.number, 0
            _append_numbers(folder, shard.number, numbers, num_lines, num_words)
            _append(shard_file(folder, shard.number, "words"), words)
            num_words += result.num_words
            num_lines += result.num_lines
    if num_bands:
        for kind in KINDS:
            _join_bands(folder, kind, first_rows, num_bands)
    return Spill(
        folder=folder, shards=list(shards), results=list(results), numbers=mapped(folder / "numbers", NUMBERS),
        words=mapped(folder / "words", np.dtype(np.uint32)), num_bands=num_bands, first_rows=first_rows,
    )  # fmt: skip


def mapped(path: Path, dtype: np.dtype[Any]) -> Any:
    """Map an array file into memory, read-only. An empty file, which nothing can map, is an empty array."""
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)


def band(folder: Path, kind: str, number: int, num_rows: int) -> npt.NDArray[np.uint32]:
    """Map one band of all rows."""
    return np.memmap(folder / kind, np.uint32, "r", offset=4 * number * num_rows, shape=(num_rows,))


def _append_numbers(folder: Path, shard: int, numbers: IO[bytes], num_lines: int, num_words: int) -> None:
    path = shard_file(folder, shard, "numbers")
    entries = np.fromfile(path, NUMBERS)
    entries["line"] += num_lines
    entries["words"] += num_words
    entries["shard"] = shard
    entries.tofile(numbers)
    path.unlink()


def _append(path: Path, joined: IO[bytes]) -> None:
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            joined.write(block)
    path.unlink()


def _join_bands(folder: Path, kind: str, first_rows: list[int], num_bands: int) -> None:
    num_rows = first_rows[-1]
    if not num_rows:
        return
    joined = np.memmap(folder / kind, np.uint32, "w+", shape=(num_bands, num_rows))
    for shard, first in enumerate(first_rows[:-1]):
        path = shard_file(folder, shard, kind)
        entries = mapped(path, np.dtype(np.uint32)).reshape(-1, num_bands)
        for begin in range(0, len(entries), MERGE_ROWS):
            block = entries[begin : begin + MERGE_ROWS]
            joined[:, first + begin : first + begin + len(block)] = block.T
        path.unlink()
    joined.flush()
