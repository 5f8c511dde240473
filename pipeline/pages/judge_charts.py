"""Plots of what judges say: win rates of pairs, raw and at equal lengths, and what their confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import WIDE, Layout, horizontal_axis, row_texts
from pipeline.pages.numbers import WIN_RATE, counted, interval_text, is_decided, rating_text, share_text, verdict
from pipeline.pages.svg import Scale, colour, element, line, picture, scale_around, text
from pipeline.pages.text import typographic

CELL_WIDTH, CELL_HEIGHT, NAMES = 88, 56, 104
PAIR_ROW = 46
SQUARE = 330

Entry = Mapping[str, Any]


def win_rate_matrix(entries: Sequence[Entry], policies: Sequence[str], title: str) -> Markup:
    """Return how often the row's policy beats the column's, each cell the deeper the surer."""
    named = [policy for policy in policies if any(policy in (e["policy"], e["opponent"]) for e in entries)]
    top = 46
    parts: list[Markup] = [text(NAMES - 12, 26, "wins against", "tick", "end")]
    for index, policy in enumerate(named):
        parts.append(text(NAMES + CELL_WIDTH * (index + 0.5), 26, policy, "label", "middle", limit=11))
        y = top + CELL_HEIGHT * (index + 0.5) + 4.5
        parts.append(text(NAMES - 12, y, policy, "label", "end", limit=13))
    for row, policy in enumerate(named):
        for column, opponent in enumerate(named):
            x, y = NAMES + CELL_WIDTH * column, top + CELL_HEIGHT * row
            entry = None if row == column else between(entries, policy, opponent)
            parts += _cell(entry, f"{policy} against {opponent}", float(x), float(y))
    return picture(NAMES + CELL_WIDTH * len(named) + 4, top + CELL_HEIGHT * len(named) + 6, title, parts)


def between(entries: Sequence[Entry], policy: str, opponent: str) -> dict[str, Any] | None:
    """Return the win rate of one policy against another, turned round where it is held the other way."""
    for entry in entries:
        value = {**entry, "unit": WIN_RATE, "higher_is_better": True, "baseline": opponent}
        if (entry["policy"], entry["opponent"]) == (policy, opponent):
            return value
        if (entry["policy"], entry["opponent"]) == (opponent, policy):
            turned = [None if entry[key] is None else 1 - entry[key] for key in ("estimate", "high", "low")]
            return value | dict(zip(("estimate", "low", "high"), turned, strict=True))
    return None


def _cell(entry: Entry | None, words: str, x: float, y: float) -> list[Markup]:
    box = {"x": x + 2, "y": y + 2, "width": CELL_WIDTH - 4.0, "height": CELL_HEIGHT - 4.0, "rx": 4}
    middle = x + CELL_WIDTH / 2
    if entry is None or entry["estimate"] is None:
        shown = [] if entry is None else [text(middle, y + CELL_HEIGHT / 2 + 4.5, "–", "tick", "middle")]
        return [element("rect", **box, class_="cell empty"), *shown]
    said = verdict(entry)
    strength = 0.12 + 0.75 * abs(entry["estimate"] - 0.5) if is_decided(entry) else 0.0
    style = said.replace(" ", "-")
    title = element("title", f"{words}: {share_text(entry)}, {counted(entry['n'], 'pair')}, {said}")
    return [
        element("rect", title, **box, class_=f"cell {style}", fill_opacity=strength),
        text(middle, y + 26, typographic(f"{100 * entry['estimate']:.0f} %"), f"share {style}", "middle"),
        text(middle, y + 43, typographic(interval_text(entry)), "tick", "middle"),
    ]


def length_plot(entries: Sequence[Entry], colours: Mapping[str, int], title: str, layout: Layout = WIDE) -> Markup:
    """Return each pair's raw win rate above the one at equal lengths; far apart, length did the winning."""
    scale = Scale(0.0, 100.0, layout.start, layout.end)
    height = PAIR_ROW + (44 if layout.stacked else 0)
    bottom = 4 + height * len(entries)
    parts: list[Markup] = [
        text((layout.start + layout.end) / 2, bottom + 34, "per cent of pairs won", "tick", "middle")
    ]
    for tick in range(0, 101, 20):
        parts.append(line(scale(tick), 4, scale(tick), bottom, "grid"))
        parts.append(text(scale(tick), bottom + 17, str(tick), "tick", "middle"))
    parts.append(line(scale(50), 4, scale(50), bottom, "zero"))
    for index, entry in enumerate(entries):
        y = 4 + height * (index + 0.5)
        own = colour(colours[entry["policy"]])
        label, where = f"{entry['policy']} against {entry['opponent']}", f"{entry['suite']}, {entry['judge']}"
        if layout.stacked:
            parts.append(text(layout.start, y - 30, f"{label}: {where}", "label", limit=50))
        else:
            parts.append(text(layout.start - 14, y - 2, label, "label", "end", limit=31))
            parts.append(text(layout.start - 14, y + 13, where, "tick", "end", limit=36))
        shift = 20 if layout.stacked else 9
        for offset, value, style, name in (
            (-shift / 2 if layout.stacked else -shift, entry, "filled", "raw"),
            (shift, entry["length_controlled"], "hollow", "length-controlled"),
        ):
            parts += _share(value, own, scale, y + offset, style, name, layout)
    return picture(layout.width, bottom + 44, title, parts)


def _share(
    value: Entry | None, own: str, scale: Scale, y: float, style: str, name: str, layout: Layout
) -> list[Markup]:
    shown = "not estimable" if value is None or value["estimate"] is None else typographic(share_text(value))
    if layout.stacked:
        parts = [text(layout.end, y + 4.5, f"{name} {shown}", "number small", "end")]
        y += 12
    else:
        parts = [text(layout.end + 16, y + 4.5, f"{name} {shown}", "number small")]
    if value is None or value["estimate"] is None:
        return parts
    if value["low"] is not None:
        parts.append(line(scale(100 * value["low"]), y, scale(100 * value["high"]), y, f"whisker {own}"))
    return [*parts, element("circle", cx=scale(100 * value["estimate"]), cy=y, r=5, class_=f"mark {style} {own}")]


def rating_plot(entries: Sequence[Entry], colours: Mapping[str, int], title: str, layout: Layout = WIDE) -> Markup:
    """Return the policies on one scale, the best on top; 400 apart, the better one wins ten times in eleven."""
    known = [entry for entry in entries if entry["estimate"] is not None]
    held = [entry[key] for entry in known for key in ("estimate", "low", "high") if entry[key] is not None]
    scale = scale_around(held, layout.start, layout.end)
    bottom = 4 + layout.row * len(entries)
    parts = horizontal_axis(scale, 4, bottom, "rating, 1,000 on average", layout.width)
    for index, entry in enumerate(entries):
        y, own = 4 + layout.row * (index + 0.5), colour(colours[entry["policy"]])
        parts += row_texts(layout, y, str(entry["policy"]), rating_text(entry), "number")
        y += 9 if layout.stacked else 0
        if entry["low"] is not None:
            parts.append(line(scale(entry["low"]), y, scale(entry["high"]), y, f"whisker {own}"))
        if entry["estimate"] is not None:
            parts.append(element("circle", cx=scale(entry["estimate"]), cy=y, r=5.5, class_=f"mark filled {own}"))
    return picture(layout.width, bottom + 44, title, parts)


def reliability_diagram(bins: Sequence[Entry], title: str) -> Markup:
    """Return how often verdicts of each confidence are right; on the diagonal confidence means what it says."""
    left, right, top, bottom = 52.0, 312.0, 36.0, 252.0
    across, up = Scale(50.0, 100.0, left, right), Scale(0.0, 100.0, bottom, top)
    parts: list[Markup] = [text(4, 16, title, "caption", limit=42)]
    for tick in (50, 60, 70, 80, 90, 100):
        parts.append(text(across(tick), bottom + 17, str(tick), "tick", "middle"))
    for tick in (0, 25, 50, 75, 100):
        parts.append(line(left, up(tick), right, up(tick), "grid"))
        parts.append(text(left - 7, up(tick) + 4, str(tick), "tick", "end"))
    parts.append(
        text((left + right) / 2, bottom + 34, "confidence, per cent; right, per cent, upwards", "tick", "middle")
    )
    parts.append(line(across(50), up(50), across(100), up(100), "even"))
    most = max((entry["accuracy"]["n"] for entry in bins), default=1)
    for entry in bins:
        right, x = entry["accuracy"], across(100 * entry["confidence"])
        if right["estimate"] is None:
            continue
        if right["low"] is not None:
            parts.append(line(x, up(100 * right["low"]), x, up(100 * right["high"]), f"whisker {colour(1)}"))
        words = f"said {100 * entry['confidence']:.0f} %, right {share_text(right)}, {counted(right['n'], 'verdict')}"
        mark = {"cx": x, "cy": up(100 * right["estimate"]), "r": 3.0 + 3.0 * (right["n"] / most) ** 0.5}
        parts.append(element("circle", element("title", words), **mark, class_=f"mark filled {colour(1)}"))
    return picture(SQUARE, bottom + 44, title, parts)
