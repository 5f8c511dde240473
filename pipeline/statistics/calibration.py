"""Whether the probabilities that a judge or reward model gives are the shares that come true.

Sources: A. Niculescu-Mizil and R. Caruana, ICML 2005, for reliability diagrams; C. Guo et al., ICML 2017
(arXiv:1706.04599), for the expected calibration error and temperature; R. Roelofs et al., AISTATS 2022
(arXiv:2012.08668), for bins of equal mass, which bias it less; G. W. Brier, Monthly Weather Review 78 (1950) 1-3.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.special import xlogy

from pipeline.statistics.bootstrap import DRAWS, cluster_draws
from pipeline.statistics.clusters import Codes, cluster_codes, finite_vector, t_quantile, t_words, too_few
from pipeline.statistics.intervals import Estimate, mean_interval, unit_mean
from pipeline.statistics.logistic import fit_logistic, score_influences

Array = npt.NDArray[np.float64]

NUM_BINS = 10
FLAT_PRECISION = 1e-8  # of the prior of 1/T: none to speak of, but the fit stays finite


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """One group of a reliability diagram: items of neighbouring confidence."""

    confidence: float  # mean probability of the side that was preferred
    accuracy: Estimate  # share of items on which that side was the better one


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How far probabilities can be taken at their word."""

    ece: Estimate  # mean gap between confidence and accuracy over bins of equal mass
    ece_if_calibrated: float | None  # what so few items would show if every probability were true
    brier: Estimate  # mean squared error of the probability
    nll: Estimate  # nats per item
    bins: list[Bin]


def calibration(
    probabilities: Sequence[float],
    outcomes: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    num_bins: int = NUM_BINS,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Calibration:
    """Compare probabilities that the first of two is better with what people said.

    The calibration error is that of the preferred side, so that the order of a pair does not matter: confidence is
    max(p, 1 - p) and the outcome is turned along. Bins are fixed by the items and not drawn again. The error is never
    negative, so noise alone makes it positive, and ``ece_if_calibrated`` says by how much.

    Args:
        probabilities: [n] in [0, 1] that the first is better.
        outcomes: [n] 1 where it was, 0 where it was not, 1/2 for a tie.
        clusters: [n] what an item shares with others.
        num_bins: At most; fewer where there are fewer items.
        confidence: Of the intervals.
        draws: How many bootstrap samples.
        seed: Of the draws.
    """
    given, came = finite_vector(probabilities), finite_vector(outcomes)
    if given.shape != came.shape:
        raise ValueError(f"every probability needs an outcome: got {len(given)} and {len(came)}")
    if ((given < 0) | (given > 1) | (came < 0) | (came > 1)).any():
        raise ValueError("probabilities and outcomes must lie between 0 and 1")
    turned = given < 0.5
    sure, right = np.where(turned, 1 - given, given), np.where(turned, 1 - came, came)
    groups = _equal_mass(sure, num_bins)
    size = int(groups.max(initial=-1)) + 1
    columns = np.zeros((len(given), size + 1))
    columns[np.arange(len(given)), groups] = right - sure
    columns[:, -1] = 1.0
    nats = -(xlogy(came, given) + xlogy(1 - came, 1 - given))
    return Calibration(
        ece=_error(columns, clusters, confidence, draws, seed),
        ece_if_calibrated=_noise(sure, groups, size, seed) if len(given) else None,
        brier=mean_interval(((given - came) ** 2).tolist(), clusters, confidence),
        nll=_likelihood(nats, clusters, confidence),
        bins=[_bin(sure, right, groups == group, clusters, confidence) for group in range(size)],
    )


def fit_temperature(
    margins: Sequence[float], outcomes: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Estimate:
    """Return the temperature T that makes sigma(margin / T) likeliest, with a cluster-robust interval on its logarithm.

    Fit it on other items than those on which calibration is then reported.

    Args:
        margins: [n] score of the first less score of the second.
        outcomes: [n] 1 where the first was better, 0 where it was not, 1/2 for a tie.
        clusters: [n] what an item shares with others.
        confidence: Of the interval.

    Returns:
        The estimate; none where the margins do not rise with the outcomes, or separate them without error.
    """
    design, came = finite_vector(margins)[:, None], finite_vector(outcomes)
    codes, num_clusters = cluster_codes(clusters, len(came))
    n = len(came)
    if n == 0:
        return Estimate.unknown(None, 0, 0, too_few(0))
    against = np.where(design[:, 0] > 0, 1 - came, came) * np.abs(design[:, 0])
    if not against.any():
        return Estimate.unknown(None, n, num_clusters, "no margin contradicts an outcome")
    scale = float(np.sqrt((design**2).mean()))  # so that the search does not depend on the unit of the scores
    design = design / scale
    whole, precision = np.ones((1, n)), np.array([FLAT_PRECISION])
    inverse = fit_logistic(design, came, whole, precision)
    if inverse[0, 0] <= 0:
        return Estimate.unknown(None, n, num_clusters, "the margins do not rise with the outcomes")
    temperature = scale / float(inverse[0, 0])
    if num_clusters < 2:
        return Estimate.unknown(temperature, n, num_clusters, too_few(num_clusters))
    slopes = score_influences(design, came, whole, precision, inverse, np.ones((1, 1)))[0]
    sums = np.bincount(codes, weights=slopes, minlength=num_clusters)
    error = math.sqrt(num_clusters / (num_clusters - 1) * float((sums**2).sum())) / float(inverse[0, 0])
    half = t_quantile(num_clusters, confidence) * error
    return Estimate(
        estimate=temperature,
        low=temperature * math.exp(-half),
        high=temperature * math.exp(half),
        n=n,
        clusters=num_clusters,
        method=f"maximum likelihood, cluster-robust interval of the logarithm, {t_words(num_clusters)}",
    )


def _equal_mass(sure: Array, num_bins: int) -> Codes:
    """Return the bin of each item: its place among the others, so that bins differ by at most one item.

    Equal values fall into the bin of the lowest of them, so that no bin depends on the order of the items.
    """
    ordered = np.sort(sure)
    places = np.searchsorted(ordered, sure, side="left")
    groups = places * min(num_bins, max(1, len(sure))) // max(1, len(sure))
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.intp)


def _noise(sure: Array, groups: Codes, size: int, seed: int) -> float:
    """Return the mean error of 1,000 draws of outcomes that come true exactly as often as they claim."""
    generator = np.random.default_rng(seed)
    member = np.zeros((len(sure), size))
    member[np.arange(len(sure)), groups] = 1.0
    total, block, draws = 0.0, max(1, (1 << 20) // len(sure)), 1000
    for start in range(0, draws, block):
        right = generator.random((min(block, draws - start), len(sure))) < sure
        total += float(np.abs((right - sure) @ member).sum())
    return total / draws / len(sure)


def _bin(sure: Array, right: Array, here: npt.NDArray[np.bool_], clusters: Sequence[Hashable], level: float) -> Bin:
    members = [cluster for cluster, inside in zip(clusters, here, strict=True) if inside]
    return Bin(confidence=float(sure[here].mean()), accuracy=unit_mean(right[here].tolist(), members, level))


def _likelihood(nats: Array, clusters: Sequence[Hashable], confidence: float) -> Estimate:
    if not np.isfinite(nats).all():
        num_clusters = cluster_codes(clusters, len(nats))[1]
        return Estimate.unknown(None, len(nats), num_clusters, "what was held impossible came true")
    return mean_interval(nats.tolist(), clusters, confidence)


def _error(columns: Array, clusters: Sequence[Hashable], confidence: float, draws: int, seed: int) -> Estimate:
    """Return the mean gap of the bins, with limits that its bias upwards does not spoil.

    The error of the estimate is at most sum_b |gap_b - true gap_b|, whose distribution the draws show; the interval is
    the estimate with that sum's quantile on both sides. It covers more than it promises. A studentised interval of the
    error itself covers 87 % with 50 clusters of three.
    """
    codes, num_clusters = cluster_codes(clusters, len(columns))
    if num_clusters == 0:
        return Estimate.unknown(None, 0, 0, too_few(0))
    sums = np.zeros((num_clusters, columns.shape[1]))
    np.add.at(sums, codes, columns)
    totals = sums.sum(axis=0)
    gaps = totals[:-1] / totals[-1]
    estimate = float(np.abs(gaps).sum())
    if num_clusters < 2:
        return Estimate.unknown(estimate, len(columns), num_clusters, too_few(num_clusters))
    away = []
    for counts in cluster_draws(num_clusters, len(columns), draws, seed):
        drawn = counts @ sums
        away.append(np.abs(drawn[:, :-1] / drawn[:, -1:] - gaps).sum(axis=1))
    # Draws of C clusters spread by sqrt((C - 1) / C) too little, and their tail is a normal one.
    widening = math.sqrt(num_clusters / (num_clusters - 1)) * t_quantile(num_clusters, confidence)
    widening /= float(special.ndtri(0.5 + confidence / 2))
    reach = float(np.quantile(np.concatenate(away), confidence)) * widening
    return Estimate(
        estimate=estimate,
        low=max(0.0, estimate - reach),
        high=min(1.0, estimate + reach),
        n=len(columns),
        clusters=num_clusters,
        method=f"calibration error of {len(gaps)} bins of equal mass, cluster bootstrap of {draws} draws, "
        "limits that hold for any bias",
    )
