"""How likely each side of a pair is the better one, by each way of joining votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.labels.verdicts import Vector, Verdicts
from pipeline.statistics.bradley_terry import bradley_terry, win_probability
from pipeline.statistics.dawid_skene import dawid_skene

Flags = npt.NDArray[np.bool_]
UNDECIDED = 1e-9  # a confidence nearer to one half than this is no preference


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Probabilities of each pair; where nobody voted they are zero. P pairs."""

    first: Vector  # [P]
    tie: Vector  # [P]
    second: Vector  # [P]


def vote_shares(verdicts: Verdicts, evidence: Flags) -> Shares:
    """Return the shares of votes for each side of each pair."""

    def total(outcome: int) -> Vector:
        here = evidence & (verdicts.outcome == outcome)
        sums = np.bincount(verdicts.pair[here], weights=verdicts.weight[here], minlength=len(verdicts.pairs))
        return np.asarray(sums, dtype=np.float64)

    first, tie, second = total(1), total(0), total(-1)
    whole = first + tie + second
    whole[whole == 0] = 1
    return Shares(first=first / whole, tie=tie / whole, second=second / whole)


def reliable_shares(verdicts: Verdicts, evidence: Flags) -> tuple[Shares, dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the posterior of each pair, what was learned about each annotator, and how the fit ended.

    Candidates stand in order of their hashes, so the two sides mirror each other. Where nobody gave a tie there is no
    class of ties. Each pair of an order is an observation of its own: what a voter's word weighs is learned here. Where
    no pair has two votes nothing can be learned, and the prior answers, which trusts seven votes in ten.
    """
    names = sorted({vote.annotator or "" for vote in verdicts.votes})
    numbers = {name: number for number, name in enumerate(names)}
    by_vote = np.array([numbers[vote.annotator or ""] for vote in verdicts.votes], dtype=np.intp)
    outcome, annotators = verdicts.outcome[evidence], verdicts.of_votes(by_vote)[evidence]
    with_ties = bool((outcome == 0).any())
    judged, units = np.unique(verdicts.pair[evidence], return_inverse=True)
    fit = dawid_skene(
        units,
        annotators,
        1 - outcome if with_ties else (1 - outcome) // 2,
        num_classes=3 if with_ties else 2,
        symmetric=True,
    )
    posterior = np.zeros((len(verdicts.pairs), 3))
    columns = np.array([0, 1, 2] if with_ties else [0, 2])
    posterior[judged[:, None], columns] = fit.posterior
    num_votes, accuracy = np.bincount(annotators, minlength=len(names)), fit.accuracy
    learned: dict[str, dict[str, Any]] = {
        name: {
            "num_votes": int(num_votes[number]),
            "accuracy": float(accuracy[number]),
            "confusion": fit.confusion[number].tolist(),
        }
        for name, number in numbers.items()
        if num_votes[number]
    }
    shares = Shares(first=posterior[:, 0], tie=posterior[:, 1], second=posterior[:, 2])
    return shares, learned, {"steps": len(fit.log_posterior), "converged": fit.converged}


def strength_shares(verdicts: Verdicts, evidence: Flags, votes: Shares) -> Shares:
    """Return the probability of each side by the strengths of an item's candidates, given the shares of votes."""
    nodes: dict[tuple[str, str], int] = {}
    first = np.array([nodes.setdefault((pair.item, pair.first), len(nodes)) for pair in verdicts.pairs], dtype=np.intp)
    second = np.array(
        [nodes.setdefault((pair.item, pair.second), len(nodes)) for pair in verdicts.pairs], dtype=np.intp
    )
    weight = np.bincount(verdicts.pair[evidence], weights=verdicts.weight[evidence], minlength=len(verdicts.pairs))
    wins = weight * (votes.first + votes.tie / 2)
    strengths = bradley_terry(first, second, wins, weight - wins, num_nodes=len(nodes))
    chance = win_probability(strengths[first], strengths[second])
    tie = np.minimum(votes.tie, 2 * np.minimum(chance, 1 - chance))  # no side's share falls below zero
    return Shares(first=chance - tie / 2, tie=tie, second=1 - chance - tie / 2)


def mean_margins(verdicts: Verdicts, evidence: Flags) -> Vector:
    """Return the mean difference in favour of each pair's first candidate, NaN where nobody stated one."""
    stated = evidence & ~np.isnan(verdicts.gap)
    counted = stated | (evidence & (verdicts.outcome == 0))  # a tie is a difference of nothing
    size = len(verdicts.pairs)
    sums = np.bincount(verdicts.pair[stated], weights=verdicts.gap[stated], minlength=size)
    numbers = np.bincount(verdicts.pair[counted], minlength=size)
    known = np.bincount(verdicts.pair[stated], minlength=size) > 0
    return np.asarray(np.divide(sums, numbers, out=np.full(size, np.nan), where=known))
