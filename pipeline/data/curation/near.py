"""The second pass: which prompts, and which whole rows of a table, say nearly the same.

Rows are grouped first: those with the same prompt, and those of a table with the same content. Groups that agree in a
band are candidates, and of every candidate the sets of runs of words are compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.data import NearDuplicatesConfig
from pipeline.data.curation.executors import Executor
from pipeline.data.curation.spill import NUMBERS, Spill, band, mapped
from pipeline.data.curation.words import Indices, Ragged, grams, positions, similarities

# A member of a band's bucket is compared with this many that came first and as many that came last before it. Those
# before it are all that count, so that a later row never changes what is known of earlier ones.
NUM_COMPARED = 16
CHUNK_PAIRS = 1 << 10  # that one task compares
BATCH_WORDS = 1 << 20  # that are compared at a time


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Rows that are the same in one respect; groups are numbered in the order of their first rows."""

    of_row: npt.NDArray[np.int32]  # -1 where the row takes no part
    first: Indices  # row of each group


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The groups that are near to each group."""

    starts: array[int]  # [groups + 1]
    others: npt.NDArray[np.int32]
    similarity: npt.NDArray[np.float32]

    def of(self, group: int) -> list[tuple[int, float]]:
        """Return the groups near to one, with their similarities, earlier ones first."""
        begin, end = self.starts[group], self.starts[group + 1]
        if begin == end:
            return []
        return list(zip(self.others[begin:end].tolist(), self.similarity[begin:end].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class _BandTask:
    folder: Path
    first: Path  # the file of the groups' first rows
    kind: str
    number: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class _CompareTask:
    folder: Path
    first: Path
    pairs: Path
    begin: int
    end: int
    num_fields: int
    ngram: int


def group_rows(keys: npt.NDArray[np.uint64], rows: Indices, num_rows: int) -> Groups:
    """Group rows by keys.

    Args:
        keys: Of each of ``rows``, one or several columns.
        rows: Numbers of the rows, ascending.
        num_rows: Of all rows.
    """
    if not len(rows):
        return Groups(of_row=np.full(num_rows, -1, np.int32), first=rows)
    columns = keys.reshape(len(keys), -1)
    order = np.lexsort(columns.T[::-1])
    ordered = columns[order]
    is_new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    first = np.sort(order[is_new])  # sorting is stable, so the first of each run is the earliest row
    label = np.empty(len(rows), np.int64)
    label[order] = np.repeat(order[is_new], np.diff(np.append(np.flatnonzero(is_new), len(rows))))
    of_row = np.full(num_rows, -1, np.int32)
    of_row[rows] = np.searchsorted(first, label)
    return Groups(of_row=of_row, first=rows[first])


class Search:
    """Looks for the groups whose texts are near to each other. It begins when it is made, and ends when it is asked."""

    def __init__(
        self, name: str, spill: Spill, groups: Groups, kind: str, config: NearDuplicatesConfig, executor: Executor
    ) -> None:
        """Begin with the candidates.

        Args:
            name: Of the search's own files.
            spill: All rows.
            groups: The first row of each stands for it.
            kind: Which bands to go by, `prompts` or `contents`.
            config: From which similarity on.
            executor: Where the work is done.
        """
        self._num_groups, self._config, self._executor = len(groups.first), config, executor
        self._folder = spill.folder
        self._first, self._pairs = self._folder / f"{name}.first", self._folder / f"{name}.pairs"
        groups.first.tofile(self._first)
        tasks = [
            _BandTask(folder=spill.folder, first=self._first, kind=kind, number=number, num_rows=len(spill.numbers))
            for number in range(spill.num_bands if self._num_groups > 1 else 0)
        ]
        self._candidates = executor.map(_candidates, tasks)

    def neighbours(self, num_fields: int) -> Neighbours:
        """Compare the candidates.

        Args:
            num_fields: How many fields must be near, the prompt first.
        """
        candidates = np.zeros(0, np.int64)
        for found in self._candidates:
            candidates = np.union1d(candidates, found)
        pairs = np.stack(np.divmod(candidates, max(self._num_groups, 1)), axis=1)
        pairs.tofile(self._pairs)
        tasks = [
            _CompareTask(
                folder=self._folder, first=self._first, pairs=self._pairs, begin=begin,
                end=min(begin + CHUNK_PAIRS, len(pairs)), num_fields=num_fields, ngram=self._config.ngram,
            )
            for begin in range(0, len(pairs), CHUNK_PAIRS)
        ]  # fmt: skip
        similarity = np.concatenate([np.zeros(0, np.float32), *self._executor.map(_compare, tasks)])
        near = similarity >= np.float32(self._config.threshold)
        return _both_ways(pairs[near], similarity[near], self._num_groups)


def _both_ways(pairs: Indices, similarity: npt.NDArray[np.float32], num_groups: int) -> Neighbours:
    own = np.concatenate([pairs[:, 0], pairs[:, 1]])
    other = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.lexsort((other, own))
    return Neighbours(
        starts=array("q", np.searchsorted(own[order], np.arange(num_groups + 1)).astype(np.int64).tobytes()),
        others=other[order].astype(np.int32),
        similarity=np.concatenate([similarity, similarity])[order],
    )


def _candidates(task: _BandTask) -> Indices:
    """Return the pairs of groups that agree in one band, as ``later * groups + earlier``."""
    first = mapped(task.first, np.dtype(np.int64))
    values = np.asarray(band(task.folder, task.kind, task.number, task.num_rows))[first]
    return bucket_pairs(values)


def bucket_pairs(values: npt.NDArray[Any]) -> Indices:
    """Return the pairs of places with equal values as ``later * len(values) + earlier``, at most 32 of each place."""
    # Most values occur once. How often their lowest bits do leaves few of these to be sorted.
    bits = min(len(values).bit_length() + 2, 22)
    low = (values & np.uint32((1 << bits) - 1)).astype(np.int64)
    places = np.flatnonzero(np.bincount(low)[low] > 1)
    # Sorting the values with their places in one number is several times faster than a stable sort.
    sorted_keys = np.sort(values[places].astype(np.uint64) << np.uint64(32) | places.astype(np.uint64))
    order = (sorted_keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    ordered = sorted_keys >> np.uint64(32)
    is_new = np.ones(len(places), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    begins = np.maximum.accumulate(np.where(is_new, np.arange(len(places)), 0))
    later = np.flatnonzero(~is_new)
    found = [np.zeros(0, np.int64)]
    for step in range(NUM_COMPARED):
        later = later[later - begins[later] > step]
        if not len(later):
            break
        for earlier in (later - step - 1, begins[later] + step):
            found.append(order[later] * len(values) + order[earlier])
    return np.unique(np.concatenate(found))


def _compare(task: _CompareTask) -> npt.NDArray[np.float32]:
    """Return the similarity of pairs of groups: the lowest over the fields."""
    numbers = mapped(task.folder / "numbers", NUMBERS)
    words = mapped(task.folder / "words", np.dtype(np.uint32))
    first = mapped(task.first, np.dtype(np.int64))
    pairs = mapped(task.pairs, np.dtype(np.int64)).reshape(-1, 2)[task.begin : task.end]
    entries = numbers[first[pairs]]
    size = np.cumsum(entries["lengths"][..., : task.num_fields].sum(axis=(1, 2), dtype=np.int64))
    result = np.empty(len(pairs), np.float32)
    begin = 0
    while begin < len(pairs):
        before = size[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(size, before + BATCH_WORDS, "right")))
        result[begin:end] = _lowest(words, entries[begin:end], task.num_fields, task.ngram)
        begin = end
    return result


def _lowest(words: Any, entries: Any, num_fields: int, ngram: int) -> npt.NDArray[np.float64]:
    lowest = np.ones(len(entries))
    for field in range(num_fields):
        sides = [field_grams(words, entries[:, side], field, ngram) for side in (0, 1)]
        lowest = np.minimum(lowest, similarities(*sides))
    return lowest


def field_grams(words: Any, entries: Any, field: int, ngram: int) -> Ragged:
    """Return the runs of words of one field of rows."""
    lengths = entries["lengths"][:, field].astype(np.int64)
    starts = entries["words"] + entries["lengths"][:, :field].sum(axis=1, dtype=np.int64)
    own = words[positions(starts, lengths)]
    return grams(own, np.cumsum(lengths) - lengths, lengths, ngram)


def rows_where(spill: Spill, chosen: Sequence[int]) -> Indices:
    """Return the numbers of the rows of some sources."""
    ranges = [spill.rows_of(shard.number) for shard in spill.shards if shard.source.number in chosen]
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(rows.start, rows.stop) for rows in ranges)])
