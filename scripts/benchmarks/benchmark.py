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
    processed: int  # tokens without padding, or rows, in that time
    peak_bytes: int  # memory at its highest: resident of the one process, or that of it and all that it started
    unit: str = "tokens"
    supervised: int = 0  # tokens that the loss is about in the timed steps
    dtype: str = ""
    losses: list[float] = field(default_factory=list)  # of every optimizer step
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Speed: what padding a variant computes counts for nothing."""
        return self.processed / self.seconds

    def summary(self) -> str:
        """Say it in one line."""
        supervised = f"{self.supervised:,} supervised, " if self.supervised else ""
        about = [self.dtype] if self.dtype else [f"{name} {value}" for name, value in self.notes.items()]
        return (
            f"{self.per_second:.4g} {self.unit}/s ({self.processed:,} processed, {supervised}{self.seconds:.1f} s), "
            f"peak {self.peak_bytes / 1e9:.2f} GB, {', '.join(about)}"
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Variants that do the same work."""

    variants: tuple[str, ...]
    default_rows: int
    measure: Callable[[str, argparse.Namespace], Measurement]  # one repetition of one variant, in this process
    summarise: Callable[[dict[str, list[Measurement]]], dict[str, Any]]
    measured_once: frozenset[str] = frozenset()  # variants that compare results and not speed
    peers: tuple[str, ...] = ()  # further variants, measured where `--peers` names them, because they must be installed
