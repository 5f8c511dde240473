"""A sealed report, as the terminal shows it. Imports little, because an unchanged rerun ends with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.pages.numbers import counted, metric_text, verdict

FORMAT_VERSION = 2


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
    """Return the report as lines for a terminal: the headline, then one table per suite."""
    lines = [report["headline"]["text"], ""]
    for suite in report["suites"]:
        items = f"{suite['compared']:,} of {counted(suite['items'], 'item')}"
        lines.append(f"{suite['name']} ({items}; {report['confidence']:.0%} intervals)")
        entries = [entry for entry in report["metrics"] if entry["suite"] == suite["name"]]
        rows = [
            ["metric", *report["policies"], *(f"{other} - {report['baseline']}" for other in report["policies"][1:])]
        ]
        rows += [_summary_row(name, entries) for name in dict.fromkeys(entry["metric"] for entry in entries)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.append("")
    return lines[:-1]


def _summary_row(metric: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    own = [entry for entry in entries if entry["metric"] == metric]
    absolute = [metric_text(entry) for entry in own if entry["baseline"] is None]
    differences = [f"{metric_text(entry)} {verdict(entry)}" for entry in own if entry["baseline"] is not None]
    return [metric, *absolute, *differences]
