"""What a report says in words: who is better, by how much, and how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.pages.numbers import counted, estimate_text, interval_text, verdict

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
