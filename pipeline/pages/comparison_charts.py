"""Plots of a comparison: differences best first, parameters side by side, and how each run learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import (
    AXIS,
    AXIS_NAMES,
    NARROW,
    WIDE,
    Layout,
    Series,
    horizontal_axis,
    line_chart,
    row_texts,
    verdict_class,
)
from pipeline.pages.numbers import WINS, compact, is_decided, metric_text, setting_text
from pipeline.pages.svg import Scale, element, line, picture, scale_around, text

MAX_ROWS = 30  # of a plot of differences
HIGHLIGHTED = 5  # runs with a colour of their own, from the best on
LABEL_HEIGHT = 13.0
LOG_RATIO = 20.0  # numbers that span more are laid out by their logarithm
MAX_LEVELS = 6  # values of a parameter that are written at its axis
CURVES = {"loss": "Training loss", "validation_loss": "Validation loss", "score": "Mean score"}


def colour_of(key: str, order: Sequence[str], baseline: str) -> int:
    """Return the colour of a candidate: one for each of the best, grey for the baseline and the rest."""
    best = [entry for entry in order if entry != baseline][:HIGHLIGHTED]
    return best.index(key) + 1 if key in best else 0


def difference_plot(rows: Sequence[Mapping[str, Any]], title: str, layout: Layout) -> Markup:
    """Return differences with two whiskers: thick for the interval alone, thin for that which allows for the choice.

    Args:
        rows: Rows of metrics with ``label``, ``colour`` and, where there is one, ``corrected``.
        title: Of the picture.
        layout: Wide or narrow.
    """
    unit, higher_is_better = rows[0]["unit"], rows[0]["higher_is_better"]
    factor = 100.0 if unit in ("share", WINS) else 1.0
    limits = [(row["low"], row["estimate"], row["high"], *(row["corrected"] or ())) for row in rows]
    held = [value * factor for entry in limits for value in entry if value is not None]
    scale = scale_around(held, layout.start, layout.end, include=0.0)
    bottom = 4 + layout.row * len(rows)
    parts = horizontal_axis(scale, 4, bottom, AXIS_NAMES.get(unit, unit), layout.width)
    parts.append(line(scale(0.0), 4, scale(0.0), bottom, "zero"))
    if higher_is_better is not None:
        place = (layout.end, "end", "better →") if higher_is_better else (layout.start, "start", "← better")
        parts.append(text(place[0], bottom + 34, place[2], "direction", place[1]))
    for index, row in enumerate(rows):
        y = 4 + layout.row * (index + 0.5)
        parts += row_texts(layout, y, row["label"], metric_text(row), f"number {verdict_class(row)}")
        parts += _mark(row, scale, y + (9 if layout.stacked else 0), factor)
    return picture(layout.width, bottom + AXIS - 6, title, parts)


def _mark(row: Mapping[str, Any], scale: Scale, y: float, factor: float) -> list[Markup]:
    if row["estimate"] is None:
        return []
    own, parts = f"c{row['colour']}", []
    if row["corrected"]:
        low, high = row["corrected"]
        parts.append(line(scale(low * factor), y, scale(high * factor), y, f"wide-whisker {own}"))
    if row["low"] is not None:
        parts.append(line(scale(row["low"] * factor), y, scale(row["high"] * factor), y, f"whisker {own}"))
    decided = {**row, "low": row["corrected"][0], "high": row["corrected"][1]} if row["corrected"] else row
    filled = "filled" if is_decided(decided) else "hollow"
    x = scale(row["estimate"] * factor)
    return [*parts, element("circle", cx=x, cy=y, r=5.5, class_=f"mark {filled} {own}")]


def parallel_plot(
    axes: Sequence[tuple[str, Mapping[str, Any]]], order: Sequence[str], baseline: str, title: str, layout: Layout
) -> Markup:
    """Return one line per run across its parameters to its result; the best have a colour.

    Args:
        axes: Name and value by candidate's key; the last one is the result.
        order: Keys, best first.
        baseline: Key of the baseline.
        title: Of the picture.
        layout: Wide or narrow.
    """
    top, bottom, margin = 40, 250, 44
    width = layout.width
    places = [margin + (width - 2 * margin) * index / (len(axes) - 1) for index in range(len(axes))]
    parts: list[Markup] = []
    labels: list[Markup] = []
    heights: list[Mapping[str, float]] = []
    for x, (name, values) in zip(places, axes, strict=True):
        placed, ticks = _axis_places([values[key] for key in order], top, bottom)
        heights.append(dict(zip(order, placed, strict=True)))
        parts.append(line(x, top, x, bottom, "axis"))
        room = max(6, int((width - 2 * margin) / (len(axes) - 1) / 7.5))
        end = {places[0]: "start", places[-1]: "end"}.get(x, "middle")
        parts.append(text({"start": 2.0, "end": width - 2}.get(end, x), 18, name, "caption", end, limit=room))
        labels += [text(x + 6, y + 4, words, "tick halo", limit=12) for y, words in spaced(ticks, bottom)]
    for key in reversed(order):
        index = colour_of(key, order, baseline)
        path = " ".join(f"{x:.2f},{height[key]:.2f}" for x, height in zip(places, heights, strict=True))
        parts.append(
            element("polyline", points=path, class_=f"{'' if index or key == baseline else 'faint '}curve c{index}")
        )
    return picture(width, bottom + 16, title, [*parts, *labels])


def spaced(ticks: Sequence[tuple[float, str]], bottom: float) -> list[tuple[float, str]]:
    """Return the labels of an axis moved apart where they would lie on each other, from the top down."""
    heights: list[float] = []
    ordered = sorted(ticks)
    for y, _ in ordered:
        heights.append(max(y, heights[-1] + LABEL_HEIGHT) if heights else y)
    floor = bottom
    for place in range(len(heights) - 1, -1, -1):  # what was pushed below the axis pushes the others up again
        heights[place] = min(heights[place], floor)
        floor = heights[place] - LABEL_HEIGHT
    return [(y, words) for y, (_, words) in zip(heights, ordered, strict=True)]


def _axis_places(values: Sequence[Any], top: float, bottom: float) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height of every value, and the ticks: numbers by size, or by their logarithm, other values evenly."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or not numbers:
        levels = sorted({setting_text(value) for value in values})
        scale = scale_around(range(len(levels)), bottom, top)
        heights = {level: scale(place) for place, level in enumerate(levels)}
        return [heights[setting_text(value)] for value in values], [(y, level) for level, y in heights.items()]
    low, high = min(numbers), max(numbers)
    by_log = low > 0 and high / low > LOG_RATIO
    measured = [math.log(value) if by_log else float(value) for value in numbers]
    scale = scale_around(measured, bottom, top)
    known = sorted(dict(zip(numbers, measured, strict=True)).items())
    shown = known if len(known) <= MAX_LEVELS else [known[0], known[len(known) // 2], known[-1]]
    return [scale(value) for value in measured], [(scale(place), compact(value)) for value, place in shown]


def curve_plots(
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], order: Sequence[str], baseline: str
) -> list[Markup]:
    """Return one chart per kind of curve, with a line for every run; the best have a colour."""
    charts = []
    for name, words in CURVES.items():
        series = [
            Series(key, [(step, value) for step, value in curves[key][name]], colour_of(key, order, baseline),
                   dots=name == "validation_loss" and len(order) <= HIGHLIGHTED + 1,
                   faint=not colour_of(key, order, baseline) and key != baseline)
            for key in reversed(order) if name in curves.get(key, {})
        ]  # fmt: skip
        if series:
            charts.append(line_chart(series, words, "step", legend=False))
    return charts


def intermediate_plot(runs: Sequence[Mapping[str, Any]], colours: Mapping[int, int], baseline: int) -> list[Markup]:
    """Return the objective of every trial on its way, those that were pruned included; nothing where none told it.

    Args:
        runs: All runs.
        colours: Of those that are ranked, by their place among the runs.
        baseline: The place of the baseline.
    """
    told = [(index, run["intermediate"]) for index, run in enumerate(runs) if run["intermediate"]]
    told.sort(key=lambda entry: colours.get(entry[0], 0), reverse=True)
    series = [
        Series(runs[index]["name"], [(step, value) for step, value in points], colours.get(index, 0), dots=True,
               faint=not colours.get(index, 0) and index != baseline)
        for index, points in reversed(told)
    ]  # fmt: skip
    return [line_chart(series, "Objective on the way, pruned trials too", "step", legend=False)] if series else []


def share_bars(entries: Sequence[Mapping[str, Any]], title: str, layout: Layout) -> Markup:
    """Return how much of the order each parameter explains alone; hollow where it may be chance."""
    scale = Scale(0.0, 100.0, layout.start, layout.end)
    bottom = 4 + layout.row * len(entries)
    parts = horizontal_axis(scale, 4, bottom, "per cent of the order, alone", layout.width)
    for index, entry in enumerate(entries):
        y = 4 + layout.row * (index + 0.5)
        sure = entry["p_holm"] <= 0.05
        words = f"{entry['share']:.0%}" + ("" if sure else ", may be chance")
        parts += row_texts(
            layout, y, entry["parameter"], words, f"number {'better' if sure else 'no-clear-difference'}"
        )
        y += 9 if layout.stacked else 0
        x = scale(100 * entry["share"])
        parts.append(line(layout.start, y, x, y, f"whisker c{1 if sure else 0}"))
        parts.append(element("circle", cx=x, cy=y, r=5.5, class_=f"mark {'filled c1' if sure else 'hollow c0'}"))
    return picture(layout.width, bottom + 44, title, parts)


LAYOUTS = (WIDE, NARROW)
