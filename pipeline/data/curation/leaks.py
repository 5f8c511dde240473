"""Rows that hold an evaluation prompt.

What is looked for are the user turns of an evaluation prompt. Two rules, both on words, so that neither case nor
punctuation hides anything:

- A row may not share a run of 13 words (`curate.decontamination.ngram`) with a protected prompt, as in GPT-3's test
  sets (arXiv:2005.14165, appendix C). A run that stands in more than ten of the prompts is how they are all worded and
  says nothing. A prompt of fewer than 13 and at least 8 words may not stand in a row as a whole; of a shorter one only
  the whole prompt of a row can be told to be the same, by its hash.
- A prompt that its hash puts into the test split may not stand as a whole in a row that is trained on, if it has at
  least 8 words. It is one of many that are worded alike, so a run of 13 words would say too little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.curation.executors import Executor
from pipeline.data.curation.spill import NUMBERS, Spill, mapped
from pipeline.data.curation.words import Indices, Ragged, Words, grams, positions, runs

MIN_WORDS = 8  # of a prompt that is looked for inside texts (arXiv:2005.14165, appendix C)
MAX_PROMPTS = 10  # that a run of words stands in before it is how prompts are worded (there: occurrences)
_MASK = (1 << 22) - 1
CHUNK_WORDS = 1 << 22  # that are scanned at a time


_RUN = np.dtype(
    [
        ("value", "<u8"),
        ("prompt", "<i8"),  # the row whose prompt it is from
        ("offset", "<i8"),  # in that prompt
    ]
)


@dataclass(frozen=True, kw_only=True)
class _ScanTask:
    folder: Path
    begin: int  # rows
    end: int
    length: int  # words of a run
    whole: bool  # whether the prompt around a run must be there as well


Hits = list[tuple[int, int]]  # (row, row whose prompt it holds)


def shared_runs(spill: Spill, prompts: Indices, ngram: int, executor: Executor) -> Hits:
    """Find the rows that share a run of ``ngram`` words with one of the prompts, each with the first such prompt."""
    found, rows = _prompt_runs(spill, prompts, ngram, None)
    wanted = np.zeros(len(found.values), _RUN)
    wanted["value"], wanted["prompt"] = found.values, np.repeat(rows, found.lengths)
    wanted = np.unique(wanted)  # a run that stands in one prompt twice counts once
    _, inverse, counts = np.unique(wanted["value"], return_inverse=True, return_counts=True)
    return _scan(spill, wanted[counts[inverse] <= MAX_PROMPTS], ngram, executor, whole=False)


def whole_prompts(spill: Spill, prompts: Indices, executor: Executor, max_words: int | None = None) -> Hits:
    """Find the rows in which one of the prompts, of at most ``max_words`` words, stands as a whole.

    A prompt is looked for by the run of eight of its words that the fewest of the prompts have.
    """
    found, rows = _prompt_runs(spill, prompts, MIN_WORDS, max_words)
    if not len(rows):
        return []
    _, inverse, counts = np.unique(found.values, return_inverse=True, return_counts=True)
    offsets = np.arange(len(found.values)) - np.repeat(found.starts, found.lengths)
    rarest = np.minimum.reduceat(counts[inverse] << 32 | offsets, found.starts) & 0xFFFFFFFF
    wanted = np.zeros(len(rows), _RUN)
    wanted["value"], wanted["prompt"], wanted["offset"] = found.values[found.starts + rarest], rows, rarest
    return _scan(spill, np.sort(wanted), MIN_WORDS, executor, whole=True)


def _prompt_runs(spill: Spill, prompts: Indices, length: int, max_words: int | None) -> tuple[Ragged, Indices]:
    """Return the runs of words of the prompts that have as many, and which these are."""
    sizes = spill.numbers["asked"][prompts].astype(np.int64)
    fits = (sizes >= length) & (max_words is None or sizes <= max_words)
    rows, sizes = prompts[fits], sizes[fits]
    words = spill.words[positions(spill.numbers["words"][rows], sizes)]
    return grams(words, np.cumsum(sizes) - sizes, sizes, length), rows


def _prompt(words: Any, entry: Any) -> Words:
    """Return the words of a prompt's user turns: those of the assistant are what any row may say."""
    begin = int(entry["words"])
    return np.asarray(words[begin : begin + int(entry["asked"])])


def _scan(spill: Spill, wanted: Any, length: int, executor: Executor, *, whole: bool) -> Hits:
    """Look for runs of ``length`` words, sorted by their numbers, in all rows."""
    if not len(wanted):
        return []
    wanted.tofile(spill.folder / "runs")
    tasks = [
        _ScanTask(folder=spill.folder, begin=rows.start, end=rows.stop, length=length, whole=whole)
        for rows in map(spill.rows_of, range(len(spill.shards)))
        if len(rows)
    ]
    return [hit for hits in executor.map(_scan_rows, tasks) for hit in hits]


def _scan_rows(task: _ScanTask) -> Hits:
    """Scan a range of rows, chunk by chunk."""
    wanted = np.asarray(mapped(task.folder / "runs", _RUN))
    numbers = mapped(task.folder / "numbers", NUMBERS)
    own = numbers[task.begin : task.end]
    ends = own["words"] + own["lengths"].sum(axis=1)
    scan = _Scan(numbers, mapped(task.folder / "words", np.dtype(np.uint32)), wanted, task)
    begin = 0
    while begin < len(own):
        end = max(begin + 1, int(np.searchsorted(ends, int(own["words"][begin]) + CHUNK_WORDS, "right")))
        scan.look(task.begin + begin, task.begin + end)
        begin = end
    return list(scan.hits)


class _Scan:
    """Looks for runs of words in ranges of rows."""

    def __init__(self, numbers: Any, words: Any, wanted: Any, task: _ScanTask) -> None:
        self._numbers, self._words, self._wanted = numbers, words, wanted
        self._length, self._whole = task.length, task.whole
        self._values = np.ascontiguousarray(wanted["value"])
        self._may_hold = np.zeros(_MASK + 1, bool)  # one look at the lowest bits tells nearly every other run
        self._may_hold[(self._values & np.uint64(_MASK)).astype(np.int64)] = True
        self.hits: dict[tuple[int, int], None] = {}  # in the order in which they were found, each once

    def look(self, begin: int, end: int) -> None:
        """Note each row of a range that holds a run, with the earliest prompt that has it, or all whole prompts."""
        entries = self._numbers[begin:end]
        start = int(entries["words"][0])
        fields = entries["lengths"].astype(np.int64)
        ends = np.cumsum(fields)  # of every field of every row, also of fields that are not there
        found = runs(np.asarray(self._words[start : start + int(fields.sum())]), self._length)
        places = np.flatnonzero(self._may_hold[(found & np.uint64(_MASK)).astype(np.int64)])
        low, high = (np.searchsorted(self._values, found[places], side) for side in ("left", "right"))
        field = np.searchsorted(ends, places, "right")
        inside = (low < high) & (places + self._length <= ends[field])
        for place, first, last, at in np.stack([places, low, high, field], axis=1)[inside].tolist():
            text = (start + int(ends[at] - fields.flat[at]), start + int(ends[at]))
            for run in self._wanted[first : last if self._whole else first + 1]:
                prompt = int(run["prompt"])
                if not self._whole or self._stands_at(prompt, start + place - int(run["offset"]), text):
                    self.hits[begin + at // fields.shape[1], prompt] = None

    def _stands_at(self, prompt: int, place: int, text: tuple[int, int]) -> bool:
        """Whether a prompt stands at a place of a text, of which begin and end are given."""
        expected = _prompt(self._words, self._numbers[prompt])
        end = place + len(expected)
        return text[0] <= place and end <= text[1] and bool((self._words[place:end] == expected).all())
