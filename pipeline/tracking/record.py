"""`metrics.jsonl`: the record of a run, one JSON object a line, in the order of its steps."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError

# JSON has no numbers for these; W&B serves the same texts.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> int | float | str | None:
    """Return a number as JSON can hold it; text stays as it is."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its non-finite values as floats."""
    return {name: NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in row.items()}


def complete_lines(data: bytes) -> list[bytes]:
    """Return the lines that were written to their end; a crash leaves a part of one behind."""
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


class Record:
    """Appends rows, and drops those that a resumed run computes again."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; `path` need not exist."""
        self.path = path
        self._last_step: int | None = None  # of what this process appended

    def append(self, row: Mapping[str, float | int | str | None], step: int) -> None:
        """Write one row and flush it.

        Raises:
            ValueError: The row names `step`, or goes back in steps without a cut.
            StorageError: The disk did not take the row.
        """
        if "step" in row:
            raise ValueError("A row of metrics must not name `step`: it is given beside the row")
        if self._last_step is None:
            self.cut(step - 1)  # whatever an earlier attempt wrote from here on is computed again
        elif step < self._last_step:
            raise ValueError(f"Step {step} after step {self._last_step}: cut the record before going back")
        line = json.dumps({"step": step, **{name: encode(value) for name, value in row.items()}})
        try:
            with self.path.open("ab") as file:
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise StorageError(f"Cannot append to {self.path}: {error.strerror}. Free some, run again.") from error
        self._last_step = step

    def cut(self, step: int) -> int:
        """Drop the rows beyond `step` and a half-written last line; return how many rows went."""
        self._last_step = step
        if not self.path.exists():
            return 0
        lines = complete_lines(self.path.read_bytes())
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        if len(kept) == len(lines) and sum(map(len, lines)) == self.path.stat().st_size:
            return 0
        # A file beside it and a rename: a crash in the middle leaves the old record, which is cut again.
        shorter = self.path.with_suffix(".cut")
        with shorter.open("wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        shorter.replace(self.path)
        return len(lines) - len(kept)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every complete row, as it is written."""
        if self.path.exists():
            for line in complete_lines(self.path.read_bytes()):
                yield json.loads(line)
