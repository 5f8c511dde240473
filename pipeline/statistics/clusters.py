"""Items in clusters, and the quantile that so many clusters deserve."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

FEW_CLUSTERS = 30  # below it a t interval leans on the clusters' sums being roughly normal

Codes = npt.NDArray[np.intp]
Vector = npt.NDArray[np.float64]


def cluster_codes(clusters: Sequence[Hashable], n: int) -> tuple[Codes, int]:
    """Number the clusters of ``n`` items from 0 in the order in which they appear; also return how many there are."""
    if len(clusters) != n:
        raise ValueError(f"every item needs a cluster: got {n} items and {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)
    return codes, len(numbers)


def finite_vector(values: npt.ArrayLike) -> Vector:
    """Return the values as float64; one that is not finite is an error."""
    vector = np.asarray(values, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise ValueError("every value must be finite: leave out unscored items and count them")
    return vector


def t_quantile(num_clusters: int, confidence: float) -> float:
    """Return the two-sided quantile of Student's t with one degree of freedom less than there are clusters."""
    return float(special.stdtrit(num_clusters - 1, 0.5 + confidence / 2))


def t_words(num_clusters: int) -> str:
    """Name the quantile, and warn where it is only approximate."""
    words = f"t with {num_clusters - 1} degrees of freedom"
    return words if num_clusters >= FEW_CLUSTERS else f"{words} (fewer than {FEW_CLUSTERS} clusters: approximate)"


def too_few(num_clusters: int) -> str:
    """Say why so few clusters, none or one, have no interval."""
    return "one cluster" if num_clusters else "no items"
