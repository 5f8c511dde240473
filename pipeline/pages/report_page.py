"""The page of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import Series, bar_chart, forest_plot, line_chart, verdict_class
from pipeline.pages.environment import page_environment
from pipeline.pages.numbers import cost_text, counted, estimate_text, interval_text, metric_text, verdict
from pipeline.pages.svg import colour

CHANGES = {
    "regressed": "Regressed: the baseline does better",
    "improved": "Improved",
    "unchanged": "Unchanged",
}


@dataclass(frozen=True, kw_only=True)
class StageCurves:
    """The rows of metrics that a training stage recorded."""

    stage: str
    artifact: str
    rows: Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class StageCosts:
    """What making an artifact took."""

    label: str
    artifact: str
    costs: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LineageEntry:
    """One artifact that the report rests on."""

    id: str
    kind: str
    stage: str
    parents: Sequence[tuple[str, str]]  # role, artifact id
    facts: Mapping[str, Any] = field(default_factory=dict)  # base digest, fingerprint, environment
    config: Mapping[str, Any] = field(default_factory=dict)


def report_page(
    report: Mapping[str, Any],
    *,
    title: str = "Evaluation report",
    curves: Sequence[StageCurves] = (),
    costs: Sequence[StageCosts] = (),
    lineage: Sequence[LineageEntry] = (),
) -> str:
    """Return the page as HTML; the same arguments give the same text."""
    environment = page_environment()
    environment.filters.update(
        verdict=verdict, verdict_class=verdict_class,
        estimate=estimate_text, interval=interval_text, metric_text=metric_text,
    )  # fmt: skip
    colours = {policy: index for index, policy in enumerate(report["policies"])}
    methods = list(dict.fromkeys(entry["method"] for entry in report["metrics"]))
    return environment.get_template("report.html").render(
        report=report,
        title=title,
        others=report["policies"][1:],
        cards=[_card(report, entry) for entry in report["headline"]["verdicts"]],
        suites=[_suite(report, suite, colours, methods) for suite in report["suites"]],
        methods=methods,
        colour={policy: colour(index) for policy, index in colours.items()},
        curves=[(entry, _curve_charts(entry.rows)) for entry in curves if entry.rows],
        costs=costs,
        lineage=lineage,
        changes=CHANGES,
        counted=counted,
        cost_text=cost_text,
    )


def _card(report: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a primary verdict with its difference and the two values behind it."""
    same = [m for m in report["metrics"] if m["suite"] == entry["suite"] and m["metric"] == entry["metric"]]
    absolute = {m["policy"]: m for m in same if m["baseline"] is None}
    difference = next(m for m in same if m["policy"] == entry["policy"] and m["baseline"] is not None)
    return {"difference": difference, "own": absolute[entry["policy"]], "base": absolute[entry["baseline"]]}


def _suite(
    report: Mapping[str, Any], suite: Mapping[str, Any], colours: Mapping[str, int], methods: Sequence[str]
) -> dict[str, Any]:
    entries = [entry for entry in report["metrics"] if entry["suite"] == suite["name"]]
    differences = [entry for entry in entries if entry["baseline"] is not None]
    rates = [entry for entry in entries if entry["baseline"] is None and entry["unit"] == "share"]
    name = suite["name"]
    return {
        "suite": suite,
        "forest": forest_plot(differences, colours, f"{name}: differences from {report['baseline']}")
        if differences
        else None,
        "bars": bar_chart(rates, colours, f"{name}: share of items that pass") if rates else None,
        "rows": [_metric_row(entry, entries, methods) for entry in entries if entry["baseline"] is None],
        "examples": [entry for entry in report["examples"] if entry["suite"] == name],
    }


def _metric_row(
    entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], methods: Sequence[str]
) -> dict[str, Any]:
    same = [other for other in entries if other["metric"] == entry["metric"] and other["policy"] == entry["policy"]]
    difference = next((other for other in same if other["baseline"] is not None), None)
    peers = [other["policy"] for other in entries if other["metric"] == entry["metric"] and other["baseline"] is None]
    used = [entry["method"], *([difference["method"]] if difference else [])]
    return {
        "entry": entry,
        "difference": difference,
        "span": len(peers) if peers[0] == entry["policy"] else 0,  # rows that the metric's name stands before
        "notes": ", ".join(dict.fromkeys(str(methods.index(method) + 1) for method in used)),
    }


def _curve_charts(rows: Sequence[Mapping[str, float]]) -> list[Markup]:
    def points(name: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]

    losses = [Series("training", points("loss"), 1), Series("validation", points("validation_loss"), 2, dots=True)]
    losses = [entry for entry in losses if entry.points]
    charts = [line_chart(losses, "Loss, nats per token", "optimizer step")] if losses else []
    for name, words in (("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm")):
        if points(name):
            charts.append(line_chart([Series(words, points(name), 1)], words, "optimizer step", from_zero=True))
    return charts
