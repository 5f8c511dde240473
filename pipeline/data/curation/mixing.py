"""How often each train row counts: caps and weights of its source, decided by the hash of its content."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.config.data import DataConfig
from pipeline.data.curation.placement import TRAIN, Fate, Placed
from pipeline.data.curation.spill import Spill
from pipeline.data.curation.words import mix
from pipeline.data.sources import source_names


def mix_sources(spill: Spill, placed: Placed, data: DataConfig, seed: int) -> tuple[Any, list[dict[str, Any]]]:
    """Leave out the train rows over a cap, and repeat those of heavy sources.

    First `max_rows` keeps the rows with the lowest hashes. Then a row is put in `floor(weight)` times, and once more
    where another hash of it lies below the fraction that is left.

    Returns:
        How often each row is put in, and what was done, by source.
    """
    kept = np.frombuffer(placed.fate, np.int8) == Fate.kept
    train = kept & (np.frombuffer(placed.split, np.int8) == TRAIN)
    times = kept.astype(np.int16)
    report, names = [], source_names(data)
    for origin, source in enumerate(data.sources):
        if source.weight == 1 and source.max_rows is None:
            continue
        rows = np.flatnonzero(train & (spill.numbers["origin"] == origin))
        chosen = rows
        if source.max_rows is not None:
            order = np.argsort(_hash(spill, rows, 1, seed), kind="stable")
            chosen = rows[order[: source.max_rows]]
        whole, fraction = divmod(source.weight, 1)
        more = _hash(spill, chosen, 2, seed) / 2**64 < fraction
        times[rows] = 0
        times[chosen] = int(whole) + more
        report.append(
            {
                "source": names[origin],
                "weight": source.weight,
                "max_rows": source.max_rows,
                "before": len(rows),
                "after": int(times[rows].sum()),
            }
        )
    for row in np.flatnonzero(kept & (times == 0)).tolist():
        placed.fate[row] = Fate.over_cap
    return times, report


def _hash(spill: Spill, rows: Any, part: int, seed: int) -> Any:
    """Return a part of the rows' content hash that nothing else is decided by, mixed with the seed."""
    salt = mix(np.array([seed], np.uint64))
    return mix(spill.numbers["content"][rows, part] ^ salt)
