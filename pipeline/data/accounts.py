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
    guards: int = 0  # rows that keep others from being trained on, and go into no table
    quarantined: dict[str, int] = field(default_factory=dict)  # by reason
    filtered: dict[str, int] = field(default_factory=dict)  # by the filter that dropped them
    duplicates: int = 0
    near_duplicates: int = 0
    bridges_splits: int = 0  # their prompt is near to prompts of two splits
    leaks: int = 0  # would have been trained on, and they hold an evaluation prompt
    over_limit: int = 0  # behind the last row that `limit` allows; not looked at
    over_cap: int = 0  # train rows that `max_rows` or a `weight` below 1 leaves out
    first_bad: list[str] = field(default_factory=list)

    @property
    def num_quarantined(self) -> int:
        """Rows set aside, whatever the reason."""
        return sum(self.quarantined.values())

    def set_aside(self, record: Record, problem: BadRowError) -> dict[str, Any]:
        """Count a bad row and return what is needed to find and mend it, for quarantine.jsonl."""
        entry = describe_bad_row(self.source, self.path, record, problem)
        self.count_bad_row(entry)
        return entry

    def count_bad_row(self, entry: dict[str, Any]) -> None:
        """Count a bad row that is described already."""
        self.quarantined[entry["reason"]] = self.quarantined.get(entry["reason"], 0) + 1
        if len(self.first_bad) < NUM_NAMED:
            place = self.path if entry["member"] is None else f"{self.path}[{entry['member']!r}]"
            self.first_bad.append(f"  {place}:{entry['line']}  {entry['reason']}  {entry['detail']}")

    def close(self) -> None:
        """Check that no row was lost.

        Raises:
            DataError: The columns do not add up to what was read, or nothing was.
        """
        kept = self.accepted + self.guards + self.num_quarantined + sum(self.filtered.values())
        kept += sum(count for _, count in self._left_out())
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
        parts = [f"{self.guards} to guard against" if self.guards else f"{self.accepted} accepted"]
        parts += [f"{count} {reason}" for reason, count in sorted(self.quarantined.items())]
        parts += [f"{count} dropped by {name}" for name, count in sorted(self.filtered.items())]
        parts += [f"{count} {name}" for name, count in self._left_out() if count]
        return f"{self.source} ({self.table}): {self.read} read = {' + '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """For counts.json. The path is left out, because it differs between machines."""
        return {
            "source": self.source,
            "table": self.table,
            "protected": self.protected,
            "read": self.read,
            "accepted": self.accepted,
            "guards": self.guards,
            "quarantined": dict(sorted(self.quarantined.items())),
            "filtered": dict(sorted(self.filtered.items())),
            "duplicates": self.duplicates,
            "near_duplicates": self.near_duplicates,
            "bridges_splits": self.bridges_splits,
            "leaks": self.leaks,
            "over_limit": self.over_limit,
            "over_cap": self.over_cap,
        }

    def _left_out(self) -> list[tuple[str, int]]:
        return [
            ("duplicates", self.duplicates),
            ("near-duplicates", self.near_duplicates),
            ("near two splits", self.bridges_splits),
            ("leaks", self.leaks),
            ("over the limit", self.over_limit),
            ("over the cap", self.over_cap),
        ]


def describe_bad_row(source: str, path: str, record: Record, problem: BadRowError) -> dict[str, Any]:
    """Return what is needed to find and mend a bad row, for quarantine.jsonl."""
    return {
        "source": source,
        "path": path,
        "member": record.member,
        "line": record.line,
        "offset": record.offset,
        "reason": problem.reason.value,
        "detail": problem.detail,
        "num_bytes": len(record.raw),
        "raw_base64": base64.b64encode(record.raw[:RAW_BYTES_KEPT]).decode("ascii"),
    }
