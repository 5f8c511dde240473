"""What a benchmark consists of, and what one repetition measures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Measurement:
    """One repetition of one variant, in one process."""

    seconds: float  # of the timed steps: imports, loading and the first step are left out
    processed: int  # tokens without padding in the timed steps
    supervised: int  # tokens that the loss is about in the timed steps
    peak_bytes: int  # resident memory of the whole process at its highest
    dtype: str
    losses: list[float] = field(default_factory=list)  # of every optimizer step
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Speed: what padding a variant computes counts for nothing."""
        return self.processed / self.seconds

    def summary(self) -> str:
        """Say it in one line."""
        return (
            f"{self.tokens_per_second:.0f} tokens/s ({self.processed:,} processed, {self.supervised:,} supervised, "
            f"{self.seconds:.1f} s), peak {self.peak_bytes / 1e9:.2f} GB, {self.dtype}"
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Variants that do the same work."""

    variants: tuple[str, ...]
    measure: Callable[[str, argparse.Namespace], Measurement]  # one repetition of one variant, in this process
    summarise: Callable[[dict[str, list[Measurement]]], dict[str, Any]]
    measured_once: frozenset[str] = frozenset()  # variants that compare results and not speed
