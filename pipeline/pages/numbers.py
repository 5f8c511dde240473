"""How numbers are written, on pages and on the terminal: as many digits as their interval supports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DECIMALS = 6


def decimals_for(low: float | None, high: float | None, estimate: float) -> int:
    """Return how many decimals an estimate deserves: its interval's half-width keeps one or two significant digits.

    A limit that is not zero is not written as zero, so that an interval that excludes zero also shows it.
    """
    if low is None or high is None or high <= low:
        return max(0, min(MAX_DECIMALS, 2 - _exponent(estimate))) if estimate else 0
    half = (high - low) / 2
    exponent = _exponent(half)
    leading = half / 10**exponent
    decimals = max(0, min(MAX_DECIMALS, -exponent + (1 if leading < 2 else 0)))
    while decimals < MAX_DECIMALS and any(limit and not round(limit, decimals) for limit in (low, high)):
        decimals += 1
    return decimals


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """Write a number with a fixed number of decimals; zero has no minus."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''},.{decimals}f}"


def compact(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, and without zeros at its end."""
    if value == 0:
        return "0"
    exponent = _exponent(float(f"{value:.{digits - 1}e}"))
    if exponent < -4 or exponent >= 6:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"
    text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def estimate_text(entry: Mapping[str, Any]) -> str:
    """Write a metric's estimate without its interval: ``62 %``, ``+12 points``, ``-0.31``."""
    value = entry["estimate"]
    if value is None:
        return "not estimable"
    scale, unit = _scale(entry)
    decimals = decimals_for(*_scaled_limits(entry, scale), value * scale)
    return f"{fixed(value * scale, decimals, sign=_is_difference(entry))}{unit}"


def interval_text(entry: Mapping[str, Any]) -> str:
    """Write a metric's interval: ``[48, 76]``; an absent one is said to be absent."""
    if entry["estimate"] is None:
        return ""
    scale, _ = _scale(entry)
    low, high = _scaled_limits(entry, scale)
    if low is None or high is None:
        return "[no interval]"
    decimals = decimals_for(low, high, entry["estimate"] * scale)
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def metric_text(entry: Mapping[str, Any]) -> str:
    """Write a metric's estimate with its interval: ``+12 points [3, 21]``."""
    return f"{estimate_text(entry)} {interval_text(entry)}".rstrip()


def excludes_zero(entry: Mapping[str, Any]) -> bool:
    """Whether a difference's interval lies on one side of zero."""
    low, high = entry["low"], entry["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def verdict(entry: Mapping[str, Any]) -> str:
    """Return what a difference says: better, worse, different, no clear difference, or not estimable."""
    if entry["low"] is None:
        return "not estimable"
    if not excludes_zero(entry):
        return "no clear difference"
    if entry["higher_is_better"] is None:
        return "different"
    return "better" if (entry["estimate"] > 0) == entry["higher_is_better"] else "worse"


def cost_text(name: str, value: Any) -> str:
    """Write one cost with its name as words: ``wall seconds 412``, ``peak memory 1.25 GB``."""
    words = name.replace("_", " ")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{words} {'unknown' if value is None else value}"
    if name.endswith("_bytes"):
        return f"{words.removesuffix(' bytes')} {compact(value / 1e9)} GB"
    return f"{words} {compact(value)}"


def counted(number: int, noun: str) -> str:
    """Write a count with its noun: ``1 item``, ``24 items``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def summed(counts: Mapping[str, int], total: str) -> str:
    """Write counts that add up to one of them as that sum: ``12 given = 2 skipped + 10 counted``."""
    terms = [f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items() if value and name != total]
    return f"{counts[total]:,} {total} = {' + '.join(terms) or 'none'}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _is_difference(entry: Mapping[str, Any]) -> bool:
    return entry["baseline"] is not None


def _scale(entry: Mapping[str, Any]) -> tuple[float, str]:
    """Shares are written in per cent and their differences in points; other units stand in the metric's name."""
    if entry["unit"] == "share":
        return 100.0, " points" if _is_difference(entry) else " %"
    return 1.0, ""


def _scaled_limits(entry: Mapping[str, Any], scale: float) -> tuple[float | None, float | None]:
    low, high = entry["low"], entry["high"]
    return (None, None) if low is None or high is None else (low * scale, high * scale)
