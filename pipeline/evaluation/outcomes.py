"""What the rows of a judge come to for each item: who won, and whether the order mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.judges.protocol import Order, Status
from pipeline.evaluation.verdicts import IDENTICAL, VerdictRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One item: the mean of the scores in both orders (where there are two), or why there is none."""

    id: str
    cluster: str
    win: float | None  # in [0, 1]: 1 where the first named is better
    status: str
    forward: float | None = None  # score with the first named shown first
    backward: float | None = None  # score of the first named too, shown second; None where order does not matter
    identical: bool = False  # both completions say the same, so nobody was asked

    @property
    def decision(self) -> float | None:
        """Return who won: 1, 0, or 1/2 for a tie."""
        return None if self.win is None else decided(self.win)


def decided(score: float) -> float:
    """Return what a score amounts to: 1 for the first, 0 for the second, 1/2 for neither."""
    return 0.5 if score == 0.5 else float(score > 0.5)


def outcomes_of(parts: Sequence[tuple[Sequence[str], Sequence[VerdictRow]]], group: Sequence[str]) -> list[Outcome]:
    """Return the outcomes of a pair of policies.

    Args:
        parts: Rows with the policies they are about: one entry about both, or one about each, whose scores are then
            compared.
        group: The two policies, the first named first.
    """
    both = next((rows for policies, rows in parts if len(policies) != 1), None)
    if both is not None:
        return _of_pair(both)
    by_policy = {policies[0]: rows for policies, rows in parts}
    return _compared(by_policy[group[0]], by_policy[group[1]])


def _of_pair(rows: Sequence[VerdictRow]) -> list[Outcome]:
    by_item: dict[str, dict[str | None, VerdictRow]] = {}
    for row in rows:
        by_item.setdefault(row.id, {})[row.order] = row
    return [_outcome(item, by_order) for item, by_order in sorted(by_item.items())]


def _outcome(item: str, by_order: Mapping[str | None, VerdictRow]) -> Outcome:
    """Join both orders; an item counts only if each of its questions was answered."""
    rows = list(by_order.values())
    bad = next((row for row in rows if row.score is None), None)
    if bad is not None:
        return Outcome(id=item, cluster=bad.cluster, win=None, status=bad.status)
    scores = [row.score for row in rows if row.score is not None]
    forward, backward = by_order.get(Order.ab), by_order.get(Order.ba)
    return Outcome(
        id=item,
        cluster=rows[0].cluster,
        win=sum(scores) / len(scores),
        status=Status.ok,
        forward=forward.score if forward else None,
        backward=backward.score if backward else None,
        identical=all(row.detail == IDENTICAL for row in rows),
    )


def _compared(first: Sequence[VerdictRow], second: Sequence[VerdictRow]) -> list[Outcome]:
    """Compare the scores that a judge gave to the completions of two policies, each for itself."""
    others = {row.id: row for row in second}
    outcomes = []
    for row in sorted(first, key=lambda row: row.id):
        other = others.get(row.id)
        if other is None:  # the other policy has no completion of it
            continue
        bad = next((entry for entry in (row, other) if entry.score is None), None)
        if bad is not None or row.score is None or other.score is None:
            outcomes.append(Outcome(id=row.id, cluster=row.cluster, win=None, status=bad.status if bad else row.status))
            continue
        win = 0.5 if row.score == other.score else float(row.score > other.score)
        outcomes.append(Outcome(id=row.id, cluster=row.cluster, win=win, status=Status.ok, forward=win))
    return outcomes
