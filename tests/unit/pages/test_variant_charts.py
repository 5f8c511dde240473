"""Quality against cost: which ways to run a policy are beaten by none, and where they stand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.pages.charts import NARROW, WIDE, Layout
from pipeline.pages.variant_charts import cheapest_first, quality_against_cost


def variant(name: str, seconds: float | None, estimate: float | None, error: str | None = None) -> dict[str, Any]:
    around = None if estimate is None else {"estimate": estimate, "low": estimate - 0.05, "high": estimate + 0.05}
    times = None if seconds is None else {"seconds_per_1000": seconds}
    return {"name": name, "times": times, "difference": around, "error": error}


VARIANTS = [
    variant("fp32", 400, None),  # the reference
    variant("bf16", 300, -0.01),
    variant("int8", 200, -0.10),
    variant("batch 1", 900, 0.0),  # as good as the reference, and slower
    variant("merged", 380, 0.02),  # better and faster than the reference
    variant("other", None, None, "out of memory"),
]


def test_what_another_beats_in_both_is_not_on_the_line() -> None:
    assert cheapest_first(VARIANTS) == ["int8", "bf16", "merged"]
    assert cheapest_first(VARIANTS[:2]) == ["bf16", "fp32"]


def test_the_plot_puts_cost_across_and_quality_up() -> None:
    chart = quality_against_cost(VARIANTS, "quality")
    assert chart is not None
    root = ElementTree.fromstring(chart)
    found = {}
    for circle in root.iter("circle"):
        (title,) = circle
        found[str(title.text).split(":")[0]] = circle
    assert sorted(found) == ["batch 1", "bf16", "fp32", "int8", "merged"]
    across = [float(found[name].get("cx", "")) for name in ("int8", "bf16", "merged", "fp32", "batch 1")]
    assert across == sorted(across)
    up = {name: float(circle.get("cy", "")) for name, circle in found.items()}
    assert up["merged"] < up["fp32"] == up["batch 1"] < up["bf16"] < up["int8"]  # a picture counts downwards
    (zero,) = [line for line in root.iter("line") if line.get("class") == "zero"]
    assert float(zero.get("y1", "")) == pytest.approx(up["fp32"], abs=0.02)
    assert ["filled" in found[name].get("class", "") for name in ("int8", "batch 1")] == [True, False]
    assert quality_against_cost(VARIANTS[:1], "quality") is None
    names = [text for text in root.iter("text") if text.get("class") == "number small"]
    assert {str(name.text) for name in names} == set(found)
    # They stand in one column right of every mark.
    (column,) = {float(name.get("x", "")) for name in names}
    assert column > max(float(circle.get("cx", "")) for circle in found.values())


@pytest.mark.parametrize("layout", [WIDE, NARROW])
def test_names_stay_apart_however_close_the_marks_are(layout: Layout) -> None:
    many = [variant(f"variant {number:02}", 400 + number, -0.001 * (number % 3)) for number in range(12)]
    root = ElementTree.fromstring(quality_against_cost(many, "quality", layout) or "")
    heights = sorted(float(text.get("y", "")) for text in root.iter("text") if text.get("class") == "number small")
    assert min(b - a for a, b in pairwise(heights)) > 12
    assert heights[-1] < float(str(root.get("viewBox")).split()[3])
    assert quality_against_cost([], "quality") is None
