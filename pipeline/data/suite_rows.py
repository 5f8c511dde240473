"""A suite's own file, read strictly: every row, or an error that lists the bad ones."""

from __future__ import annotations

import itertools
from collections import Counter

from pipeline.config.data import SourceConfig
from pipeline.data.accounts import NUM_NAMED
from pipeline.data.building import build_row
from pipeline.data.columns import choose_columns
from pipeline.data.records import Record
from pipeline.data.rows import BadRowError, Comparison, Demonstration, Prompt, Reason
from pipeline.data.sources import read_source
from pipeline.errors import DataError


def read_suite_rows(source: SourceConfig, suite: str) -> list[Prompt | Demonstration]:
    """Read every row of a suite's own file, in its order.

    A row that is left out would make the score one of other items than its author counted, so none is.

    Args:
        source: The file and its columns.
        suite: Its name, which names the rows and the key in messages.

    Raises:
        ConfigError: `columns` names no field of such rows.
        DataError: The file cannot be read, a row is bad, or two rows share an id; the first bad rows are listed.
    """
    key = f"suite {suite}"
    records = list(read_source(source, key))
    fields = (record.fields for record in records if record.fields is not None)
    present = list(dict.fromkeys(itertools.chain.from_iterable(fields)))
    mapping = choose_columns(source, key, present)
    rows: list[Prompt | Demonstration] = []
    bad: list[str] = []
    seen: Counter[str] = Counter()
    for record in records:
        try:
            if record.problem is not None:
                raise record.problem
            row = build_row(record.fields or {}, mapping, source, suite)
            if isinstance(row, Comparison):
                raise TypeError(f"{key} reads {source.table}, which are no items")
            if seen[row.id]:
                raise BadRowError(Reason.id, f"the id {row.id!r} belongs to an earlier row, or the row is repeated")
            seen[row.id] += 1
            rows.append(row)
        except BadRowError as problem:
            bad.append(_place(source, record, problem))
    if bad:
        listed = "\n".join(bad[:NUM_NAMED])
        more = f"\n  and {len(bad) - NUM_NAMED} more" if len(bad) > NUM_NAMED else ""
        raise DataError(
            f"{key}: {len(bad)} of {len(records)} rows of {source.path} are bad:\n{listed}{more}\n"
            "Mend them: items of a suite are never left out in silence."
        )
    return rows


def _place(source: SourceConfig, record: Record, problem: BadRowError) -> str:
    return f"  {source.path}:{record.line}  {problem.reason.value}  {problem.detail}"
