"""Rows that hold an evaluation prompt.

What is looked for are the user turns of an evaluation prompt. Two rules, both on words, so that neither case nor
punctuation hides anything:

- A row may not share a run of 13 words (`curate.decontamination.ngram`) with a protected prompt, as in GPT-3's test
  sets (arXiv:2005.14165, appendix C). A run that stands in more than ten of the prompts is how they are all worded and
  says nothing. A prompt of fewer than 13 and at least 8 words counts as one run; of a shorter one only the whole prompt
  of a row can be told to be the same, by its hash.
- A prompt that its hash puts into the test split may not stand as a whole in a row that is trained on, if it has at
  least 8 words. It is one of many that are worded alike, so a run of 13 words would say too little.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.curation.executors import Executor
from pipeline.data.curation.spill import NUMBERS, Spill, mapped
from pipeline.data.curation.words import Grams, Indices, Words, runs

MIN_WORDS = 8  # of a prompt that is looked for inside texts (arXiv:2005.14165, appendix C)
MAX_PROMPTS = 10  # that a run of words stands in before it is how prompts are worded (there: occurrences)
ANCHOR_WORDS = 13  # of the run that a whole prompt is found by
CHUNK_WORDS = 1 << 22  # that are scanned at a time


_RUN = np.dtype(
    [
        ("length", "<i8"),
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
    whole: bool  # whether the prompt around a run must be there as well


Hits = list[tuple[int, int]]  # (row, row whose prompt it holds)


def shared_runs(spill: Spill, prompts: Indices, ngram: int, executor: Executor) -> Hits:
    """Find the rows that share a run of ``ngram`` words with one of the prompts, each with the first such prompt."""
    entries: list[tuple[int, int, int, int]] = []
    counts: Counter[tuple[int, int]] = Counter()
    for row in prompts.tolist():
        words = prompt_words(spill, row)
        length = min(ngram, len(words))
        if length < min(MIN_WORDS, ngram):
            continue
        values, offsets = np.unique(runs(words, length), return_index=True)
        found = values.tolist()
        counts.update((length, value) for value in found)
        entries += [(length, value, row, offset) for value, offset in zip(found, offsets.tolist(), strict=True)]
    entries = [entry for entry in entries if counts[entry[:2]] <= MAX_PROMPTS]
    return _scan(spill, entries, executor, whole=False)


def whole_prompts(spill: Spill, prompts: Indices, executor: Executor) -> Hits:
    """Find the rows in which one of the prompts stands as a whole.

    A prompt is looked for by the run of its words that the fewest of the prompts have.
    """
    long = [row for row in prompts.tolist() if spill.numbers[row]["asked"] >= MIN_WORDS]
    counts: Counter[tuple[int, int]] = Counter()
    for row in long:
        counts.update(_anchors(prompt_words(spill, row)))
    entries = []
    for row in long:
        anchors = _anchors(prompt_words(spill, row))
        offset = min(range(len(anchors)), key=lambda place: counts[anchors[place]])
        entries.append((*anchors[offset], row, offset))
    return _scan(spill, entries, executor, whole=True)


def prompt_words(spill: Spill, row: int) -> Words:
    """Return the words of a prompt's user turns: those of the assistant are what any row may say."""
    return _prompt(spill.words, spill.numbers[row])


def _prompt(words: Any, entry: Any) -> Words:
    begin = int(entry["words"])
    return np.asarray(words[begin : begin + int(entry["asked"])])


def _anchors(words: Words) -> list[tuple[int, int]]:
    length = min(ANCHOR_WORDS, len(words))
    return [(length, value) for value in runs(words, length).tolist()]


def _scan(spill: Spill, entries: list[tuple[int, int, int, int]], executor: Executor, *, whole: bool) -> Hits:
    """Look for runs of words in all rows."""
    if not entries:
        return []
    np.array(sorted(entries), _RUN).tofile(spill.folder / "runs")
    tasks = [
        _ScanTask(folder=spill.folder, begin=rows.start, end=rows.stop, whole=whole)
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
    scan = _Scan(numbers, mapped(task.folder / "words", np.dtype(np.uint32)), whole=task.whole)
    begin = 0
    while begin < len(own):
        end = max(begin + 1, int(np.searchsorted(ends, int(own["words"][begin]) + CHUNK_WORDS, "right")))
        scan.look(wanted, task.begin + begin, task.begin + end)
        begin = end
    return list(scan.hits)


class _Scan:
    """Looks for runs of words in ranges of rows."""

    def __init__(self, numbers: Any, words: Any, *, whole: bool) -> None:
        self._numbers, self._words, self._whole = numbers, words, whole
        self.hits: dict[tuple[int, int], None] = {}  # in the order in which they were found, each once

    def look(self, wanted: Any, begin: int, end: int) -> None:
        """Note each row of a range that holds a run, with the earliest prompt that has it, or all whole prompts."""
        entries = self._numbers[begin:end]
        start = int(entries["words"][0])
        fields = entries["lengths"].astype(np.int64)
        chunk = np.asarray(self._words[start : start + int(fields.sum())])
        ends = np.cumsum(fields)  # of every field of every row, also of fields that are not there
        for length in np.unique(wanted["length"]).tolist():
            own = wanted[slice(*np.searchsorted(wanted["length"], [length, length + 1]))]
            values = np.ascontiguousarray(own["value"])
            found = runs(chunk, length)
            places = np.flatnonzero(_may_hold(values)[(found & np.uint64(_MASK)).astype(np.int64)])
            low, high = (np.searchsorted(values, found[places], side) for side in ("left", "right"))
            field = np.searchsorted(ends, places, "right")
            inside = (low < high) & (places + length <= ends[field])
            for place, first, last, at in np.stack([places, low, high, field], axis=1)[inside].tolist():
                text = (start + int(ends[at] - fields.flat[at]), start + int(ends[at]))
                for run in own[first : last if self._whole else first + 1]:
                    prompt = int(run["prompt"])
                    if not self._whole or self._stands_at(prompt, start + place - int(run["offset"]), text):
                        self.hits[begin + at // fields.shape[1], prompt] = None

    def _stands_at(self, prompt: int, place: int, text: tuple[int, int]) -> bool:
        """Whether a prompt stands at a place of a text, of which begin and end are given."""
        expected = _prompt(self._words, self._numbers[prompt])
        end = place + len(expected)
        return text[0] <= place and end <= text[1] and bool((self._words[place:end] == expected).all())


_MASK = (1 << 22) - 1


def _may_hold(values: Grams) -> npt.NDArray[np.bool_]:
    """Return a table of the lowest bits that values have: one look tells nearly every run that is not among them."""
    table = np.zeros(_MASK + 1, bool)
    table[(values & np.uint64(_MASK)).astype(np.int64)] = True
    return table
