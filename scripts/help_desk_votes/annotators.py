"""The planted annotators: what is known of each, and how a vote is drawn.

An attentive annotator looks at a pair whose utilities differ by ``gap`` and

1. calls it a tie with probability ``TIE_FLOOR + TIE_SPAN * exp(-gap / TIE_SCALE)``;
2. else names the better side with the annotator's ``accuracy``, and either side where the true verdict is a tie;
3. then the named side is flipped with probability ``FLIP``, a slip of the mouse.

So a named side is right with probability ``accuracy * (1 - FLIP) + (1 - accuracy) * FLIP``, whatever the gap: a Bayes
rule that knows the accuracies needs nothing else. The careless annotator has accuracy 0.5, a constant share of ties and
takes less than a second. The one who always clicks left does so without a slip, a tie or a skip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from help_desk_votes.chance import Chance
from help_desk_votes.pairs import Pair

FLIP = 0.08
TIE_FLOOR, TIE_SPAN, TIE_SCALE = 0.02, 0.6, 0.6
CARELESS_TIES = 0.1
GOLD_KEEPER = 10  # the user whose annotations are the ground truth; no annotator


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One of the eight."""

    user: int
    accuracy: float  # of naming the better side, before the flips
    kind: str = "attentive"  # or "careless" or "always_left"
    skips: float = 0.03

    @property
    def named_side_right(self) -> float:
        """Probability that a named side is the better one."""
        return self.accuracy if self.kind == "always_left" else self.accuracy * (1 - FLIP) + (1 - self.accuracy) * FLIP


ANNOTATORS = (
    Annotator(user=11, accuracy=0.98),
    Annotator(user=12, accuracy=0.96),
    Annotator(user=13, accuracy=0.94),
    Annotator(user=14, accuracy=0.92),
    Annotator(user=15, accuracy=0.89),
    Annotator(user=16, accuracy=0.86),
    Annotator(user=17, accuracy=0.5, kind="careless", skips=0.0),
    Annotator(user=18, accuracy=0.5, kind="always_left", skips=0.0),  # as often right as left is
)


@dataclass(frozen=True)
class Cast:
    """A vote before it is written: "left", "right" or "tie"."""

    annotator: Annotator
    verdict: str
    flipped: bool
    seconds: float


def tie_probability(annotator: Annotator, gap: float) -> float:
    """Return how likely the annotator calls a pair of this gap a tie."""
    if annotator.kind == "attentive":
        return TIE_FLOOR + TIE_SPAN * math.exp(-abs(gap) / TIE_SCALE)
    return CARELESS_TIES if annotator.kind == "careless" else 0.0


def cast(annotator: Annotator, pair: Pair, chance: Chance) -> Cast:
    """Draw a vote."""
    seconds = _seconds(annotator, pair, chance)
    if annotator.kind == "always_left":
        return Cast(annotator, "left", False, seconds)
    if chance.happens(tie_probability(annotator, pair.gap)):
        return Cast(annotator, "tie", False, seconds)
    better = pair.better if pair.better != "tie" else chance.pick(("left", "right"))
    meant = better if chance.happens(annotator.accuracy) else other(better)
    flipped = chance.happens(FLIP)
    return Cast(annotator, other(meant) if flipped else meant, flipped, seconds)


def other(side: str) -> str:
    """Return the other side."""
    return "right" if side == "left" else "left"


def _seconds(annotator: Annotator, pair: Pair, chance: Chance) -> float:
    """Draw a time: of reading for the attentive, of clicking for the others (log-normal)."""
    words = sum(len(text.split()) for text in (pair.prompt, *pair.answers))
    usual = {"attentive": 3 + 0.22 * words, "always_left": 2.4, "careless": 0.7}[annotator.kind]
    return round(usual * math.exp(0.35 * chance.normal()), 3)
