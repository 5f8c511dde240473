"""Plots of a data set's page: what became of each source's rows, how long texts are, and the annotators' scorecards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.pages.numbers import compact
from pipeline.pages.svg import Scale, colour, element, line, picture, text, tick_step, tick_text

WIDTH = 860
LABELS_END, BAR_END = 210, 740
ROW = 27
HISTOGRAM_WIDTH = 330
PANEL_GAP = 26


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of stacked counts."""

    label: str
    parts: Sequence[tuple[str, int]]  # names and counts, in the order of the legend


def stacked_bars(bars: Sequence[Bar], colours: Mapping[str, int], title: str) -> Markup:
    """Return one bar per label, each as long as the whole, parted by its counts."""
    parts: list[Markup] = []
    for index, bar in enumerate(bars):
        top = ROW * index + 4.0
        total = sum(count for _, count in bar.parts)
        parts.append(text(LABELS_END - 14, top + 15, bar.label, "label", "end", limit=28))
        parts.append(text(BAR_END + 14, top + 15, f"{total:,} rows", "number small"))
        scale = Scale(0.0, float(total or 1), LABELS_END, BAR_END)
        before = 0
        for name, count in bar.parts:
            if count:
                x = scale(before)
                words = f"{name}: {count:,} of {total:,}"
                box = {"x": x, "y": top + 2, "width": max(scale(before + count) - x, 1.0), "height": ROW - 9.0}
                parts.append(element("rect", element("title", words), **box, class_=f"bar {colour(colours[name])}"))
            before += count
    return picture(WIDTH, ROW * len(bars) + 6, title, parts)


def histogram(lengths: Mapping[str, Any], title: str) -> Markup:
    """Return the counts of one field as bars of equal width, whatever the bins' own widths, with the edges' values.

    Args:
        lengths: ``edges`` (one more than) ``counts``, ``median``, ``p95`` and ``max``.
        title: What the field is.
    """
    left, right, top, bottom = 48.0, HISTOGRAM_WIDTH - 18.0, 34.0, 150.0
    edges, counts = lengths["edges"], lengths["counts"]
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{title}: {len(edges)} edges do not bound {len(counts)} counts")
    vertical = Scale(0.0, float(max([*counts, 1])), bottom, top)
    parts = [text(4, 16, title, "caption", limit=40)]
    step = tick_step(vertical.high, 3)
    for tick in vertical.ticks(3):
        if tick == int(tick):
            parts.append(line(left, vertical(tick), right, vertical(tick), "grid"))
            parts.append(text(left - 7, vertical(tick) + 4, tick_text(tick, step), "tick", "end"))
    width = (right - left) / max(len(counts), 1)
    for index, count in enumerate(counts):
        words = f"{compact(edges[index])} to {compact(edges[index + 1])} characters: {count:,}"
        x, y = left + width * index, vertical(count)
        box = element("rect", element("title", words), x=x + 0.75, y=y, width=width - 1.5, height=bottom - y,
                      class_=f"bar {colour(1)}")  # fmt: skip
        parts.append(box)
    every = max(1, -(-len(edges) // 6))
    for index in range(0, len(edges), every):
        parts.append(text(left + width * index, bottom + 17, compact(edges[index], 2), "tick", "middle"))
    summary = f"median {compact(lengths['median'])}, 95 % below {compact(lengths['p95'])}, longest {lengths['max']:,}"
    parts.append(text((left + right) / 2, bottom + 36, summary, "tick", "middle"))
    return picture(HISTOGRAM_WIDTH, bottom + 46, title, parts)


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure of every annotator, a share."""

    key: str
    title: str
    unbiased: float | None = None  # where there is no bias


def scorecard_plot(annotators: Sequence[Mapping[str, Any]], panels: Sequence[Panel], title: str) -> Markup:
    """Return a row per annotator and a panel per measure: a mark with its interval, hollow where set aside."""
    labels_end, top = 150.0, 26.0
    width = (WIDTH - labels_end - PANEL_GAP * len(panels)) / max(len(panels), 1)
    bottom = top + ROW * len(annotators)
    parts: list[Markup] = []
    for index, entry in enumerate(annotators):
        style = "label worse" if entry["set_aside"] else "label"
        parts.append(text(labels_end - 14, top + ROW * (index + 0.5) + 4.5, entry["annotator"], style, "end", limit=18))
    for place, panel in enumerate(panels):
        start = labels_end + place * (width + PANEL_GAP)
        scale = Scale(0.0, 100.0, start, start + width)
        parts.append(text(start, 14, panel.title, "caption"))
        for tick in (0.0, 50.0, 100.0):
            kind = "zero" if panel.unbiased is not None and tick == 100 * panel.unbiased else "grid"
            parts.append(line(scale(tick), top, scale(tick), bottom, kind))
            anchor = "start" if tick == 0 else "end" if tick == 100 else "middle"
            parts.append(text(scale(tick), bottom + 17, f"{tick:.0f} %", "tick", anchor))
        for index, entry in enumerate(annotators):
            parts += _share(entry[panel.key], entry["set_aside"], scale, top + ROW * (index + 0.5))
    return picture(WIDTH, bottom + 26, title, parts)


def _share(share: Mapping[str, Any] | None, set_aside: bool, scale: Scale, y: float) -> list[Markup]:
    """Return the mark of one share with its interval; nothing where it was not measured."""
    if share is None or share["estimate"] is None:
        return []
    own = colour(2 if set_aside else 1)
    x = scale(100 * share["estimate"])
    words = f"{100 * share['estimate']:.1f} % of {share['n']:,}"
    parts = []
    if share["low"] is not None and share["high"] is not None:
        parts.append(line(scale(100 * share["low"]), y, scale(100 * share["high"]), y, f"whisker {own}"))
        words += f", interval {100 * share['low']:.1f} to {100 * share['high']:.1f} %"
    kind = "hollow" if set_aside else "filled"
    parts.append(element("circle", element("title", words), cx=x, cy=y, r=5, class_=f"mark {kind} {own}"))
    return parts
