"""What an interval decides about a margin: yes, no, or that there are too few items to say."""

from __future__ import annotations

from enum import StrEnum

from pipeline.statistics.intervals import Estimate


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
