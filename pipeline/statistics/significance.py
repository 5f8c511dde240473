"""Exact tests of paired outcomes, and Holm's correction for several of them.

Sources: R. A. Fisher, The Design of Experiments (1935), section 21, for flipping signs; Q. McNemar, Psychometrika 12
(1947) 153-157, with the exact binomial tail; S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70; B. Phipson and
G. K. Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39, for counting the observed
arrangement among the drawn ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy import special

from pipeline.statistics.clusters import cluster_codes, finite_vector

MAX_EXACT = 16  # clusters: up to 65,536 arrangements are all looked at
DRAWS = 20_000
TIE = 1e-9  # sums this close, relative to the largest, are equal: rounding must not decide


def sign_flip_p(
    differences: Sequence[float], clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0
) -> float | None:
    """Return the two-sided p-value of no difference: the signs of whole clusters are exchangeable.

    To test that new is worse than old by a margin, add the margin to the differences.

    Args:
        differences: [n] paired differences.
        clusters: [n] what an item shares with others.
        draws: Arrangements to draw where there are too many to look at all of them.
        seed: Of the draws.

    Returns:
        p, at least 1 / (draws + 1) where arrangements are drawn; None without items.
    """
    values = finite_vector(differences)
    codes, num_clusters = cluster_codes(clusters, len(values))
    if num_clusters == 0:
        return None
    sums = np.bincount(codes, weights=values, minlength=num_clusters)
    bound = abs(float(sums.sum())) - TIE * float(np.abs(sums).sum())
    if num_clusters <= MAX_EXACT:
        bits = np.arange(1 << num_clusters)[:, None] >> np.arange(num_clusters) & 1
        return float((np.abs((1 - 2 * bits) @ sums) >= bound).mean())
    generator = np.random.default_rng(seed)
    block, extreme = max(1, (1 << 22) // num_clusters), 0
    for start in range(0, draws, block):
        signs = generator.integers(0, 2, (min(block, draws - start), num_clusters), dtype=np.int8)
        # sum of +-s is the whole less twice what is flipped
        extreme += int((np.abs(sums.sum() - 2 * (signs @ sums)) >= bound).sum())
    return (1 + extreme) / (draws + 1)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of two proportions of the same independent items.

    p = 2 P(Bin(b + c, 1/2) <= min(b, c)), at most 1, for b items that only the first passes and c that only the second
    does. Items that share a cluster are not independent: use ``sign_flip_p``.
    """
    if min(only_first, only_second) < 0:
        raise ValueError("counts must not be negative")
    tail = special.bdtr(min(only_first, only_second), only_first + only_second, 0.5)
    return min(1.0, 2 * float(tail))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p-values by name: those at most alpha are significant with family-wise error alpha."""
    if not all(0 <= p <= 1 for p in p_values.values()):
        raise ValueError("every p-value must lie between 0 and 1")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
