"""What a report says in words: who is better, by how much, and how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.pages.numbers import counted, estimate_text, interval_text, metric_text, verdict

METRIC_WORDS = {"all_checks": "items that pass all checks", "finished": "finished completions"}


def metric_words(metric: str) -> str:
    """Return a metric's name as words in a sentence."""
    return METRIC_WORDS.get(metric, metric.replace("_", " "))


def headline(
    metrics: Sequence[Mapping[str, Any]], primary: Mapping[str, str], policies: Sequence[str]
) -> dict[str, Any]:
    """Return the verdict on each policy's primary metrics, and one sentence per policy.

    Args:
        metrics: The report's metrics.
        primary: Suite -> its primary metric.
        policies: The baseline, then the others.
    """
    baseline, *others = policies
    entries = [entry for entry in metrics if primary[entry["suite"]] == entry["metric"]]
    if not others:
        stated = "; ".join(f"{_subject(entry)} {_stated(entry)}" for entry in entries)
        sentences = [f"{baseline}: {stated}."]
        return {"text": sentences[0], "sentences": sentences, "verdicts": []}
    sentences, verdicts = [], []
    for policy in others:
        differences = [entry for entry in entries if entry["policy"] == policy and entry["baseline"] == baseline]
        sentences.append("; ".join(_clause(entry, index) for index, entry in enumerate(differences)) + ".")
        verdicts += [
            {key: entry[key] for key in ("suite", "metric", "policy", "baseline")} | {"verdict": verdict(entry)}
            for entry in differences
        ]
    return {"text": " ".join(sentences), "sentences": sentences, "verdicts": verdicts}


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


def _clause(entry: Mapping[str, Any], index: int) -> str:
    """Write one verdict; the policies are named in the first clause of a sentence only."""
    names = (f"{entry['policy']} ", f" {entry['baseline']}") if index == 0 else ("it ", f" {entry['baseline']}")
    words = {
        "better": f"{names[0]}beats{names[1]} on {_subject(entry)}: {_stated(entry)}",
        "worse": f"{names[0]}is worse than{names[1]} on {_subject(entry)}: {_stated(entry)}",
        "different": f"{names[0]}differs from{names[1]} on {_subject(entry)}: {_stated(entry)}",
        "no clear difference": f"{names[0]}cannot be told from{names[1]} on {_subject(entry)}: {_stated(entry)}",
        "not estimable": f"{names[0]}cannot be compared with{names[1]} on {_subject(entry)}: "
        f"{estimate_text(entry)}, {entry['method']}",
    }
    return words[verdict(entry)]


def _subject(entry: Mapping[str, Any]) -> str:
    return f"{metric_words(entry['metric'])} ({entry['suite']})"


def _stated(entry: Mapping[str, Any]) -> str:
    return f"{estimate_text(entry)} {interval_text(entry)}, {counted(entry['n'], 'item')}"
