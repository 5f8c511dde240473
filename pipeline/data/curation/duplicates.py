"""What the second pass finds of all rows: which share prompt, content or id, and which are near to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.data import CurateConfig, TableName
from pipeline.data.curation.executors import Executor
from pipeline.data.curation.near import Groups, Neighbours, Search, group_rows, rows_where
from pipeline.data.curation.plan import FIELDS, TABLES, Source
from pipeline.data.curation.spill import Spill

NONE = -1  # no row, group or split


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the second pass found."""

    prompts: Groups
    near_prompts: Neighbours
    contents: Groups  # groups of a table follow those of the tables before it
    near_contents: dict[TableName, tuple[int, Neighbours]]  # with the number of the table's first group
    ids: Groups


def look_for_duplicates(spill: Spill, sources: list[Source], config: CurateConfig, executor: Executor) -> Known:
    """Group all rows by prompt, content and id, and find near-duplicates."""
    numbers, near = spill.numbers, config.near_duplicates
    everything = np.arange(len(numbers), dtype=np.int64)
    prompts = group_rows(numbers["prompt"], everything, len(numbers))
    search = Search("prompts", spill, prompts, "prompts", near, executor)
    contents = np.full(len(numbers), NONE, np.int32)
    ids = np.full(len(numbers), NONE, np.int32)
    first_contents: list[Any] = []
    searches: dict[TableName, tuple[int, Search]] = {}
    num_contents = num_ids = 0
    for table in TABLES:
        rows = rows_where(spill, [source.number for source in sources if source.config.table is table])
        found = group_rows(numbers["content"][rows], rows, len(numbers))
        searches[table] = num_contents, Search(f"contents.{table.value}", spill, found, "contents", near, executor)
        contents[rows] = found.of_row[rows] + num_contents
        by_id = group_rows(numbers["id"][rows], rows, len(numbers))
        ids[rows] = by_id.of_row[rows] + num_ids
        num_contents += len(found.first)
        num_ids += len(by_id.first)
        first_contents.append(found.first)
    return Known(
        prompts=prompts,
        near_prompts=search.neighbours(1),
        contents=Groups(of_row=contents, first=np.concatenate(first_contents)),
        near_contents={table: (first, own.neighbours(len(FIELDS[table]))) for table, (first, own) in searches.items()},
        ids=Groups(of_row=ids, first=np.zeros(num_ids, np.int64)),
    )
