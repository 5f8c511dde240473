"""A report as tables for the tracking server: metrics, win rates, gates, and what policies wrote side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.tracking.run import Cell, Run

METRICS = (
    *("suite", "metric", "policy", "baseline", "n", "clusters"),
    *("estimate", "low", "high", "unit", "higher_is_better", "method", "p", "p_test", "p_holm"),
)
WIN_RATES = (
    *("suite", "judge", "qualified", "policy", "opponent", "n", "clusters", "estimate", "low", "high", "method"),
    *("consistency", "first_slot_bias", "length_ratio", "prefers_longer", "p", "p_test"),
)
GATES = (
    *("name", "outcome", "hard", "kind", "suite", "metric", "policy", "baseline", "margin", "bound"),
    *("estimate", "low", "high", "n", "minimum_detectable", "items_needed", "reason", "waiver"),
)
RANKINGS = ("suite", "judge", "qualified", "policy", "estimate", "low", "high")
EXAMPLES = ("suite", "id", "change", "prompt", "policy", "completion", "passed", "failed")


def log_tables(run: Run, report: Mapping[str, Any]) -> None:
    """Mirror the tables that have rows."""
    gates = [{**gate, "waiver": gate["waiver"]["reason"] if gate["waiver"] else None} for gate in report["gates"]]
    ranked = [{**ranking, **entry} for ranking in report["rankings"] for entry in ranking["policies"]]
    tables = {
        "metrics": (METRICS, report["metrics"]),
        "win_rates": (WIN_RATES, report["win_rates"]),
        "rankings": (RANKINGS, ranked),
        "gates": (GATES, gates),
    }
    for name, (columns, entries) in tables.items():
        if entries:
            run.table(name, columns, [[entry[column] for column in columns] for entry in entries])
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
