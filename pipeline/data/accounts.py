"""The account of a source: every row that was read is in exactly one of its columns."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.records import Record
from pipeline.data.rows import BadRowError
from pipeline.errors import DataError

RAW_BYTES_KEPT = 4096
NUM_NAMED = 5  # bad rows that a message names


@dataclass(kw_only=True)
class SourceAccount:
    """What became of the rows of one source."""

    source: str  # as rows name it
    path: str  # as the configuration names it
    table: str
    protected: bool
    read: int = 0
    accepted: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)  # by reason
    duplicates: int = 0
    leaks: int = 0  # would have been trained on, and their prompt is a protected one
    over_limit: int = 0  # behind the last row that `limit` allows; not looked at
    first_bad: list[str] = field(default_factory=list)

    @property
    def num_quarantined(self) -> int:
        """Rows set aside, whatever the reason."""
        return sum(self.quarantined.values())

    def set_aside(self, record: Record, problem: BadRowError) -> dict[str, Any]:
        """Count a bad row and return what is needed to find and mend it, for quarantine.jsonl."""
        self.quarantined[problem.reason] = self.quarantined.get(problem.reason, 0) + 1
        if len(self.first_bad) < NUM_NAMED:
            self.first_bad.append(f"  {self.path}:{record.line}  {problem.reason}  {problem.detail}")
        return {
            "source": self.source,
            "path": self.path,
            "line": record.line,
            "offset": record.offset,
            "reason": problem.reason.value,
            "detail": problem.detail,
            "num_bytes": len(record.raw),
            "raw_base64": base64.b64encode(record.raw[:RAW_BYTES_KEPT]).decode("ascii"),
        }

    def close(self) -> None:
        """Check that no row was lost.

        Raises:
            DataError: The columns do not add up to what was read, or nothing was.
        """
        kept = self.accepted + self.num_quarantined + self.duplicates + self.leaks + self.over_limit
        if self.read != kept:
            raise DataError(
                f"{self.path}: {self.read} rows were read and {kept} are accounted for. "
                f"This is a fault of the pipeline, not of the file: {self.summary()}."
            )
        if not self.read:
            raise DataError(f"E_FORMAT: {self.path} holds no rows. Give a file with rows, or remove the source.")

    def refuse_if_bad(self, max_fraction: float, key: str) -> None:
        """Stop where too many rows are bad for the rest to be trusted.

        Args:
            max_fraction: Of the rows looked at.
            key: The configuration key that sets it.

        Raises:
            DataError: With the first bad rows.
        """
        looked_at = self.read - self.over_limit
        if self.num_quarantined <= max_fraction * looked_at:
            return
        first = "\n".join(self.first_bad)
        share = f"{self.num_quarantined / looked_at:.1%}"
        raise DataError(
            f"{self.num_quarantined} of {looked_at} rows of {self.path} are bad ({share}; "
            f"{key} is {max_fraction:.1%}):\n{first}\n"
            f"Mend them, or raise {key} to go on without them."
        )

    def summary(self) -> str:
        """Say it in one line, for the log."""
        parts = [f"{self.accepted} accepted"]
        parts += [f"{count} {reason}" for reason, count in sorted(self.quarantined.items())]
        named = (("duplicates", self.duplicates), ("leaks", self.leaks), ("over the limit", self.over_limit))
        parts += [f"{count} {name}" for name, count in named if count]
        return f"{self.source} ({self.table}): {self.read} read = {' + '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """For counts.json. The path is left out, because it differs between machines."""
        return {
            "source": self.source,
            "table": self.table,
            "protected": self.protected,
            "read": self.read,
            "accepted": self.accepted,
            "quarantined": dict(sorted(self.quarantined.items())),
            "duplicates": self.duplicates,
            "leaks": self.leaks,
            "over_limit": self.over_limit,
        }
