"""Comparisons as tokens: which of them a stage learns from, and what became of the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.encode import Chat, Dropped, Encoded, encode_comparison
from pipeline.data.rows import Comparison, prompt_hash

OTHER_FOLD = "other_fold"  # kept for those who learn from other folds, such as a gold judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One comparison: both sides begin with the tokens of the same prompt."""

    id: str
    source: str
    cluster: str  # hash of the prompt: pairs of one prompt are no independent evidence
    chosen: Encoded
    rejected: Encoded
    confidence: float  # probability in [0.5, 1] that chosen is the better one; a tie counts half
    num_votes: int
    margin: float | None  # mean strength of the preference in rating units
    tie: float | None  # probability that both are equally good; None where a tie was no possible answer
    num_shared: int  # tokens that both sides begin with, at least one fewer than either has

    @property
    def sides(self) -> tuple[Encoded, Encoded]:
        """What a reference scores."""
        return self.chosen, self.rejected

    @property
    def longest(self) -> int:
        """Tokens of the longer side: what padding goes by."""
        return max(len(self.chosen.input_ids), len(self.rejected.input_ids))

    @property
    def num_tokens(self) -> int:
        """Tokens of both sides."""
        return len(self.chosen.input_ids) + len(self.rejected.input_ids)

    @property
    def num_packed(self) -> int:
        """Tokens of both sides where those that they share stand once."""
        return self.num_tokens - self.num_shared


@dataclass(kw_only=True)
class PairCounts:
    """What became of the comparisons: ``given = encoded + sum(dropped.values())``."""

    given: int = 0
    encoded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    total_tokens: int = 0  # of both sides
    completion_tokens: int = 0
    longest: int = 0  # tokens of the longest side

    def add(self, result: Pair | Dropped) -> None:
        """Count one comparison."""
        self.given += 1
        if isinstance(result, Dropped):
            self.dropped[result.reason] = self.dropped.get(result.reason, 0) + 1
            return
        self.encoded += 1
        self.total_tokens += result.num_tokens
        self.completion_tokens += result.chosen.num_supervised + result.rejected.num_supervised
        self.longest = max(self.longest, result.longest)

    def as_dict(self) -> dict[str, Any]:
        """For metrics and reports."""
        return {
            "given": self.given,
            "encoded": self.encoded,
            "dropped": dict(sorted(self.dropped.items())),
            "total_tokens": self.total_tokens,
            "completion_tokens": self.completion_tokens,
            "longest": self.longest,
        }

    def __str__(self) -> str:
        """Say it in one line."""
        dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(self.dropped.items())) or "none"
        return (
            f"{self.given} comparisons = {self.encoded} encoded + {sum(self.dropped.values())} dropped ({dropped}); "
            f"{self.total_tokens:,} tokens, {self.completion_tokens:,} of completions; the longest side has "
            f"{self.longest}"
        )


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Pairs in the order of their comparisons, and the counts that account for those that are missing."""

    pairs: list[Pair]
    counts: PairCounts


def encode_pairs(
    rows: Iterable[Comparison], chat: Chat, *, max_length: int, folds: Collection[int] | None = None
) -> EncodedPairs:
    """Encode comparisons and count what is kept and dropped.

    Args:
        rows: Comparisons of one split.
        chat: Tokenizer and template.
        max_length: A pair of which either side has more tokens is dropped.
        folds: Only comparisons of these folds are kept; None keeps all. One without a fold is in every fold.
    """
    kept: list[Pair] = []
    counts = PairCounts()
    for row in rows:
        result = _encode(row, chat, max_length, folds)
        counts.add(result)
        if isinstance(result, Pair):
            kept.append(result)
    return EncodedPairs(kept, counts)


def _encode(row: Comparison, chat: Chat, max_length: int, folds: Collection[int] | None) -> Pair | Dropped:
    if folds is not None and row.fold is not None and row.fold not in folds:
        return Dropped(OTHER_FOLD)
    sides = encode_comparison(row, chat, max_length)
    if isinstance(sides, Dropped):
        return sides
    return Pair(
        id=row.id,
        source=row.source,
        cluster=prompt_hash(row.prompt)[:16],
        chosen=sides[0],
        rejected=sides[1],
        confidence=row.confidence,
        num_votes=row.num_votes,
        margin=row.margin,
        tie=row.tie,
        num_shared=_num_shared(sides[0].input_ids, sides[1].input_ids),
    )


def _num_shared(first: list[int], second: list[int]) -> int:
    pairs = zip(first[:-1], second[:-1], strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)) - 1)
