"""How often one policy beats another, and what a judge owes to the order in which it saw them.

A verdict is a number in [0, 1]: 1 means that the first named policy is better, whatever was shown first, and 1/2 is a
tie.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pipeline.statistics.clusters import finite_vector
from pipeline.statistics.intervals import Estimate, bounded_mean, proportion_interval, unit_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderEffects:
    """What changes when the same two completions are shown in the other order."""

    consistency: Estimate  # share of pairs with the same verdict in both orders
    first_slot_bias: Estimate  # P(the one shown first wins) - 1/2, ties counted as half


def win_rate(wins: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95) -> Estimate:
    """Return the mean verdict for the first policy.

    Wins less losses, 2w - 1, are numbers between -1 and 1 on identical items, so the interval is that of a difference
    of paired proportions: it keeps its width where one policy wins everything or everything is a tie.

    Args:
        wins: [n] verdicts; of a pair judged in both orders their mean.
        clusters: [n] what an item shares with others.
        confidence: Of the interval.
    """
    return unit_mean(wins, clusters, confidence)


def order_effects(
    forward: Sequence[float], backward: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> OrderEffects:
    """Return consistency and first-slot bias of pairs that were judged in both orders.

    Args:
        forward: [n] verdicts for the first policy where it was shown first.
        backward: [n] verdicts for the first policy too, where it was shown second.
        clusters: [n] what a pair shares with others.
        confidence: Of the intervals.
    """
    shown_first, shown_second = finite_vector(forward), finite_vector(backward)
    if len(shown_first) != len(shown_second):
        raise ValueError(f"both orders need the same pairs: got {len(shown_first)} and {len(shown_second)}")
    # Whoever is shown first wins v in the one order and 1 - v' in the other: (v + 1 - v') / 2 - 1/2.
    bias = bounded_mean(shown_first - shown_second, clusters, confidence)
    return OrderEffects(
        consistency=proportion_interval((shown_first == shown_second).tolist(), clusters, confidence),
        first_slot_bias=bias.moved(scale=0.5, shift=0.0),
    )
