"""How numbers are written, on pages and on the terminal: as many digits as their interval supports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DECIMALS = 6
WIN_RATE = "win rate"  # a unit: a share that is one half where there is no difference
WINS = "wins"  # a unit: a share of wins over one opponent, of which two policies may have different ones
METRIC_WORDS = {
    "all_checks": "items that pass all checks",
    "finished": "finished completions",
    "unscored_share": "share without a result",
}


def metric_words(metric: str) -> str:
    """Return a metric's name as words in a sentence."""
    kind, _, judge = metric.partition("/")
    if kind == "judge_qualified":
        return f"whether the judge {judge} has qualified"
    if judge:
        return f"{kind.replace('_', ' ')} by {judge}"
    return METRIC_WORDS.get(metric, metric.replace("_", " "))


def metric_subject(entry: Mapping[str, Any]) -> str:
    """Return a metric with its suite as words in a sentence."""
    return f"{metric_words(entry['metric'])} ({entry['suite']})"


def neutral(unit: str) -> float:
    """Return the value of a comparison in which neither is better."""
    return 0.5 if unit == WIN_RATE else 0.0


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


def share_text(value: Mapping[str, Any]) -> str:
    """Write a share that has a name of its own, with its interval: ``62 % [55, 68]``."""
    return metric_text({**value, "unit": "share", "baseline": None})


def points_text(value: Mapping[str, Any]) -> str:
    """Write a difference of shares that has a name of its own, with its interval: ``+12 points [3, 21]``."""
    return metric_text({**value, "unit": "share", "baseline": ""})


def rating_text(value: Mapping[str, Any]) -> str:
    """Write a rating with its interval: ``1,120 [1,050, 1,190]``."""
    return metric_text({**value, "unit": "rating", "baseline": None})


def p_text(p: float) -> str:
    """Write a p-value with two digits: ``p 0.034``; what is smaller than a thousandth only as that."""
    return "p < 0.001" if p < 0.001 else f"p {compact(p, 2)}"


def summed_words(counts: Mapping[str, int]) -> str:
    """Write counts by reason: ``3 refused, 1 timeout``; ``0`` where nothing was counted."""
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()) if number) or "0"


def is_decided(entry: Mapping[str, Any]) -> bool:
    """Whether a comparison's interval lies on one side of no difference."""
    low, high, even = entry["low"], entry["high"], neutral(entry["unit"])
    return low is not None and high is not None and (low > even or high < even)


def verdict(entry: Mapping[str, Any]) -> str:
    """Return what a comparison says: better, worse, different, no clear difference, or not estimable."""
    if entry["low"] is None:
        return "not estimable"
    if not is_decided(entry):
        return "no clear difference"
    if entry["higher_is_better"] is None:
        return "different"
    return "better" if (entry["estimate"] > neutral(entry["unit"])) == entry["higher_is_better"] else "worse"


def cost_text(name: str, value: Any) -> str:
    """Write one cost with its name as words: ``wall seconds 412``, ``peak memory 1.25 GB``."""
    words = name.replace("_", " ")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{words} {'unknown' if value is None else value}"
    if name.endswith("_bytes"):
        return f"{words.removesuffix(' bytes')} {compact(value / 1e9)} GB"
    return f"{words} {compact(value)}"


def number_text(value: float | Mapping[str, Any] | None, unit: str = "") -> str:
    """Write a number, or an estimate, short: ``0.97``; a ``share`` in per cent, ``points`` with a sign."""
    estimate = value["estimate"] if isinstance(value, Mapping) else value
    if estimate is None:
        return "–"
    if not unit:
        return compact(estimate)
    return f"{fixed(100 * estimate, 0, sign=unit == 'points')}\N{NO-BREAK SPACE}{'%' if unit == 'share' else unit}"


def setting_text(value: Any) -> str:
    """Write a value of a configuration short: ``0.0001``, ``null``, ``true``."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(setting_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration_text(seconds: float) -> str:
    """Write a duration as people say it: ``0.4 s``, ``52 s``, ``6 min 52 s``, ``3 h 05 min``."""
    if seconds < 60:
        return f"{compact(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


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
    return entry["baseline"] is not None and entry["unit"] != WIN_RATE


def _scale(entry: Mapping[str, Any]) -> tuple[float, str]:
    """Shares are written in per cent and their differences in points; other units stand in the metric's name."""
    if entry["unit"] in ("share", WIN_RATE, WINS):
        return 100.0, " points" if _is_difference(entry) else " %"
    return 1.0, ""


def _scaled_limits(entry: Mapping[str, Any], scale: float) -> tuple[float | None, float | None]:
    low, high = entry["low"], entry["high"]
    return (None, None) if low is None or high is None else (low * scale, high * scale)
