"""Filters applied to rows one by one, with what they do counted and the first rows of each kind kept to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config.data import CurateConfig, FilterConfig, TableName
from pipeline.data.filters.registry import Drop, build_filter
from pipeline.data.rows import Comparison, Demonstration, Row, Unpaired
from pipeline.errors import ConfigError

NUM_EXAMPLES = 10  # of each kind
MAX_CHARACTERS = 800  # of a text that is shown
MAX_FILTERS = 64  # whose changes are remembered, one bit each
EXAMPLE_KINDS = ("kept", "dropped", "changed")


def filters_of(table: TableName, config: CurateConfig) -> list[tuple[int, FilterConfig]]:
    """Return the filters that a table's rows pass, with their places in `curate.filters`."""
    return [(place, entry) for place, entry in enumerate(config.filters) if not entry.tables or table in entry.tables]


def check_filters(config: CurateConfig) -> None:
    """Build every filter once, so that a mistake is told before anything is read.

    Raises:
        ConfigError: A filter is unknown, or its parameters are wrong.
    """
    if len(config.filters) > MAX_FILTERS:
        raise ConfigError(f"curate.filters names {len(config.filters)} filters; at most {MAX_FILTERS} are applied.")
    for place, entry in enumerate(config.filters):
        build_filter(entry.name, entry.params, where=f"curate.filters[{place}]")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that a filter dropped."""

    id: str
    place: int  # of the filter in `curate.filters`
    drop: Drop


class Filtering:
    """The filters of one table."""

    def __init__(self, table: TableName, config: CurateConfig) -> None:
        """Build them."""
        self._filters = [
            (place, build_filter(entry.name, entry.params, where=f"curate.filters[{place}]"))
            for place, entry in filters_of(table, config)
        ]
        self._masking = {place for place, entry in filters_of(table, config) if entry.params.get("action") == "mask"}
        self.examples: dict[str, list[list[tuple[int, dict[str, Any]]]]] = {
            kind: [[] for _ in config.filters] for kind in EXAMPLE_KINDS
        }

    def apply(self, row: Row, ordinal: int) -> tuple[Row | Dropped, int]:
        """Pass a row through the filters in order.

        Args:
            row: The row.
            ordinal: Of its record.

        Returns:
            The row as it is then, or why it was dropped; and a bit for each filter that changed it.
        """
        changed = 0
        for place, check in self._filters:
            result = check(row)
            if isinstance(result, Drop):
                shown = shown_text(row if result.shown is None else result.shown)
                reason = {"reason": str(result.reason), "detail": result.detail}
                self._keep("dropped", place, ordinal, {"id": row.id, "source": row.source, **reason, "text": shown})
                return Dropped(row.id, place, result), changed
            if result is not row and result != row:
                changed |= 1 << place
                example = {"id": row.id, "after": shown_text(result)}
                if place not in self._masking:  # an example must not repeat what was masked
                    example["before"] = shown_text(row)
                self._keep("changed", place, ordinal, example)
            row = result
            if len(self.examples["kept"][place]) < NUM_EXAMPLES:
                self._keep("kept", place, ordinal, {"id": row.id, "text": shown_text(row)})
        return row, changed

    def _keep(self, kind: str, place: int, ordinal: int, example: dict[str, Any]) -> None:
        if len(self.examples[kind][place]) < NUM_EXAMPLES:
            self.examples[kind][place].append((ordinal, example))


def shown_text(row: Row | dict[str, Any]) -> str:
    """Write a row's turns one below the other, cut where they are long."""
    if isinstance(row, dict):
        turns = [row["prompt"], *(row[name] for name in ("completion", "chosen", "rejected") if name in row)]
    else:
        turns = [row.prompt]
        if isinstance(row, Demonstration | Unpaired):
            turns.append(row.completion)
        if isinstance(row, Comparison):
            turns += [row.chosen, row.rejected]
    text = "\n".join(f"{message['role']}: {message['content']}" for field in turns for message in field)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
