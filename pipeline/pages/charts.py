"""Plots of a report: paired differences, pass rates and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.pages.numbers import WIN_RATE, WINS, estimate_text, is_decided, metric_text, neutral, verdict
from pipeline.pages.svg import Scale, colour, element, line, picture, scale_around, text, tick_step, tick_text
from pipeline.pages.text import typographic

AXIS = 58  # below a panel: ticks, the name of the axis, and which direction is better
AXIS_NAMES = {"share": "percentage points", WINS: "percentage points", WIN_RATE: "per cent of pairs won"}
TICK_CHARACTER = 7.0  # pixels that one takes at most, of any font that a system may have
MAX_POINTS = 400  # of a curve; longer ones are averaged in buckets


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a plot of rows puts its parts; drawn twice, and the page shows the one that its width has room for."""

    width: float
    start: float  # of the plot
    end: float
    row: float
    stacked: bool  # label and number stand above each row, in place of beside it


WIDE = Layout(860, 230, 600, 27, stacked=False)
NARROW = Layout(358, 8, 344, 46, stacked=True)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    points: list[tuple[float, float]]
    colour: int
    dots: bool = False  # measured now and then, so that each point is shown
    faint: bool = False  # one of many, in the background


def forest_plot(
    differences: Sequence[Mapping[str, Any]], colours: Mapping[str, int], title: str, layout: Layout = WIDE
) -> Markup:
    """Return the paired differences of one suite, one panel per unit, with the zero line and the better direction."""
    panels: dict[tuple[str, bool | None], list[Mapping[str, Any]]] = {}
    for entry in differences:
        panels.setdefault((entry["unit"], entry["higher_is_better"]), []).append(entry)
    parts: list[Markup] = []
    top = 4.0
    for entries in panels.values():
        parts += _forest_panel(entries, colours, top, layout)
        top += layout.row * len(entries) + AXIS
    return picture(layout.width, top - 6, title, parts)


def _forest_panel(
    entries: Sequence[Mapping[str, Any]], colours: Mapping[str, int], top: float, layout: Layout
) -> list[Markup]:
    unit, higher_is_better = entries[0]["unit"], entries[0]["higher_is_better"]
    factor = 100.0 if unit in ("share", WIN_RATE) else 1.0
    even = factor * neutral(unit)
    held = [entry[key] * factor for entry in entries for key in ("estimate", "low", "high") if entry[key] is not None]
    scale = scale_around(held, layout.start, layout.end, include=even)
    bottom = top + layout.row * len(entries)
    parts = horizontal_axis(scale, top, bottom, AXIS_NAMES.get(unit, unit), layout.width)
    parts.append(line(scale(even), top, scale(even), bottom, "zero"))
    if higher_is_better is not None:
        x, anchor, words = (layout.end, "end", "better →") if higher_is_better else (layout.start, "start", "← better")
        parts.append(text(x, bottom + 34, words, "direction", anchor))
    for index, entry in enumerate(entries):
        y = top + layout.row * (index + 0.5)
        label = f"{entry['metric']}, {entry['policy']}" if len(colours) > 2 else str(entry["metric"])
        parts += row_texts(layout, y, label, metric_text(entry), f"number {verdict_class(entry)}")
        parts += _forest_mark(entry, colour(colours[entry["policy"]]), scale, y + (9 if layout.stacked else 0), factor)
    return parts


def row_texts(layout: Layout, y: float, label: str, number: str, style: str) -> list[Markup]:
    """Return the label and the number of a row whose middle is at `y`."""
    shown = typographic(number)
    if layout.stacked:
        room = max(8, 46 - len(shown))  # characters beside the number
        return [text(layout.start, y - 7, label, "label", limit=room), text(layout.end, y - 7, shown, style, "end")]
    return [
        text(layout.start - 14, y + 4.5, label, "label", "end", limit=31),
        text(layout.end + 16, y + 4.5, shown, style),
    ]


def _forest_mark(entry: Mapping[str, Any], own: str, scale: Scale, y: float, factor: float) -> list[Markup]:
    if entry["estimate"] is None:
        return []
    parts = []
    if entry["low"] is not None:
        parts.append(line(scale(entry["low"] * factor), y, scale(entry["high"] * factor), y, f"whisker {own}"))
    x = scale(entry["estimate"] * factor)
    filled = "filled" if is_decided(entry) else "hollow"
    return [
        *parts,
        element("circle", element("title", verdict(entry)), cx=x, cy=y, r=5.5, class_=f"mark {filled} {own}"),
    ]


def verdict_class(entry: Mapping[str, Any]) -> str:
    """Return the style class of a verdict."""
    return verdict(entry).replace(" ", "-")


def bar_chart(
    rates: Sequence[Mapping[str, Any]], colours: Mapping[str, int], title: str, layout: Layout = WIDE
) -> Markup:
    """Return the share of items that pass each metric, one bar per policy with its interval."""
    metrics = list(dict.fromkeys(entry["metric"] for entry in rates))
    thickness, gap = 15, 34 if layout.stacked else 12
    height = thickness * len(colours) + gap
    end = layout.end - 120 if layout.stacked else layout.end  # the numbers stand behind the bars
    scale = Scale(0.0, 100.0, layout.start, end)
    bottom = 4 + height * len(metrics)
    parts = horizontal_axis(scale, 4, bottom, "per cent of items", layout.width)
    for index, metric in enumerate(metrics):
        entries = [entry for entry in rates if entry["metric"] == metric]
        top = 4 + index * height + (26 if layout.stacked else gap / 2)
        middle = top + thickness * len(entries) / 2
        if layout.stacked:
            parts.append(text(layout.start, top - 6, metric, "label", limit=44))
        else:
            parts.append(text(layout.start - 14, middle + 4.5, metric, "label", "end", limit=31))
        for row, entry in enumerate(entries):
            parts += _bar(entry, colour(colours[entry["policy"]]), scale, top + row * thickness, thickness)
    return picture(layout.width, bottom + 44, title, parts)


def _bar(entry: Mapping[str, Any], own: str, scale: Scale, top: float, thickness: float) -> list[Markup]:
    if entry["estimate"] is None:
        return [text(scale.end + 16, top + thickness - 3, "not estimable", "number")]
    width = scale(entry["estimate"] * 100) - scale.start
    parts = [element("rect", x=scale.start, y=top + 1, width=width, height=thickness - 2, class_=f"bar {own}")]
    middle = top + thickness / 2
    if entry["low"] is not None:
        parts.append(line(scale(entry["low"] * 100), middle, scale(entry["high"] * 100), middle, "error"))
    label = f"{entry['policy']}  {typographic(estimate_text(entry))}"
    limit = 18 if scale.end < WIDE.end else 36
    return [*parts, text(scale.end + 10, top + thickness - 3, label, "number small", limit=limit)]


def line_chart(
    series: Sequence[Series],
    title: str,
    x_name: str,
    *,
    from_zero: bool = False,
    whole: bool = True,
    legend: bool = True,
) -> Markup:
    """Return curves over one axis, with a legend where there are two; `whole` if the axis counts."""
    width, left, right, top, bottom = 330, 48, 322, 50, 190
    points = [point for entry in series for point in entry.points]
    horizontal = scale_around([x for x, _ in points], left, right)
    vertical = scale_around([y for _, y in points], bottom, top, include=0.0 if from_zero else None)
    if from_zero:
        vertical = Scale(0.0, vertical.high, bottom, top)
    parts = [text(4, 16, title, "caption")]
    step = tick_step(vertical.high - vertical.low, 4)
    for tick in vertical.ticks(4):
        parts.append(line(left, vertical(tick), right, vertical(tick), "grid"))
        parts.append(text(left - 7, vertical(tick) + 4, tick_text(tick, step), "tick", "end"))
    step = tick_step(horizontal.high - horizontal.low, 5)
    for tick in horizontal.ticks(5):
        if tick >= 0 and (tick == int(tick) or not whole):
            parts.append(text(horizontal(tick), bottom + 17, tick_text(tick, step), "tick", "middle"))
    parts.append(text((left + right) / 2, bottom + 34, x_name, "tick", "middle"))
    for index, entry in enumerate(series):
        parts += _curve(entry, horizontal, vertical)
        if legend and len(series) > 1:
            x = left + 110 * index
            parts.append(line(x, 32, x + 16, 32, f"curve {colour(entry.colour)}"))
            parts.append(text(x + 22, 36, entry.name, "tick", limit=14))
    return picture(width, bottom + 40, title, parts)


def _curve(entry: Series, horizontal: Scale, vertical: Scale) -> list[Markup]:
    placed = [(horizontal(x), vertical(y)) for x, y in averaged(entry.points, MAX_POINTS)]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in placed)
    parts = [element("polyline", points=path, class_=f"{'faint ' if entry.faint else ''}curve {colour(entry.colour)}")]
    if entry.dots or len(placed) == 1:
        parts += [element("circle", cx=x, cy=y, r=3, class_=f"mark filled {colour(entry.colour)}") for x, y in placed]
    return parts


def averaged(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Return at most `most` points, each the mean of equally many neighbours (the last of fewer)."""
    size = -(-len(points) // most)
    if size <= 1:
        return list(points)
    buckets = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in bucket) / len(bucket), sum(y for _, y in bucket) / len(bucket)) for bucket in buckets]


def horizontal_axis(scale: Scale, top: float, bottom: float, name: str, width: float) -> list[Markup]:
    """Return grid lines, ticks and the name of a horizontal axis; a tick at the picture's edge stands inside of it.

    Args:
        scale: Of the axis.
        top: Where the grid lines begin.
        bottom: Where they end.
        name: What stands below the ticks.
        width: Of the picture.
    """
    step = tick_step(scale.high - scale.low, 6)
    parts = [text((scale.start + scale.end) / 2, bottom + 34, name, "tick", "middle")]
    for tick in scale.ticks():
        parts.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        x, words = scale(tick), tick_text(tick, step)
        half = len(words) * TICK_CHARACTER / 2
        anchor = "start" if x < half else "end" if width - x < half else "middle"
        parts.append(text(x, bottom + 17, words, "tick", anchor))
    return parts
