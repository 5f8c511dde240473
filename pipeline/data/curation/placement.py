"""The third pass: rows in order, each given its split or the reason why it has none. It sees numbers, never texts.

Tables are placed in the order protected, demonstrations, prompts, comparisons, unpaired, and what is placed stays: a
row's fate depends on rows before it alone, so new comparisons never move demonstrations. The one thing that comes
later, rows that hold a test prompt, never takes away from an earlier table because of a later one.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from pipeline.config.data import CurateConfig, TableName
from pipeline.data.curation.duplicates import NONE, Known
from pipeline.data.curation.executors import Executor
from pipeline.data.curation.folds import find_folds
from pipeline.data.curation.leaks import shared_runs, whole_prompts
from pipeline.data.curation.near import rows_where
from pipeline.data.curation.plan import SPLITS, TABLES, Source
from pipeline.data.curation.spill import Spill

TRAIN, VALIDATION, TEST = range(len(SPLITS))


class Fate(IntEnum):
    """What became of a row."""

    kept = 0
    duplicate = 1
    near_duplicate = 2
    bridges_splits = 3
    leak = 4
    same_id = 5  # another row with other content has its id
    over_limit = 6
    over_cap = 7
    guard = 8  # it keeps rows like it from being trained on, and goes into no table


class LeakRule(IntEnum):
    """How a row was found to hold an evaluation prompt."""

    exact = 0  # its prompt is one, up to case, punctuation and white space
    near = 1  # its prompt is nearly one
    ngram = 2  # it shares a run of words with a protected one
    whole = 3  # one of the test split stands in it


@dataclass(kw_only=True)
class Placed:
    """The fate of all rows, by their numbers."""

    fate: array[int]
    split: array[int]  # of `SPLITS`, NONE where the row has none
    of: array[int]  # the row because of which it was removed, or NONE
    rule: array[int]  # of a leak
    similarity: array[float]  # of a near-duplicate
    cuts: dict[int, tuple[int, int]] = field(
        default_factory=dict
    )  # source -> shard and ordinal of its last row looked at
    folds: array[int] = field(default_factory=lambda: array("b"))

    def is_looked_at(self, source: int, shard: int, ordinal: int) -> bool:
        """Whether a record stands before the end that `limit` sets."""
        return source not in self.cuts or (shard, ordinal) <= self.cuts[source]


class Placing:
    """Places source by source."""

    def __init__(self, spill: Spill, known: Known, config: CurateConfig, executor: Executor) -> None:
        """Nothing is placed yet."""
        size = len(spill.numbers)
        self._spill, self._known, self._config, self._executor = spill, known, config, executor
        # One number after the other is read from these: arrays of Python's own are several times faster at that.
        self._prompt_of = array("i", known.prompts.of_row.tobytes())
        self._content_of = array("i", known.contents.of_row.tobytes())
        self._id_of = array("i", known.ids.of_row.tobytes())
        # The hash decides where nothing else does, so that new rows never move old ones.
        place = spill.numbers["place"][:, 0] / 2.0**64
        ends = np.array([config.test_fraction, config.test_fraction + config.validation_fraction])
        splits = np.array([TEST, VALIDATION, TRAIN], np.int8)[np.searchsorted(ends, place, "right")]
        self._split_by_hash = array("b", splits.tobytes())
        self.placed = Placed(
            fate=_filled("b", size),
            split=_filled("b", size),
            of=_filled("q", size),
            rule=_filled("b", size),
            similarity=array("f", bytes(4 * size)),
        )
        self._split_of_prompt = _filled("b", len(known.prompts.first))  # NONE until a row with it is placed
        self._protected_prompt = _filled("q", len(known.prompts.first))  # the first protected row with it
        self._placed_content = _filled("q", len(known.contents.first))  # the first row placed with it
        self._row_of_id = _filled("q", len(known.ids.first))
        self._num_protected = 0  # rows, which are the first ones
        self._shares_runs: dict[int, int] = {}  # row -> the protected row with whose prompt it shares a run of words
        self._is_alone = np.zeros(size, bool)  # no row is like it; known once the protected rows are placed

    def place_all(self, sources: list[Source]) -> Placed:
        """Place every row of every source, in their order."""
        fates = np.frombuffer(self.placed.fate, np.int8)  # as they are at any time
        for source in sources:
            if source.protected:
                self._place_source(source)
                self._num_protected += sum(
                    result.num_rows
                    for result, shard in zip(self._spill.results, self._spill.shards, strict=True)
                    if shard.source.number == source.number
                )
        decontamination = self._config.decontamination
        protected = self._first_rows(np.isin(fates, (Fate.kept, Fate.guard)))
        if decontamination.enabled and decontamination.ngram is not None and len(protected):
            hits = shared_runs(self._spill, protected, decontamination.ngram, self._executor)
            hits += whole_prompts(self._spill, protected, self._executor, max_words=decontamination.ngram - 1)
            for row, prompt in hits:
                self._shares_runs[row] = min(prompt, self._shares_runs.get(row, prompt))
        self._is_alone = self._find_alone()
        for source in sources:
            if not source.protected:
                self._place_source(source)
        if decontamination.enabled and decontamination.ngram is not None:
            self._part_test_prompts()
        numbers = [source.number for source in sources if source.config.table is TableName.comparisons]
        comparisons = rows_where(self._spill, numbers)
        self.placed.folds = find_folds(self._spill, self._known, comparisons[fates[comparisons] == Fate.kept])
        return self.placed

    def _first_rows(self, wanted: Any) -> Any:
        """Return the first wanted row of every prompt, ascending."""
        rows = np.flatnonzero(wanted)
        _, first = np.unique(self._known.prompts.of_row[rows], return_index=True)
        return rows[np.sort(first)]

    def _find_alone(self) -> Any:
        """Return which rows share prompt, content and id with no other, are near to none and hold no protected run."""
        known = self._known
        prompt, content = known.prompts.of_row, known.contents.of_row
        near_contents = np.concatenate([np.diff(near.starts) for _, near in known.near_contents.values()])
        is_alone = (np.diff(known.near_prompts.starts)[prompt] == 0) & (near_contents[content] == 0)
        for groups in (prompt, content, known.ids.of_row):
            is_alone &= np.bincount(groups)[groups] == 1
        is_alone[list(self._shares_runs)] = False
        return is_alone

    def _place_source(self, source: Source) -> None:
        """Place the rows of one source, up to its limit."""
        accepted, limit = 0, source.config.limit
        for shard in self._spill.shards:
            if shard.source.number != source.number:
                continue
            rows = self._spill.rows_of(shard.number)
            for row in rows if limit else self._place_alone(rows):
                if source.number in self.placed.cuts:
                    self.placed.fate[row] = Fate.over_limit
                    continue
                if source.guards:
                    self._guard(row)
                else:
                    self._place(row, source)
                if self.placed.fate[row] == Fate.kept:
                    accepted += 1
                    if accepted == limit:
                        self.placed.cuts[source.number] = (shard.number, int(self._spill.numbers["ordinal"][row]))

    def _place_alone(self, rows: range) -> list[int]:
        """Place those of the rows that are alone, which nothing but their hash decides, and return the others."""
        is_alone = self._is_alone[rows.start : rows.stop]
        alone = rows.start + np.flatnonzero(is_alone)
        np.frombuffer(self.placed.fate, np.int8)[alone] = Fate.kept
        np.frombuffer(self.placed.split, np.int8)[alone] = np.frombuffer(self._split_by_hash, np.int8)[alone]
        others: list[int] = (rows.start + np.flatnonzero(~is_alone)).tolist()
        return others

    def _place(self, row: int, source: Source) -> None:
        """Decide the fate of one row."""
        content, name = self._content_of[row], self._id_of[row]
        if (earlier := self._placed_content[content]) != NONE:
            # What repeats a protected row and would be trained on is a leak in the first place.
            if earlier >= self._num_protected or source.protected or self._split_for(row) != NONE:
                self._remove(row, Fate.duplicate, earlier)
            return
        if (earlier := self._row_of_id[name]) != NONE:
            self._remove(row, Fate.same_id, earlier)
            return
        split = TEST if source.protected else self._split_for(row)
        if split == NONE:
            return
        if not source.protected and (near := self._near_content(source.config.table, content)) is not None:
            self._remove(row, Fate.near_duplicate, near[0])
            self.placed.similarity[row] = near[1]
            return
        prompt = self._prompt_of[row]
        if not source.protected:
            self._split_of_prompt[prompt] = split
        elif self._protected_prompt[prompt] == NONE:
            self._protected_prompt[prompt] = row
        self._placed_content[content] = self._row_of_id[name] = row
        self.placed.fate[row], self.placed.split[row] = Fate.kept, split

    def _guard(self, row: int) -> None:
        """Protect the prompt of a row that goes into no table: it takes neither a place nor an id from other rows."""
        if self._protected_prompt[self._prompt_of[row]] == NONE:
            self._protected_prompt[self._prompt_of[row]] = row
        self.placed.fate[row] = Fate.guard

    def _split_for(self, row: int) -> int:
        """Return the split of a row's prompt: that of near prompts which are placed, else what its hash says.

        NONE where the row may not stay, which is noted.
        """
        prompt = self._prompt_of[row]
        neighbours = self._known.near_prompts.of(prompt)
        split = self._split_of_prompt[prompt]
        splits = {split} if split != NONE else {self._split_of_prompt[other] for other, _ in neighbours} - {NONE}
        if len(splits) > 1:
            other = next(other for other, _ in neighbours if self._split_of_prompt[other] != NONE)
            self._remove(row, Fate.bridges_splits, int(self._known.prompts.first[other]))
            return NONE
        split = splits.pop() if splits else self._split_by_hash[row]
        if split != TEST and self._config.decontamination.enabled and (leak := self._leak(row, prompt, neighbours)):
            self._remove(row, Fate.leak, leak[1])
            self.placed.rule[row] = leak[0]
            return NONE
        return split

    def _leak(self, row: int, prompt: int, neighbours: list[tuple[int, float]]) -> tuple[LeakRule, int] | None:
        """Return how and which protected prompt a row holds."""
        if (protected := self._protected_prompt[prompt]) != NONE:
            return LeakRule.exact, protected
        for other, _ in neighbours:
            if (protected := self._protected_prompt[other]) != NONE:
                return LeakRule.near, protected
        return (LeakRule.ngram, self._shares_runs[row]) if row in self._shares_runs else None

    def _near_content(self, table: TableName, content: int) -> tuple[int, float] | None:
        """Return the most similar row placed in the same table, if one is near."""
        first, neighbours = self._known.near_contents[table]
        found = [
            (similarity, -self._placed_content[other + first])
            for other, similarity in neighbours.of(content - first)
            if self._placed_content[other + first] != NONE
        ]
        return (-max(found)[1], max(found)[0]) if found else None

    def _remove(self, row: int, fate: Fate, of: int) -> None:
        self.placed.fate[row], self.placed.of[row] = fate, of

    def _part_test_prompts(self) -> None:
        """Remove rows that hold a prompt of the test split: the row, or the test row where its table comes later."""
        placed, shards = self.placed, self._spill.shards
        table_of = [TABLES.index(shard.source.config.table) for shard in shards]
        shard_of = self._spill.numbers["shard"]
        fates, splits = (np.frombuffer(values, np.int8) for values in (placed.fate, placed.split))
        is_protected = np.array([shard.source.protected for shard in shards])[shard_of]
        is_test = (fates == Fate.kept) & (splits == TEST) & ~is_protected
        prompts = self._first_rows(is_test)
        if not len(prompts):
            return
        hits = whole_prompts(self._spill, prompts, self._executor)
        trained = [hit for hit in hits if placed.fate[hit[0]] == Fate.kept and placed.split[hit[0]] != TEST]
        contaminated: dict[int, int] = {}  # prompt -> the row of an earlier table that holds it
        for row, prompt in sorted(trained):
            if table_of[shard_of[prompt]] <= table_of[shard_of[row]]:
                self._remove_leak(row, prompt)
            else:
                contaminated.setdefault(self._prompt_of[prompt], row)
        if contaminated:
            for row in np.flatnonzero(is_test).tolist():
                if (holder := contaminated.get(self._prompt_of[row])) is not None:
                    self._remove_leak(row, holder)

    def _remove_leak(self, row: int, of: int) -> None:
        if self.placed.fate[row] == Fate.kept:
            self._remove(row, Fate.leak, of)
            self.placed.rule[row], self.placed.split[row] = LeakRule.whole, NONE


def _filled(code: str, size: int) -> array[int]:
    return array(code, [NONE]) * size
