"""Quality against cost of several ways to run one policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import WIDE, Layout
from pipeline.pages.numbers import duration_text, number_text
from pipeline.pages.svg import Scale, element, line, picture, scale_around, text, tick_step, tick_text

LEFT, TOP, BOTTOM = 54, 14, 232  # of the plot; the names stand in a column beside it
CLOSE = 15  # pixels between two of them


def cheapest_first(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the variants that no other one beats in both time and quality, the fastest first."""
    points = sorted((row["times"]["seconds_per_1000"], -_quality(row), row["name"]) for row in measured(variants))
    kept: list[str] = []
    best = float("-inf")
    for _, loss, name in points:
        if -loss > best:
            kept.append(name)
            best = -loss
    return kept


def measured(variants: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the variants that could be run."""
    return [row for row in variants if row["times"] is not None and not row["error"]]


def quality_against_cost(variants: Sequence[Mapping[str, Any]], title: str, layout: Layout = WIDE) -> Markup | None:
    """Return the difference in quality over the time of a thousand answers; those on the line are beaten by none.

    Nothing with fewer than two variants. The reference is where there is no difference.
    """
    rows = measured(variants)
    if len(rows) < 2:
        return None
    right, letters = (222.0, 18) if layout.stacked else (560.0, 40)
    across = scale_around([row["times"]["seconds_per_1000"] for row in rows], LEFT, right, include=0.0)
    held = [100 * value for row in rows for value in (*_limits(row), _quality(row))]
    up = scale_around(held, BOTTOM, TOP, include=0.0)
    front = cheapest_first(variants)
    places = {row["name"]: (across(row["times"]["seconds_per_1000"]), up(100 * _quality(row))) for row in rows}
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in (places[name] for name in front))
    parts = [*_axes(across, up), element("polyline", points=path, class_="curve c1")]
    marks: list[Markup] = []
    ordered = sorted(rows, key=lambda row: (places[row["name"]][1], -places[row["name"]][0]))
    heights = _apart([places[row["name"]][1] for row in ordered])
    for row, height in zip(ordered, heights, strict=True):
        x, y = places[row["name"]]
        own, style = ("c1", "filled") if row["name"] in front else ("c0", "hollow")
        if limits := _limits(row):
            parts.append(line(x, up(100 * limits[0]), x, up(100 * limits[1]), f"whisker {own}"))
        parts.append(line(x, y, right + 10, height, "lead"))
        told = f"{row['name']}: {duration_text(row['times']['seconds_per_1000'])}, {_words(row)}"
        marks.append(element("circle", element("title", told), cx=x, cy=y, r=5, class_=f"mark {style} {own}"))
        marks.append(text(right + 14, height + 4, str(row["name"]), "number small", limit=letters))
    bottom = max(BOTTOM, heights[-1] + CLOSE)
    return picture(layout.width, bottom + 58, title, [*parts, *marks])


def _apart(heights: Sequence[float]) -> list[float]:
    """Return ascending heights moved apart, so that text fits between them, and kept within the plot where they fit."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + CLOSE) if moved else max(height, TOP))
    lowest = max(BOTTOM, TOP + CLOSE * (len(moved) - 1))
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], lowest - CLOSE * (len(moved) - 1 - index))
    return moved


def _axes(across: Scale, up: Scale) -> list[Markup]:
    parts: list[Markup] = []
    step = tick_step(up.high - up.low, 5)
    for tick in up.ticks(5):
        parts.append(line(LEFT, up(tick), across.end, up(tick), "zero" if tick == 0 else "grid"))
        parts.append(text(LEFT - 7, up(tick) + 4, tick_text(tick, step), "tick", "end"))
    step = tick_step(across.high - across.low, 5 if across.end > 400 else 3)
    for tick in across.ticks(5 if across.end > 400 else 3):
        if tick >= 0:
            parts.append(text(across(tick), BOTTOM + 17, tick_text(tick, step), "tick", "middle"))
    parts.append(text(LEFT, BOTTOM + 34, "seconds per 1,000 answers: less is cheaper", "tick"))
    parts.append(text(LEFT, BOTTOM + 51, "upwards: points better than the reference", "tick"))
    return parts


def _quality(row: Mapping[str, Any]) -> float:
    return 0.0 if row["difference"] is None else float(row["difference"]["estimate"] or 0.0)


def _limits(row: Mapping[str, Any]) -> list[float]:
    """Return both limits of the difference; none of the reference, and of one that cannot be estimated."""
    difference = row["difference"] or {}
    return [float(difference[key]) for key in ("low", "high") if difference.get(key) is not None]


def _words(row: Mapping[str, Any]) -> str:
    return "the reference" if row["difference"] is None else number_text(row["difference"], "points")
