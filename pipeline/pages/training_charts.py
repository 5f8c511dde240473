"""Plots of training: learning curves, and what reward models said the further a policy moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import Series, line_chart
from pipeline.pages.numbers import compact
from pipeline.pages.report_inputs import PolicyMonitor
from pipeline.pages.text import typographic


def curve_charts(rows: Sequence[Mapping[str, float]]) -> list[Markup]:
    """Return the loss, the learning rate and the gradient norm by optimizer step, as far as they were recorded."""

    def points(name: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]

    losses = [Series("training", points("loss"), 1), Series("validation", points("validation_loss"), 2, dots=True)]
    losses = [entry for entry in losses if entry.points]
    charts = [line_chart(losses, "Loss, nats per token", "optimizer step")] if losses else []
    for name, words in (("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm")):
        if points(name):
            charts.append(line_chart([Series(words, points(name), 1)], words, "optimizer step", from_zero=True))
    return charts


def monitor_view(entry: PolicyMonitor) -> dict[str, Any]:
    """Return the charts and the sentence of one policy: scores against the distance from the reference.

    The distance is the square root of the divergence, against which both scores are smooth (arXiv:2210.10760).
    """
    rows = [row for row in entry.monitor["rows"] if row.get("kl") is not None]
    proxy_name, gold_name = entry.monitor["proxy"], entry.monitor.get("gold")

    def against(name: str) -> list[tuple[float, float]]:
        return sorted((math.sqrt(max(row["kl"], 0.0)), row[name]) for row in rows if row.get(name) is not None)

    scores = [Series("proxy", against("proxy"), 1, dots=True), Series("gold", against("gold"), 2, dots=True)]
    scores = [series for series in scores if series.points]
    charts = [line_chart(scores, "Mean score", "square root of the divergence, nats", whole=False)] if scores else []
    for name, words in (("kl", "Divergence from the reference, nats"), ("length", "Completion tokens")):
        points = [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
        if points:
            charts.append(line_chart([Series(words, points, 1)], words, "step", from_zero=True))
    names = f"Proxy: {proxy_name}" + (f"; gold: {gold_name}" if gold_name else "; there is no gold reward model")
    return {"monitor": entry, "charts": charts, "names": names, "sentence": _peak(rows)}


def _peak(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say where the gold score was highest and what happened after, which is what over-optimisation means."""
    held = [row for row in rows if row.get("gold") is not None]
    if not held:
        return "Without a gold reward model, over-optimisation cannot be seen here."
    peak, last = max(held, key=lambda row: row["gold"]), held[-1]
    if peak is last:
        return f"The gold score was highest at the end, at a divergence of {compact(peak['kl'])} nats."
    drop, gain = peak["gold"] - last["gold"], last["proxy"] - peak["proxy"]
    proxy = f"{'rose' if gain > 0 else 'fell'} by {compact(abs(gain))}" if gain else "stayed"
    return typographic(
        f"The gold score was highest at step {peak['step']}, at a divergence of {compact(peak['kl'])} nats; from there "
        f"to the end it fell by {compact(drop)} while the proxy {proxy}."
    )
