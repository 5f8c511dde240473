"""A comparison as lines for a terminal and as a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.pages.comparison_view import leading_metrics, metric_rows, short_names, shown_objectives, varying
from pipeline.pages.numbers import counted, estimate_text, metric_text, setting_text, verdict

SHOWN_ROWS = 20  # in the terminal; the files have all
SHOWN_PARAMETERS = 4
COST_COLUMNS = ("stage_seconds", "training_seconds", "tokens", "peak_memory_gb", "tokens_per_second")

Comparison = Mapping[str, Any]


def terminal_lines(comparison: Comparison) -> list[str]:
    """Return what was compared, best first, what it is worth, and what was left out with the reason."""
    ranking, found = comparison["ranking"], comparison["candidates"]
    lines = [
        f"{counted(len(comparison['runs']), 'run')}; ranked by {ranking['by']}: {len(ranking['order'])}; baseline "
        f"#{comparison['baseline']}; {comparison['confidence']:.0%} intervals",
        *_config_lines(comparison), comparison["lineage"]["sentence"], "", *_table(comparison), "",
        *ranking["sentences"], *_importance_lines(comparison),
    ]  # fmt: skip
    told = [f"  {line}" for line in comparison["refusals"]]
    told += [
        f"  {run['name']}: {run['status']}{': ' + run['reason'] if run['reason'] else ''}"
        for index, run in enumerate(comparison["runs"])
        if run["status"] != "finished" and all(entry["run"] != index for entry in found)
    ]
    told += [f"  {note}" for note in comparison["notes"]]
    twins = [f"  #{entry['key']} is #{entry['twin_of']} once more" for entry in found if entry["twin_of"] is not None]
    left_out = [*told, *twins]
    return [*lines, *(["", "not compared, or only in part:", *left_out] if left_out else [])]


def _config_lines(comparison: Comparison) -> list[str]:
    keys, idle = comparison["config"]["keys"], comparison["config"]["idle"]
    lines = [f"they differ in {', '.join(keys)}" if keys else "no key that affects results differs"]
    if idle:
        lines.append(f"and in {counted(len(idle), 'key')} that affect{'s' if len(idle) == 1 else ''} no result")
    return lines


def _importance_lines(comparison: Comparison) -> list[str]:
    importance = comparison["importance"]
    if not importance["entries"]:
        return [f"Importance of parameters: none claimed, {importance['reason']}."] if comparison["parameters"] else []
    told = ", ".join(
        f"{entry['parameter']} {entry['share']:.0%}{'' if entry['p_holm'] <= 0.05 else ' (may be chance)'}"
        for entry in importance["entries"]
    )
    return [f"Share of the order that one parameter alone explains, {importance['trials']}: {told}."]


def _table(comparison: Comparison) -> list[str]:
    order, found = comparison["ranking"]["order"], {entry["key"]: entry for entry in comparison["candidates"]}
    shown = order[:SHOWN_ROWS]
    if comparison["baseline"] in order and comparison["baseline"] not in shown:
        shown = [*shown, comparison["baseline"]]
    parameters = varying(comparison)[:SHOWN_PARAMETERS]
    short = short_names(list(comparison["parameters"]))
    metrics = leading_metrics(comparison)
    header = ["rank", "#", "run", "policy", *(short[name] for name in parameters)]
    header += [part for suite, name in metrics for part in (f"{suite}/{name}", f"minus #{comparison['baseline']}")]
    objectives, front = shown_objectives(comparison), comparison["ranking"]["front"]
    header += [*objectives, *([] if front is None else ["front"])]
    rows, by_key = [header], metric_rows(comparison)
    for key in shown:
        entry = found[key]
        row = [str(order.index(key) + 1), key, comparison["runs"][entry["run"]]["name"], entry["policy"]]
        row += [setting_text(comparison["parameters"][name].get(key)) for name in parameters]
        for suite, name in metrics:
            row += _cells(comparison, by_key[suite, name, key], key)
        values = comparison["runs"][entry["run"]]["objectives"]
        row += [setting_text(values[name]) if name in values else "–" for name in objectives]
        row += [] if front is None else ["Pareto" if key in front else ""]
        rows.append(row)
    more = [f"  … {len(order) - len(shown)} more in the files"] if len(order) > len(shown) else []
    return [*_aligned(rows), *more]


def _cells(comparison: Comparison, rows: Sequence[Any], key: str) -> list[str]:
    own, difference = rows
    if own is None:
        return ["–", ""]
    if difference is None:
        return [metric_text(own), "baseline" if key == comparison["baseline"] else ""]
    return [estimate_text(own), f"{metric_text(difference)} {verdict(difference)}"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def csv_text(comparison: Comparison) -> str:
    """Return one line per run or policy: rank, configuration, every metric with its intervals, and costs."""
    found, order = comparison["candidates"], comparison["ranking"]["order"]
    metrics = list(dict.fromkeys((row["suite"], row["metric"]) for row in comparison["metrics"]))
    table = {
        (row["suite"], row["metric"], row["policy"], row["baseline"] is None): row for row in comparison["metrics"]
    }
    objectives = list(dict.fromkeys(name for run in comparison["runs"] for name in run["objectives"]))
    keys = list(comparison["config"]["keys"])
    front = comparison["ranking"]["front"]
    header = ["rank", "number", "run", "policy", "status", "reason", "place", *keys, *objectives]
    header += [] if front is None else ["pareto front"]
    for suite, name in metrics:
        header += [
            f"{suite}/{name}{end}" for end in ("", " low", " high", " minus baseline", " minus low", " minus high")
        ]
    header += ["corrected low", "corrected high", *COST_COLUMNS]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header)
    for index, run in enumerate(comparison["runs"]):
        own = [entry for entry in found if entry["run"] == index] or [None]
        for entry in own:
            key = entry["key"] if entry else None
            row: list[Any] = [order.index(key) + 1 if key in order else None, key, run["name"]]
            refused = "; ".join(dict.fromkeys(entry["refused"].values())) if entry else ""
            row += [entry["policy"] if entry else None, run["status"], run["reason"] or refused, run["place"]]
            row += [setting_text(comparison["config"]["keys"][name][index]) for name in keys]
            row += [run["objectives"].get(name) for name in objectives]
            row += [] if front is None else [("yes" if key in front else "no") if key else None]
            for suite, name in metrics:
                for absolute in (True, False):
                    found_row = table.get((suite, name, key, absolute), {})
                    row += [found_row.get(column) for column in ("estimate", "low", "high")]
            row += [*comparison["ranking"]["corrected"].get(key, (None, None))]
            row += [comparison["costs"].get(key, {}).get(name) for name in COST_COLUMNS]
            writer.writerow(row)
    return lines.getvalue()
