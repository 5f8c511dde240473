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
    *("consistency", "consistency_low", "consistency_high"),
    *("first_slot_bias", "first_slot_bias_low", "first_slot_bias_high"),
    *("prefers_longer", "prefers_longer_low", "prefers_longer_high", "length_ratio", "p", "p_test"),
)
JUDGES = ("judge", "suite", "qualified", "measure", "estimate", "low", "high", "n")
VARIANTS = (
    *("variant", "policy", "suite", "reference", "error", "difference", "difference_low", "difference_high"),
    *("changed_answers", "flips"),
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
        "win_rates": (WIN_RATES, [_flat(entry) for entry in report["win_rates"]]),
        "rankings": (RANKINGS, ranked),
        "judges": (JUDGES, [row for judge in report["judges"] for row in _measured(judge)]),
        "variants": (VARIANTS, _variants(report["costs"])),
        "gates": (GATES, gates),
    }
    for name, (columns, entries) in tables.items():
        if entries:
            run.table(name, columns, [[entry[column] for column in columns] for entry in entries])
    rows = [row for example in report["examples"] for row in _example_rows(example)]
    if rows:
        run.table("examples", EXAMPLES, rows)


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose estimates with limits are columns of their own; an absent estimate is empty."""
    found: dict[str, Any] = {}
    for name, value in entry.items():
        estimate = value if isinstance(value, Mapping) and "estimate" in value else {"estimate": value}
        found |= {name: estimate["estimate"], f"{name}_low": estimate.get("low"), f"{name}_high": estimate.get("high")}
    return found | {key: entry[key] for key in ("low", "high") if key in entry}


def _measured(judge: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per measure of a judge's scorecard."""
    same = {"judge": judge["name"], "suite": judge["suite"], "qualified": judge["qualified"]}
    return [{**same, "measure": name, **value} for name, value in judge["card"].items()]


def _variants(costs: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return one row per way to run the policy; times are of one machine and no part of a report."""
    if costs is None:
        return []
    same = {key: costs[key] for key in ("policy", "suite", "reference")}
    return [{**same, "variant": entry["name"], **_flat(entry)} for entry in costs["variants"]]


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
