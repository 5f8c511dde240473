"""A report as tables for the tracking server: metrics, win rates, gates, and what policies wrote side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.tracking.run import Cell, Run

METRICS = (
    *("suite", "metric", "policy", "baseline", "n", "clusters"),
    *("estimate", "low", "high", "unit", "higher_is_better", "method"),
)
WIN_RATES = (
    *("suite", "judge", "qualified", "policy", "opponent", "n", "clusters", "estimate", "low", "high", "method"),
    *("consistency", "first_slot_bias", "length_ratio", "prefers_longer"),
)
GATES = (
    *("name", "outcome", "hard", "kind", "suite", "metric", "policy", "baseline", "margin", "bound"),
    *("estimate", "low", "high", "n", "minimum_detectable", "items_needed", "reason"),
)
EXAMPLES = ("suite", "id", "change", "prompt", "policy", "completion", "passed", "failed")


def log_tables(run: Run, report: Mapping[str, Any]) -> None:
    """Mirror the tables that have rows."""
    tables = {"metrics": METRICS, "win_rates": WIN_RATES, "gates": GATES}
    for name, columns in tables.items():
        if report[name]:
            run.table(name, columns, [[entry[column] for column in columns] for entry in report[name]])
    rows = [row for example in report["examples"] for row in _example_rows(example)]
    if rows:
        run.table("examples", EXAMPLES, rows)


def _example_rows(example: Mapping[str, Any]) -> list[list[Cell]]:
    """Return one row per policy; an item of a likelihood suite has no completion of its own."""
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in example["prompt"])
    rows: list[list[Cell]] = []
    for answer in example["answers"]:
        checks = answer.get("checks", [])
        passed, failed = (
            ", ".join(check["name"] for check in checks if check["passed"] is wanted) for wanted in (True, False)
        )
        told: list[Cell] = [answer["policy"], answer.get("completion"), passed, failed]
        rows.append([example["suite"], example["id"], example["change"], prompt, *told])
    return rows
