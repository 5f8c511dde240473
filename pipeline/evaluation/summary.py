"""A sealed report, as the terminal shows it. Imports little, because an unchanged rerun ends with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, GateFailedError, GateUndecidedError
from pipeline.pages.gate_text import claim_text, gate_lines
from pipeline.pages.numbers import WIN_RATE, counted, metric_text, rating_text, share_text, summed_words, verdict

FORMAT_VERSION = 4


def read_report(path: Path) -> dict[str, Any]:
    """Read a ``report.json``.

    Raises:
        ArtifactError: It is not JSON, or of another format version.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is no report: {error}. Run the evaluation again.") from error
    version = report.get("format_version") if isinstance(report, dict) else None
    if not isinstance(report, dict) or version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} is a report of format version {version!r}, and this program reads {FORMAT_VERSION}. "
            "Run the evaluation again."
        )
    return report


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report as lines for a terminal: tables, win rates and gates, and at the end, in sight, the answer."""
    lines: list[str] = []
    for suite in report["suites"]:
        items = f"{suite['compared']:,} of {counted(suite['items'], 'item')}"
        lines.append(f"{suite['name']} ({items}; {report['confidence']:.0%} intervals)")
        lines += [f"  {note}" for note in suite["notes"]]
        entries = [
            entry for entry in report["metrics"] if entry["suite"] == suite["name"] and entry["unit"] != WIN_RATE
        ]
        rows = [
            ["metric", *report["policies"], *(f"{other} - {report['baseline']}" for other in report["policies"][1:])]
        ]
        rows += [_summary_row(name, entries) for name in dict.fromkeys(entry["metric"] for entry in entries)]
        lines += [*_aligned(rows), ""]
    if report["win_rates"]:
        lines += [f"win rates ({report['confidence']:.0%} intervals)", *_aligned(_win_rates(report)), ""]
    if report["rankings"]:
        lines += [f"ratings, 1000 on average ({report['confidence']:.0%} intervals)", *_aligned(_rankings(report)), ""]
    for card in report["reward_models"]:
        lines += [f"audit of {card['artifact']}", *_aligned(_audit(card)), ""]
    if report["gates"]:
        lines += [*gate_lines(report["gates"]), ""]
    return [*lines, *_conclusion(report)]


def _conclusion(report: Mapping[str, Any]) -> list[str]:
    """Return every policy in words, whether the newest is better, and which of several is the best."""
    answer, standing = report["headline"]["answer"], report["standing"]
    told = [report["headline"]["text"]]
    if answer:
        told.append(f"{answer['text']}.")
    if standing:
        told.append(" ".join([f"{standing['text']}.", *standing["sentences"]]))
    return told


def require_gates(report: Mapping[str, Any]) -> None:
    """End with an exit status of its own where a hard gate does not pass and nobody waived it.

    Raises:
        GateFailedError: A hard gate failed.
        GateUndecidedError: None failed, and one is inconclusive.
    """
    open_gates = [
        gate for gate in report["gates"] if gate["hard"] and gate["outcome"] != "PASS" and gate["waiver"] is None
    ]
    failed = [gate for gate in open_gates if gate["outcome"] == "FAIL"]
    if failed:
        raise GateFailedError(_told(failed, "failed"))
    if open_gates:
        raise GateUndecidedError(_told(open_gates, "inconclusive"))


def _told(gates: Sequence[Mapping[str, Any]], outcome: str) -> str:
    listed = "\n".join(f"  {gate['name']}: {claim_text(gate)}: {gate['reason']}." for gate in gates)
    return f"{counted(len(gates), 'hard gate')} {outcome}; everything was made and sealed all the same.\n{listed}"


def _win_rates(report: Mapping[str, Any]) -> list[list[str]]:
    rows = [["suite", "judge", "policy", "opponent", "wins", "length-controlled", "corrected", "with votes",
             "pairs", "without a verdict"]]  # fmt: skip
    for entry in report["win_rates"]:
        names = ("length_controlled", "corrected", "with_votes")
        others = [share_text(entry[name]) if entry[name] else "-" for name in names]
        cells = [share_text(entry), *others, f"{entry['n']:,}", summed_words(entry["unscored"])]
        rows.append([entry["suite"], _judge(entry), entry["policy"], entry["opponent"], *cells])
    return rows


def _rankings(report: Mapping[str, Any]) -> list[list[str]]:
    rows = [["suite", "judge", "policy", "rating"]]
    for ranking in report["rankings"]:
        for entry in ranking["policies"]:
            rows.append([ranking["suite"], _judge(ranking), entry["policy"], rating_text(entry)])
    return rows


def _audit(card: Mapping[str, Any]) -> list[list[str]]:
    return [[gate["outcome"], gate["name"], gate["reason"]] for gate in card["gates"]]


def _judge(entry: Mapping[str, Any]) -> str:
    return str(entry["judge"]) if entry["qualified"] else f"{entry['judge']} (not qualified)"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _summary_row(metric: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    own = [entry for entry in entries if entry["metric"] == metric]
    absolute = [metric_text(entry) for entry in own if entry["baseline"] is None]
    differences = [f"{metric_text(entry)} {verdict(entry)}" for entry in own if entry["baseline"] is not None]
    return [metric, *absolute, *differences]
