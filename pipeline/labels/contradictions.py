"""Preferences that cannot all be right: A over B over C over A, and one annotator's votes both ways on one pair."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from pipeline.labels.verdicts import Codes, Verdicts

Group = TypeVar("Group", bound=Hashable)


def majority_cycles(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Return items whose majorities of votes, all questions together, run in a circle."""
    sums = np.bincount(verdicts.pair, weights=verdicts.weight * verdicts.outcome, minlength=len(verdicts.pairs))
    edges = []
    for pair, total in zip(verdicts.pairs, np.round(sums, 9), strict=True):
        if total:
            edges.append((pair.item, pair.first, pair.second) if total > 0 else (pair.item, pair.second, pair.first))
    return [{"item": item, "annotator": None, "candidates": cycle} for item, cycle in find_cycles(edges)]


def own_cycles(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Return items on which an annotator's own votes on one question run in a circle."""
    sums: dict[tuple[tuple[str, str, str], int], int] = {}
    for entry in np.flatnonzero(verdicts.outcome).tolist():
        vote = verdicts.votes[verdicts.vote[entry]]
        if vote.annotator is not None:
            key = ((vote.annotator, vote.item, vote.question), int(verdicts.pair[entry]))
            sums[key] = sums.get(key, 0) + int(verdicts.outcome[entry])
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


def contradictions(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Return where one annotator preferred both sides of one pair on one question, in votes that count or did once."""
    sides: dict[tuple[str, str, int], dict[int, list[str]]] = {}
    for entry in np.flatnonzero(verdicts.outcome).tolist():
        vote = verdicts.votes[verdicts.vote[entry]]
        if vote.annotator is not None:
            key = (vote.annotator, vote.question, int(verdicts.pair[entry]))
            sides.setdefault(key, {}).setdefault(int(verdicts.outcome[entry]), []).append(vote.id)
    found = []
    for (annotator, _, number), votes in sides.items():
        if len(votes) == 2:
            pair = verdicts.pairs[number]
            ids = sorted({vote for side in votes.values() for vote in side})
            found.append(
                {"item": pair.item, "annotator": annotator, "candidates": [pair.first, pair.second], "votes": ids}
            )
    return found


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
