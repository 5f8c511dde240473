"""Random draws that every Python repeats: all go through ``random()``, whose sequence is guaranteed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


class Chance:
    """A stream of draws that its name alone decides."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(name)

    def happens(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < probability

    def pick(self, things: Sequence[Thing]) -> Thing:
        """Return one of several."""
        return things[int(self._random.random() * len(things))]

    def shuffled(self, things: Sequence[Thing]) -> list[Thing]:
        """Return all of them in another order."""
        keyed = [(self._random.random(), number) for number in range(len(things))]
        return [things[number] for _, number in sorted(keyed)]

    def whole(self, limit: int) -> int:
        """Return a whole number from 0 to below the limit."""
        return int(self._random.random() * limit)

    def hexadecimal(self, digits: int) -> str:
        """Return so many random hexadecimal digits."""
        return "".join(self.pick("0123456789abcdef") for _ in range(digits))

    def normal(self) -> float:
        """Return a standard normal number (Box and Muller 1958)."""
        radius = math.sqrt(-2 * math.log(1 - self._random.random()))
        return radius * math.cos(2 * math.pi * self._random.random())
