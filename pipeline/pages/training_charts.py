"""Plots of training: learning curves, and what reward models said the further a policy moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import Series, line_chart
from pipeline.pages.numbers import compact, counted
from pipeline.pages.report_inputs import FittedLaw, PolicyMonitor, StageCurves
from pipeline.pages.text import typographic

CURVE_POINTS = 60  # of a fitted curve
LOSS_UNITS = {"sft": "nats per token", "reward": "nats per pair", "gold": "nats per pair"}  # by stage; others vary


# What a stage records that learns from rewards, by rollout: a chart's title, and its metrics with their names in it.
COURSE = (
    ("Score", {"score": "sampled", "monitor_score": "held-out", "validation_score": "held-out"}),
    ("KL to the reference, nats per completion", {"kl": "k1", "kl_k3": "k3", "validation_kl": "held-out"}),
    ("KL to the reference, nats per token", {"kl_per_token": "kl"}),
    ("Entropy, nats per token", {"entropy": "entropy"}),
    ("Completion tokens", {"completion_tokens": "tokens"}),
    ("Share of tokens clipped", {"clip_fraction": "clipped"}),
    ("Explained variance of the value model", {"explained_variance": "explained"}),
    ("Gradient norm before clipping", {"policy_grad_norm": "policy", "value_grad_norm": "value model"}),
)


def curve_charts(entry: StageCurves) -> list[Markup]:
    """Return the loss, the learning rate and the gradient norm by optimizer step, as far as they were recorded.

    Of a stage that samples also what its rollouts were like.
    """
    rows, unit = entry.rows, LOSS_UNITS.get(entry.stage)

    def points(name: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]

    sampled = bool(points("score"))
    axis = "rollout" if sampled else "optimizer step"
    losses = [Series("training", points("loss"), 1), Series("validation", points("validation_loss"), 2, dots=True)]
    losses = [series for series in losses if series.points]
    charts = [line_chart(losses, f"Loss, {unit}" if unit else "Loss", axis)] if losses else []
    for name, words in (("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm")):
        if points(name):
            charts.append(line_chart([Series(words, points(name), 1)], words, axis, from_zero=True))
    for title, names in COURSE if sampled else ():
        series = [
            Series(words, points(name), number, dots=name.startswith(("monitor_", "validation_")))
            for number, (name, words) in enumerate(names.items(), start=1)
            if points(name)
        ]
        if series:
            charts.append(line_chart(series, title, "rollout"))
    return charts


def monitor_view(entry: PolicyMonitor) -> dict[str, Any]:
    """Return the charts and the sentences of one policy: scores against the distance from the reference.

    The distance is the square root of the divergence, against which both scores are smooth (arXiv:2210.10760). The
    divergence is estimated and can come out below zero, which is drawn as zero.
    """
    rows = entry.monitor["measurements"]

    def against(name: str) -> list[tuple[float, float]]:
        return sorted((math.sqrt(max(row["monitor_kl"], 0.0)), row[name]) for row in rows if row.get(name) is not None)

    scores = [Series("proxy", against("monitor_score"), 1, dots=True),
              Series("gold", against("monitor_gold"), 2, dots=True)]  # fmt: skip
    if entry.law:
        scores.append(Series("law", _law_points(entry.law, max(x for x, _ in against("monitor_gold"))), 3))
    scores = [series for series in scores if series.points]
    charts = [line_chart(scores, "Mean score", "square root of the divergence, nats", whole=False)] if scores else []
    named = {
        "monitor_kl": "Divergence from the reference, nats",
        "monitor_completion_tokens": "Completion tokens",
        "monitor_distinct_2": "Share of distinct pairs of tokens",
    }
    for name, words in named.items():
        points = [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
        if points:
            charts.append(line_chart([Series(words, points, 1)], words, "rollout", from_zero=True))
    thirds = [
        Series(words, [(float(row["step"]), row["by_length"][place]["score"]) for row in rows], place + 1)
        for place, words in enumerate(("short", "middle", "long"))
        if all(len(row["by_length"]) > place for row in rows)
    ]
    if thirds:
        charts.append(line_chart(thirds, "Mean score by thirds of the length", "rollout"))
    return {"monitor": entry, "charts": charts, "sentences": [_peak(rows), *_fitted(entry), *_outcome(entry.monitor)]}


def _law_points(law: FittedLaw, furthest: float) -> list[tuple[float, float]]:
    """Return the fitted curve from the reference to the furthest measurement."""
    distances = [furthest * step / CURVE_POINTS for step in range(1, CURVE_POINTS + 1)]
    bent = [(d, law.start + d * (law.alpha - law.beta * math.log(d))) for d in distances]
    return [(0.0, law.start), *bent]


def _fitted(entry: PolicyMonitor) -> list[str]:
    """Say where the fitted law has its peak, and how much of the scores it explains."""
    law = entry.law
    if law is None:
        return []
    said = "The fitted law of the gold score, R = R0 + d (alpha - beta ln d) with d the square root of the divergence, "
    said += f"has alpha {compact(law.alpha)} and beta {compact(law.beta)}"
    if law.explained is not None:
        said += f" and explains {max(law.explained, 0.0):.0%} of its variance"
    if law.peak_kl is None:
        return [typographic(f"{said}; {law.reason}.")]
    furthest = max(row["monitor_kl"] for row in entry.monitor["measurements"])
    where = "beyond all that was measured" if law.peak_kl > furthest else "within what was measured"
    return [typographic(f"{said}; its peak is at {compact(law.peak_kl)} nats, {where}.")]


def _peak(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say where the gold score was highest and what happened after, which is what over-optimisation means."""
    held = [row for row in rows if row.get("monitor_gold") is not None]
    if not held:
        return "Nothing but the rewards themselves was measured, so over-optimisation cannot be seen here."
    peak, last = max(held, key=lambda row: row["monitor_gold"]), held[-1]
    if peak is last:
        return f"The gold score was highest at the end, at a divergence of {compact(peak['monitor_kl'])} nats."
    drop, gain = peak["monitor_gold"] - last["monitor_gold"], last["monitor_score"] - peak["monitor_score"]
    proxy = f"{'rose' if gain > 0 else 'fell'} by {compact(abs(gain))}" if gain else "stayed"
    return typographic(
        f"The gold score was highest at rollout {peak['step']}, at a divergence of {compact(peak['monitor_kl'])} nats; "
        f"from there to the end it fell by {compact(drop)} while the proxy {proxy}."
    )


def _outcome(monitor: Mapping[str, Any]) -> list[str]:
    """Say whether the monitor was sure of a fall, which policy was delivered, and what its gates say."""
    fired = monitor["fired"]
    said = [f"The policy is that of rollout {monitor['chosen_step']}: {monitor['reason']}."]
    if fired:
        limits = f"[{compact(fired['low'])}, {compact(fired['high'])}]"
        said.insert(0, typographic(f"At rollout {fired['step']} the gold was surely below that of rollout "
                                   f"{fired['best_step']}, by {compact(-fired['gold_change'])} {limits} on "
                                   f"{counted(fired['n'], 'completion')}."))  # fmt: skip
    said += [typographic(f"{gate['outcome']} {gate['name']}: {gate['reason']}.") for gate in monitor["gates"]]
    return said
