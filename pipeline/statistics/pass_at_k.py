"""The chance that at least one of k completions passes.

Source: M. Chen et al., Evaluating Large Language Models Trained on Code (arXiv:2107.03374), equation 1: without bias
1 - C(n - c, k) / C(n, k) for c of n completions that pass.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from pipeline.statistics.intervals import Estimate, unit_mean


def pass_at_k(
    num_passed: npt.ArrayLike,
    num_completions: npt.ArrayLike,
    k: int,
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Estimate:
    """Return the mean over items of the chance that one of k completions passes.

    Args:
        num_passed: [n] completions of each item that pass.
        num_completions: [n] of each item in all, at least k.
        k: How many would be drawn.
        clusters: [n] what an item shares with others.
        confidence: Of the interval.
    """
    passed, total = np.asarray(num_passed, dtype=np.float64), np.asarray(num_completions, dtype=np.float64)
    if passed.shape != total.shape or ((passed < 0) | (passed > total)).any():
        raise ValueError("every item needs as many completions as pass, or more")
    if k < 1 or (total < k).any():
        raise ValueError(f"every item needs at least k = {k} completions, and k at least 1")
    failed = total - passed
    possible = failed >= k  # otherwise any k completions hold one that passes
    kept = np.where(possible, failed, k)
    ratio = np.exp(gammaln(kept + 1) - gammaln(kept - k + 1) - gammaln(total + 1) + gammaln(total - k + 1))
    return unit_mean(np.clip(1 - np.where(possible, ratio, 0.0), 0.0, 1.0), clusters, confidence)
