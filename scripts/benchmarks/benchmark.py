"""What a benchmark consists of, and what one repetition measures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
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
    problem: Callable[[dict[str, Any]], str] = lambda summary: ""  # what of the results is wrong; "" where nothing is
    peers: tuple[str, ...] = ()  # further variants, measured where `--peers` names them, because they must be installed


def compared_losses(results: dict[str, list[Measurement]], ours: str, theirs: str) -> dict[str, Any]:
    """Compare the losses of every step, with all digits of float32; nothing where one variant was left out.

    Both may begin at the same number whatever is wrong, so how far ours move from there belongs to the result: equality
    of losses that stand still would show nothing.
    """
    if not results.get(ours) or not results.get(theirs):
        return {}
    own, others = results[ours][0].losses, results[theirs][0].losses
    return {
        "max_loss_difference": max(abs(a - b) for a, b in zip(own, others, strict=True)),
        "loss_moved_by": max(abs(loss - own[0]) for loss in own),
        "losses": {ours: own, theirs: others},
    }


def compared_speeds(
    results: dict[str, list[Measurement]], peers: Sequence[str], as_it_comes: Sequence[str]
) -> dict[str, Any]:
    """Return the ratios of the medians of `ours` to peers: to the best setting of any, and to the peer as it comes."""

    def speed(variant: str) -> float:
        return median(one.per_second for one in results[variant])

    def memory(variant: str) -> float:
        return median(one.peak_bytes for one in results[variant])

    measured = [variant for variant in peers if results.get(variant)]
    if not results.get("ours") or not measured:
        return {}
    summary: dict[str, Any] = {}
    plain = [variant for variant in as_it_comes if variant in measured]
    if plain:  # with --variants they may be left out, and nothing else stands for them
        summary["ratio"] = speed("ours") / max(map(speed, plain))
        summary["memory_ratio"] = memory("ours") / min(map(memory, plain))
    best = max(measured, key=speed)
    first = results["ours"][0]
    return {
        **summary,
        "best_ratio": speed("ours") / speed(best),
        "best_memory_ratio": memory("ours") / memory(best),
        "best_peer": best,
        f"{first.unit}_per_second": {variant: round(speed(variant), 3) for variant in ["ours", *measured]},
        "peak_gb": {variant: round(memory(variant) / 1e9, 2) for variant in ["ours", *measured]},
        "dtype": first.dtype,
    }
