"""One row as a reader found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.data.rows import BadRowError


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row as it was found: its fields, or the problem that kept it from being read."""

    line: int  # of the row's first line, from 1; in Parquet and hub data sets the number of the row
    offset: int | None  # bytes from the start of the (decompressed) file; None where rows have no place of their own
    raw: bytes
    fields: dict[str, Any] | None = None
    problem: BadRowError | None = None
    member: str | None = None  # of a zip archive, in which line and offset are meant
