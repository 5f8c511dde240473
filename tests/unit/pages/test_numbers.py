"""Numbers are written with the digits that their interval supports."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.pages.numbers import compact, cost_text, counted, decimals_for, fixed, metric_text, verdict
from pipeline.pages.text import typographic, visible


def entry(estimate: float | None, low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    base = {"baseline": "base", "unit": "bits/byte", "higher_is_better": False}
    return {"estimate": estimate, "low": low, "high": high} | base | changes


@pytest.mark.parametrize(
    ("low", "high", "estimate", "decimals"),
    [
        (-0.36, -0.27, -0.31, 2),  # half-width 0.045: one digit
        (0.60, 0.63, 0.61, 3),  # half-width 0.015: a leading 1 gets two
        (48.0, 76.0, 62.0, 0),
        (0.004, 1.2, 0.6, 3),  # with one decimal the lower limit would read 0.0, and it is not zero
        (-0.5, 0.0, -0.25, 1),  # a limit of exactly zero asks for nothing more
        (None, None, 1.5, 2),
        (None, None, 0.0, 0),
    ],
)
def test_decimals(low: float | None, high: float | None, estimate: float, decimals: int) -> None:
    assert decimals_for(low, high, estimate) == decimals


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (metric_text(entry(-0.3141, -0.36, -0.27)), "-0.31 [-0.36, -0.27]"),
        (metric_text(entry(0.62, 0.48, 0.76, unit="share")), "+62 points [48, 76]"),
        (metric_text(entry(0.62, 0.48, 0.76, unit="share", baseline=None)), "62 % [48, 76]"),
        (metric_text(entry(0.0, -0.1, 0.1, unit="share")), "0 points [-10, 10]"),
        (metric_text(entry(1.5, None, None)), "+1.50 [no interval]"),
        (metric_text(entry(None, None, None)), "not estimable"),
        (fixed(-0.001, 1, sign=True), "0.0"),
        (fixed(12345.6, 1), "12,345.6"),
        (compact(0), "0"),
        (compact(63.12345), "63.1"),
        (compact(412000.0), "412,000"),
        (compact(2e-5), "2e-5"),
        (compact(1.0), "1"),
        (compact(9999999), "1e7"),
        (counted(1, "item"), "1 item"),
        (cost_text("peak_memory_bytes", 1_250_000_000), "peak memory 1.25 GB"),
        (cost_text("tokens_per_second", None), "tokens per second unknown"),
        (cost_text("device", "cpu"), "device cpu"),
        (counted(2400, "item"), "2,400 items"),
        (typographic("-0.31 [-0.36, 2e-4]"), "−0.31 [−0.36,\N{NO-BREAK SPACE}2e−4]"),
        (typographic("held-out bits"), "held-out bits"),
        (typographic("run-7: -0.5"), "run-7: −0.5"),
    ],
)
def test_written(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "expected"),
    [
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.3, -0.1, False, "better"),
        (-0.3, -0.1, None, "different"),
        (-0.1, 0.3, True, "no clear difference"),
        (0.0, 0.3, True, "no clear difference"),
        (None, None, True, "not estimable"),
    ],
)
def test_verdicts(low: float | None, high: float | None, higher_is_better: bool | None, expected: str) -> None:
    estimate = 0.2 if low is None or high is None else (low + high) / 2
    assert verdict(entry(estimate, low, high, higher_is_better=higher_is_better)) == expected


def test_control_characters_can_be_seen_and_do_nothing() -> None:
    assert visible("a\x00\x1b[31m\x7f\tb\nc\r\nd\re") == "a␀␛[31m␡\tb\nc\nd␍e"
    assert visible("\u202eevil\u2066 \ud800\x85") == "‹U+202E›evil‹U+2066› \ufffd\ufffd"
    assert visible("שלום 🙂 café") == "שלום 🙂 café"
