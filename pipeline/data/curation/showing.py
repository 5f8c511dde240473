"""What is shown of a data set beside its counts: how long its texts are, their licences, and rows of every kind."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.data import CurateConfig, TableName
from pipeline.data.curation.filtering import EXAMPLE_KINDS, NUM_EXAMPLES, shown_text
from pipeline.data.curation.placement import Fate, LeakRule, Placed
from pipeline.data.curation.plan import FIELDS, TABLES
from pipeline.data.curation.spill import Spill

NUM_ROWS_SHOWN = 5  # of each table


def rows_by_table(spill: Spill, kept: npt.NDArray[np.int64]) -> dict[TableName, npt.NDArray[np.int64]]:
    """Part rows by their table."""
    table_of = np.array([TABLES.index(shard.source.config.table) for shard in spill.shards])
    tables = table_of[spill.numbers["shard"][kept]] if len(kept) else kept
    return {table: kept[tables == number] for number, table in enumerate(TABLES)}


def lengths(spill: Spill, kept: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Count the characters of every field, in bins whose edges double."""
    found: dict[str, Any] = {}
    for table, rows in rows_by_table(spill, kept).items():
        for number, name in enumerate(FIELDS[table] if len(rows) else ()):
            characters = spill.numbers["characters"][rows, number]
            first, last = (int(np.log2(max(int(value), 1))) for value in (characters.min(), characters.max()))
            edges = [0 if power < 0 else 2**power for power in range(first if characters.min() else -1, last + 2)]
            found.setdefault(table.value, {})[name] = {
                "edges": edges,
                "counts": np.histogram(characters, edges)[0].tolist(),
                "median": float(np.median(characters)),
                "p95": float(np.percentile(characters, 95)),
                "max": int(characters.max()),
            }
    return found


def licences(spill: Spill, kept: npt.NDArray[np.int64], times: npt.NDArray[np.int16]) -> dict[str, int]:
    """Count the rows that are put in, copies included, by licence."""
    found: Counter[str] = Counter()
    for result in spill.results:
        rows = spill.rows_of(result.number)
        own = kept[np.searchsorted(kept, rows.start) : np.searchsorted(kept, rows.stop)]
        sums = np.bincount(spill.numbers["licence"][own], times[own], len(result.licences))
        for name, count in zip(result.licences, sums.astype(int).tolist(), strict=True):
            found[name or "none"] += count
    return {name: count for name, count in sorted(found.items()) if count}


def examples(spill: Spill, config: CurateConfig, placed: Placed) -> dict[str, Any]:
    """Return what examples.json says: the first rows of each kind."""
    fates = np.frombuffer(placed.fate, np.int8)
    near = np.flatnonzero(fates == Fate.near_duplicate)[:NUM_EXAMPLES].tolist()
    leaks = np.flatnonzero(fates == Fate.leak)[:NUM_EXAMPLES].tolist()
    rows = rows_by_table(spill, np.flatnonzero(fates == Fate.kept))
    return {
        "filters": _filter_examples(spill, config, placed),
        "near_duplicates": [_near_example(spill, row, placed) for row in near],
        "leaks": [_leak_example(spill, row, placed) for row in leaks],
        "rows": {
            table.value: [_row_example(spill, row) for row in found[:NUM_ROWS_SHOWN].tolist()]
            for table, found in rows.items()
            if len(found)
        },
    }


def _filter_examples(spill: Spill, config: CurateConfig, placed: Placed) -> dict[str, Any]:
    found: dict[str, dict[str, list[Any]]] = {}
    for place, entry in enumerate(config.filters):
        kinds = found.setdefault(entry.name, {kind: [] for kind in EXAMPLE_KINDS})
        for kind, shown in kinds.items():
            shown += [
                example
                for shard, result in zip(spill.shards, spill.results, strict=True)
                for ordinal, example in result.examples[kind][place]
                if placed.is_looked_at(shard.source.number, shard.number, ordinal)
            ]
            del shown[NUM_EXAMPLES:]
    return found


def _near_example(spill: Spill, row: int, placed: Placed) -> dict[str, Any]:
    kept, dropped = spill.row(placed.of[row]), spill.row(row)
    return {
        "kept": kept["id"],
        "dropped": dropped["id"],
        "similarity": round(placed.similarity[row], 4),
        "kept_text": shown_text(kept),
        "dropped_text": shown_text(dropped),
    }


def _leak_example(spill: Spill, row: int, placed: Placed) -> dict[str, Any]:
    values = spill.row(row)
    return {
        "id": values["id"],
        "source": values["source"],
        "rule": LeakRule(placed.rule[row]).name,
        "evaluation_id": spill.id_of(placed.of[row]),
        "text": shown_text(values),
    }


def _row_example(spill: Spill, row: int) -> dict[str, Any]:
    values = spill.row(row)
    return {"id": values["id"], "source": values["source"], "text": shown_text(values)}
