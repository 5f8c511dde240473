"""A gate as a small picture: its interval, where there is no difference, and what it must clear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipeline.pages.numbers import neutral
from pipeline.pages.svg import element, line, picture, scale_around

WIDTH, HEIGHT = 190, 30


def gate_bar(gate: Mapping[str, Any]) -> Markup | None:
    """Return the interval of a gate beside its bound; nothing where no interval decides it."""
    if gate["minimum_detectable"] is None:
        return None
    even = neutral(gate["unit"])
    bound = gate["bound"]
    if bound is None:
        towards = 1.0 if gate["higher_is_better"] else -1.0
        bound = even + towards * (gate["margin"] if gate["kind"] == "superiority" else -gate["margin"])
    held = [gate["low"], gate["high"], bound, *([even] if gate["bound"] is None else [])]
    scale, y, style = scale_around(held, 4, WIDTH - 4), HEIGHT / 2, gate["outcome"].lower()
    parts = [line(4, y, WIDTH - 4, y, "grid")]
    if gate["bound"] is None:
        parts.append(line(scale(even), 3, scale(even), HEIGHT - 3, "zero"))
    parts.append(line(scale(bound), 3, scale(bound), HEIGHT - 3, "bound"))
    parts.append(line(scale(gate["low"]), y, scale(gate["high"]), y, f"whisker {style}"))
    parts.append(element("circle", cx=scale(gate["estimate"]), cy=y, r=5, class_=f"mark filled {style}"))
    return picture(WIDTH, HEIGHT, f"{gate['name']}: the interval, no difference (solid) and the bound (dashed)", parts)
