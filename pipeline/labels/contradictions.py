"""Preferences that cannot all be right: A over B over C over A, and one annotator's votes both ways on one pair."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from pipeline.labels.verdicts import Codes, Pair, Verdicts
from pipeline.labels.votes import Vote

Group = TypeVar("Group", bound=Hashable)


def majority_cycles(verdicts: Verdicts, set_aside: Collection[str]) -> list[dict[str, Any]]:
    """Return items whose majorities of the votes that count, all questions together, run in a circle."""
    counts = np.array(
        [vote.annotator is None or vote.annotator not in set_aside for vote in verdicts.votes], dtype=bool
    )
    weight = verdicts.weight * verdicts.outcome * counts[verdicts.vote]
    sums = np.bincount(verdicts.pair, weights=weight, minlength=len(verdicts.pairs))
    edges = []
    for pair, total in zip(verdicts.pairs, np.round(sums, 9), strict=True):
        if total:
            edges.append((pair.item, pair.first, pair.second) if total > 0 else (pair.item, pair.second, pair.first))
    return [{"item": item, "annotator": None, "candidates": cycle} for item, cycle in find_cycles(edges)]


def own_cycles(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Return items on which an annotator's own votes on one question run in a circle."""
    sums: dict[tuple[tuple[str, str, str], int], int] = {}
    for vote, number, outcome in _preferences(verdicts):
        key = ((vote.annotator or "", vote.item, vote.question), number)
        sums[key] = sums.get(key, 0) + outcome
    edges = []
    for (group, number), total in sums.items():
        pair = verdicts.pairs[number]
        if total:
            edges.append((group, pair.first, pair.second) if total > 0 else (group, pair.second, pair.first))
    return [{"item": group[1], "annotator": group[0], "candidates": cycle} for group, cycle in find_cycles(edges)]


def find_cycles(edges: Sequence[tuple[Group, str, str]]) -> list[tuple[Group, list[str]]]:
    """Return a shortest cycle of each knot of candidates, best first, where each beats the next and the last the first.

    Args:
        edges: (group, winner, loser); a cycle lies within one group.
    """
    if not edges:
        return []
    nodes: dict[tuple[Group, str], int] = {}
    ends = [(nodes.setdefault((g, a), len(nodes)), nodes.setdefault((g, b), len(nodes))) for g, a, b in edges]
    names = list(nodes)
    winners, losers = np.array(ends).T
    graph = sparse.coo_array((np.ones(len(ends)), (winners, losers)), shape=(len(names), len(names)))
    _, knot = sparse.csgraph.connected_components(graph, directed=True, connection="strong")
    beaten: dict[int, list[int]] = {}
    for winner, loser in ends:
        if knot[winner] == knot[loser]:
            beaten.setdefault(winner, []).append(loser)
    found = []
    for start in _first_of_each(knot[sorted(beaten)], sorted(beaten)):
        cycle = _shortest_cycle(start, beaten)
        found.append((names[start][0], [names[node][1] for node in cycle]))
    return found


def contradictions(*readings: Verdicts) -> list[dict[str, Any]]:
    """Return where one annotator preferred both sides of one pair on one question, in any of ``readings``."""
    sides: dict[tuple[str, str, Pair], dict[int, list[str]]] = {}
    for verdicts in readings:
        for vote, number, outcome in _preferences(verdicts):
            key = (vote.annotator or "", vote.question, verdicts.pairs[number])
            sides.setdefault(key, {}).setdefault(outcome, []).append(vote.id)
    return [
        {
            "item": pair.item,
            "annotator": annotator,
            "candidates": [pair.first, pair.second],
            "votes": sorted({vote for side in votes.values() for vote in side}),
        }
        for (annotator, _, pair), votes in sides.items()
        if len(votes) == 2
    ]


def _preferences(verdicts: Verdicts) -> Iterator[tuple[Vote, int, int]]:
    """Yield vote, pair and outcome of the entries of annotators with a name that are no ties."""
    columns = (verdicts.vote.tolist(), verdicts.pair.tolist(), verdicts.outcome.tolist())
    for vote_number, number, outcome in zip(*columns, strict=True):
        vote = verdicts.votes[vote_number]
        if outcome and vote.annotator is not None:
            yield vote, number, outcome


def _first_of_each(knots: Codes, nodes: list[int]) -> list[int]:
    """Return one node of each knot, the first."""
    _, index = np.unique(knots, return_index=True)
    return [nodes[place] for place in sorted(index.tolist())]


def _shortest_cycle(start: int, beaten: dict[int, list[int]]) -> list[int]:
    """Return a shortest way from ``start`` back to it, breadth first; within a knot there is one."""
    came_from: dict[int, int] = {}
    frontier = [start]
    while start not in came_from:
        reached = []
        for node in frontier:
            for other in beaten[node]:
                if other not in came_from:
                    came_from[other] = node
                    reached.append(other)
        frontier = reached
    way = [came_from[start]]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]
