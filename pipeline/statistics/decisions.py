"""What an interval decides about a margin: yes, no, or that there are too few items to say."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pipeline.statistics.intervals import Estimate
from pipeline.statistics.power import minimum_detectable


class Decision(StrEnum):
    """The outcome of a comparison with a margin."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def not_worse(difference: Estimate, margin: float) -> Decision:
    """Decide whether new is at most ``margin`` worse than old, given new - old where more is better.

    PASS: the whole interval lies above -margin. FAIL: it does not, and the whole interval lies below zero, so that new
    is worse. INCONCLUSIVE: neither, or no interval. Two equal systems fail as often as an interval misses on one side.
    """
    if margin < 0:
        raise ValueError("a margin must not be negative")
    if difference.low is None or difference.high is None:
        return Decision.INCONCLUSIVE
    if difference.low > -margin:
        return Decision.PASS
    return Decision.FAIL if difference.high < 0 else Decision.INCONCLUSIVE


def better(difference: Estimate, margin: float = 0.0) -> Decision:
    """Decide whether new is better than old by more than ``margin``, given new - old where more is better.

    PASS: the whole interval lies above the margin. FAIL: the whole interval lies below it. INCONCLUSIVE otherwise.
    """
    if margin < 0:
        raise ValueError("a margin must not be negative")
    if difference.low is None or difference.high is None:
        return Decision.INCONCLUSIVE
    if difference.low > margin:
        return Decision.PASS
    return Decision.FAIL if difference.high < margin else Decision.INCONCLUSIVE


def gate_entry(
    name: str, what: str, estimate: Estimate, outcome: Decision, *, items: str = "items", confidence: float = 0.95
) -> dict[str, Any]:
    """Return a gate as an artifact's manifest holds it: the outcome, the numbers behind it, and both in words.

    Args:
        name: Of the gate.
        what: The claim, with its margin; the reason begins with it.
        estimate: Whose interval decided.
        outcome: What it decided.
        items: What was counted.
        confidence: Of the interval.
    """
    numbers = "nothing to estimate from" if estimate.estimate is None else f"{estimate.estimate:.3f}"
    if estimate.low is not None and estimate.high is not None:
        numbers += f" ({estimate.low:.3f} to {estimate.high:.3f})"
    detectable = minimum_detectable(estimate, confidence=confidence)
    power = "" if detectable is None else f"; {detectable:.3f} would be seen four times in five"
    return {
        "name": name, "outcome": outcome.value, "estimate": estimate.estimate, "low": estimate.low,
        "high": estimate.high, "n": estimate.n, "minimum_detectable": detectable,
        "reason": f"{what}: {numbers} on {estimate.n} {items}{power}",
    }  # fmt: skip
