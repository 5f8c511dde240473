"""How much a parameter alone decides a result, over the trials of a search.

The measure is the share of the variance of the ranks that lies between the parameter's values: eta squared of Kruskal
and Wallis's H, (H - g + 1) / (n - g) for n trials in g groups, which is about zero where the parameter does nothing.
Numbers of many values are put into groups of equal size first, so that a best value in the middle counts as well. What
only shows in combination with another parameter does not count. Trials are shuffled for the p-value, which treats them
as exchangeable; a search that looks more where it was good makes them a little less than that.

Sources: W. H. Kruskal and W. A. Wallis, JASA 47 (1952) 583-621; M. Tomczak and E. Tomczak, Trends in Sport Sciences 21
(2014) 19-25, for eta squared; B. Phipson and G. K. Smyth, Statistical Applications in Genetics and Molecular Biology 9
(2010), article 39, for counting the observed arrangement among the drawn ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.statistics.significance import holm

MIN_TRIALS = 8  # with fewer, hardly any arrangement is rare enough to mean something
GROUP_SIZE = 4  # trials in a group of numbers, about
MAX_GROUPS = 4
DRAWS = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """What one parameter decides."""

    name: str
    share: float  # of the variance of the ranks, at least 0
    p: float  # that so much comes about by chance
    p_holm: float  # the same, for all parameters together
    groups: int
    trend: float | None  # Spearman's correlation of the value with the result; None where values are no numbers


def importances(
    parameters: Mapping[str, Sequence[Any]], results: Sequence[float], *, draws: int = DRAWS, seed: int = 0
) -> list[Importance]:
    """Return the parameters that vary, the most important one first; nothing below `MIN_TRIALS` trials.

    Args:
        parameters: Name -> [n] the value in each trial.
        results: [n].
        draws: Arrangements for the p-value.
        seed: Of the draws.
    """
    ranks = _ranks(np.asarray(results, dtype=np.float64))
    if len(ranks) < MIN_TRIALS or ranks.min() == ranks.max():
        return []
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks, (draws, 1)), axis=1)
    found: dict[str, tuple[float, float, int, float | None]] = {}
    for name, values in parameters.items():
        codes = _groups(values)
        num_groups = int(codes.max()) + 1
        if not 1 < num_groups < len(ranks):
            continue
        observed, drawn = _kruskal(ranks[None, :], codes)[0], _kruskal(shuffled, codes)
        p = (1 + int((drawn >= observed - 1e-9).sum())) / (draws + 1)
        share = max(0.0, (observed - num_groups + 1) / (len(ranks) - num_groups))
        found[name] = (share, p, num_groups, _trend(values, ranks))
    adjusted = holm({name: entry[1] for name, entry in found.items()})
    made = [
        Importance(name=name, share=share, p=p, p_holm=adjusted[name], groups=groups, trend=trend)
        for name, (share, p, groups, trend) in found.items()
    ]
    return sorted(made, key=lambda entry: (-entry.share, entry.name))


def _kruskal(ranks: npt.NDArray[np.float64], codes: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return H of each row of ranks, corrected for ties: (n - 1) times the share of the variance between groups."""
    members = np.eye(int(codes.max()) + 1)[codes]
    sizes, mean = members.sum(axis=0), ranks.mean(axis=1, keepdims=True)
    between = (sizes * ((ranks @ members) / sizes - mean) ** 2).sum(axis=1)
    whole = ((ranks - mean) ** 2).sum(axis=1)
    return np.asarray((ranks.shape[1] - 1) * between / whole)


def _groups(values: Sequence[Any]) -> npt.NDArray[np.intp]:
    """Number the groups from 0: one per value, or equal parts of numbers that have many values."""
    levels = sorted(set(map(str, values)))
    numbers = _numbers(values)
    most = min(MAX_GROUPS, len(values) // GROUP_SIZE)
    if numbers is None or len(levels) <= max(most, 2):
        return np.array([levels.index(str(value)) for value in values], dtype=np.intp)
    place = (_ranks(numbers) - 0.5) / len(values)  # the same for equal values, so that none is torn apart
    codes = np.minimum((place * most).astype(np.intp), most - 1)
    return np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.intp)


def _trend(values: Sequence[Any], ranks: npt.NDArray[np.float64]) -> float | None:
    numbers = _numbers(values)
    return None if numbers is None else float(np.corrcoef(_ranks(numbers), ranks)[0, 1])


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return np.asarray(values, dtype=np.float64) if plain else None


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks from 1, the mean of their places for equal values."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return np.asarray((ends - (counts - 1) / 2)[places], dtype=np.float64)
