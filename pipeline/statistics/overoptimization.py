"""How the score that people would give rises and then falls as a policy moves away from its reference.

Source: L. Gao, J. Schulman and J. Hilton, Scaling Laws for Reward Model Overoptimization (arXiv:2210.10760), section
3.1: with d the square root of the divergence in nats, reinforcement learning gives R(d) = d (alpha - beta ln d). It is
linear in alpha and beta, so least squares fits it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.statistics.clusters import finite_vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Overoptimization:
    """The fitted law, and where it says that more would hurt."""

    alpha: float
    beta: float
    peak_kl: float | None  # nats; None where the score keeps rising
    reason: str | None  # why there is no peak
    explained: float | None  # share of the scores' variance; None where they do not vary


def fit_overoptimization(kl: Sequence[float], scores: Sequence[float]) -> Overoptimization | None:
    """Fit the law to scores along one training run; None where fewer than three points lie away from the reference.

    Args:
        kl: [n] nats per completion, from the policy to the reference, not negative.
        scores: [n] less the reference's own score, so that the law starts at zero.
    """
    nats, gained = finite_vector(kl), finite_vector(scores)
    if nats.shape != gained.shape or (nats < 0).any():
        raise ValueError("every score needs a divergence that is not negative")
    distance, gained = np.sqrt(nats[nats > 0]), gained[nats > 0]
    if len(np.unique(distance)) < 3:
        return None
    design = np.column_stack([distance, -distance * np.log(distance)])
    (alpha, beta), *_ = np.linalg.lstsq(design, gained)
    residual = float(((gained - design @ [alpha, beta]) ** 2).sum())
    spread = float(((gained - gained.mean()) ** 2).sum())
    peak, reason = _peak(float(alpha), float(beta))
    return Overoptimization(
        alpha=float(alpha),
        beta=float(beta),
        peak_kl=peak,
        reason=reason,
        explained=1 - residual / spread if spread > 0 else None,
    )


def _peak(alpha: float, beta: float) -> tuple[float | None, str | None]:
    """Return d*^2 for d* = exp(alpha / beta - 1)."""
    if beta <= 0:
        return None, "the score bends upwards: no peak"
    exponent = 2 * (alpha / beta - 1)
    return (math.exp(exponent), None) if exponent < 700 else (None, "the peak is out of any reach")
