"""Labelled completions as tokens, each beside an unrelated completion of the same prompt.

The loss of KTO measures how far the policy has moved on completions that have nothing to do with their prompts
(arXiv:2402.01306, section 4.1). Every row is given one: its own prompt before the completion of another prompt. Which
one follows from the rows alone, neither from a batch nor from a seed, so that a reference can be scored once for all
runs. TRL rotates the completions of a batch instead: there the two completions of one comparison, which stand next to
each other, become each other's "unrelated" ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.artifacts.artifact import Artifact
from pipeline.config.kto import ThumbRows
from pipeline.data.encode import Chat, Dropped, Encoded, EncodingCounts, encode_comparison, encode_unpaired
from pipeline.data.pairs import OTHER_FOLD
from pipeline.data.rows import Comparison, Unpaired, prompt_hash
from pipeline.data.tables import part_name, read_table

SPLITS = ("train", "validation")
UNDECIDED = "undecided"  # a comparison whose sides are as likely to be the better one: neither is good or bad


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumb:
    """One completion and its label."""

    id: str
    source: str
    cluster: str  # hash of the prompt
    own: Encoded
    mismatched: Encoded  # the same prompt before the completion of another one
    label: bool  # True: good
    confidence: float  # probability in [0.5, 1] that the label is right

    @property
    def sides(self) -> tuple[Encoded, Encoded]:
        """What a reference scores."""
        return self.own, self.mismatched

    @property
    def longest(self) -> int:
        """Tokens of the longer of both."""
        return max(len(self.own.input_ids), len(self.mismatched.input_ids))

    @property
    def num_tokens(self) -> int:
        """Tokens of both."""
        return len(self.own.input_ids) + len(self.mismatched.input_ids)


@dataclass(kw_only=True)
class ThumbCounts(EncodingCounts):
    """What became of the labelled completions; a comparison gives two."""

    good: int = 0  # of the encoded
    bad: int = 0
    from_comparisons: int = 0  # of the given

    def as_dict(self) -> dict[str, Any]:
        """For metrics and reports."""
        own = {"good": self.good, "bad": self.bad, "from_comparisons": self.from_comparisons}
        return {**super().as_dict(), **own}

    def __str__(self) -> str:
        """Say it in one line."""
        dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(self.dropped.items())) or "none"
        return (
            f"{self.given} labelled completions ({self.from_comparisons} of them sides of comparisons) = {self.good} "
            f"good + {self.bad} bad + {sum(self.dropped.values())} dropped ({dropped}); {self.total_tokens:,} tokens, "
            f"{self.supervised_tokens:,} of completions; the longest has {self.longest}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRow:
    """One completion and its label, before it has an unrelated one."""

    id: str
    source: str
    cluster: str
    own: Encoded
    label: bool
    confidence: float


@dataclass(kw_only=True)
class LabelledRows:
    """What a split has, and the counts that account for what is missing."""

    rows: list[LabelledRow] = field(default_factory=list)
    counts: ThumbCounts = field(default_factory=ThumbCounts)

    def add(self, row: Unpaired | Comparison, encoded: Encoded | Dropped, *, label: bool, name: str) -> None:
        """Take in one completion or count why it is missing."""
        self.counts.add(encoded)
        self.counts.from_comparisons += isinstance(row, Comparison)
        if isinstance(encoded, Dropped):
            return
        self.counts.good += label
        self.counts.bad += not label
        self.rows.append(
            LabelledRow(
                id=name,
                source=row.source,
                cluster=prompt_hash(row.prompt)[:16],
                own=encoded,
                label=label,
                confidence=row.confidence,
            )
        )


def read_labelled(
    dataset: Artifact, chat: Chat, *, rows: ThumbRows, folds: Collection[int], max_length: int
) -> dict[str, LabelledRows]:
    """Read and encode the train and validation rows of a data set that ``rows`` names."""
    parts = dataset.manifest.parts
    has_thumbs = any(part_name("unpaired", split) in parts for split in SPLITS)
    takes_thumbs = rows is not ThumbRows.comparisons
    takes_pairs = rows in {ThumbRows.comparisons, ThumbRows.both} or (rows is ThumbRows.auto and not has_thumbs)
    found = {}
    for split in SPLITS:
        thumbs = takes_thumbs and part_name("unpaired", split) in parts
        pairs = takes_pairs and part_name("comparisons", split) in parts
        found[split] = encode_thumbs(
            read_table(dataset, "unpaired", split, Unpaired) if thumbs else [],
            read_table(dataset, "comparisons", split, Comparison) if pairs else [],
            chat,
            max_length=max_length,
            folds=folds,
        )
    return found


def encode_thumbs(
    unpaired: Iterable[Unpaired],
    comparisons: Iterable[Comparison],
    chat: Chat,
    *,
    max_length: int,
    folds: Collection[int],
) -> LabelledRows:
    """Encode labelled completions, and the sides of comparisons as such; count what is kept and dropped.

    Args:
        unpaired: Of one split.
        comparisons: Of the same split: chosen counts as good and rejected as bad with the comparison's confidence.
        chat: Tokenizer and template.
        max_length: A completion that has more tokens with its prompt is dropped, of a comparison both sides.
        folds: Only comparisons of these folds are kept. One without a fold is in every fold.
    """
    found = LabelledRows()
    for row in unpaired:
        found.add(row, encode_unpaired(row, chat, max_length), label=row.label, name=row.id)
    for pair in comparisons:
        sides = _encode_sides(pair, chat, max_length, folds)
        for label, encoded in zip((True, False), sides, strict=True):
            found.add(pair, encoded, label=label, name=f"{pair.id}/{'chosen' if label else 'rejected'}")
    return found


def _encode_sides(
    pair: Comparison, chat: Chat, max_length: int, folds: Collection[int]
) -> tuple[Encoded | Dropped, Encoded | Dropped]:
    if pair.fold is not None and pair.fold not in folds:
        return Dropped(OTHER_FOLD), Dropped(OTHER_FOLD)
    if pair.confidence == 0.5:
        return Dropped(UNDECIDED), Dropped(UNDECIDED)
    sides = encode_comparison(pair, chat, max_length)
    return (sides, sides) if isinstance(sides, Dropped) else sides


def with_mismatched(rows: Sequence[LabelledRow], others: Sequence[LabelledRow], max_length: int) -> list[Thumb]:
    """Give each row its unrelated completion.

    Args:
        rows: Of one split.
        others: Whose completions are taken where all of ``rows`` answer one prompt, as few validation rows may.
        max_length: A longer one is cut on the right: what was judged is elsewhere.

    Returns:
        The rows in their order; empty where there is no other prompt anywhere.
    """
    partners = _partners(rows) or _partners([*rows, *others])
    if not partners:
        return []
    return [
        Thumb(
            id=row.id,
            source=row.source,
            cluster=row.cluster,
            own=row.own,
            mismatched=_joined(row.own, partners[number].own, max_length),
            label=row.label,
            confidence=row.confidence,
        )
        for number, row in enumerate(rows)
    ]


def _partners(rows: Sequence[LabelledRow]) -> list[LabelledRow]:
    """Return for each row the next one with another prompt, in the circle of all rows by the hash of their ids."""
    circle = sorted(range(len(rows)), key=lambda number: hashlib.sha256(rows[number].id.encode()).digest())
    if len({row.cluster for row in rows}) < 2:
        return []
    found: dict[int, int] = {}
    after = circle[0]  # the row that follows, and whose own partner is taken where it has the same prompt
    for number in reversed([*circle, *circle]):  # twice around: then the last one's partner is known
        if rows[after].cluster != rows[number].cluster:
            found[number] = after
        elif after in found:
            found[number] = found[after]
        after = number
    return [rows[found[number]] for number in range(len(rows))]


def _joined(prompt: Encoded, completion: Encoded, max_length: int) -> Encoded:
    """Return the prompt's tokens of one row before what follows the prompt in another."""
    own, other = (row.completion_mask.index(True) for row in (prompt, completion))
    ids = [*prompt.input_ids[:own], *completion.input_ids[other:]]
    mask = [*prompt.completion_mask[:own], *completion.completion_mask[other:]]
    return Encoded(
        id=prompt.id,
        input_ids=ids[:max_length],
        completion_mask=mask[:max_length],
        truncated=len(ids) > max_length,
    )
