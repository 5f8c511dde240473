"""The rate that people would have given, from a judge whose errors were measured on what people judged.

Sources: W. J. Rogan and B. Gladen, American Journal of Epidemiology 107 (1978) 71-76, for the estimator; Z. Lang and J.
Reiczigel, Preventive Veterinary Medicine 113 (2014) 13-22, for its interval, because the delta method's covers too
little where few were judged by people; A. N. Angelopoulos et al., Science 382 (2023) 669-674 (arXiv:2301.09633), for
prediction-powered means.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from scipy import special

from pipeline.statistics.clusters import finite_vector, too_few
from pipeline.statistics.intervals import Estimate, effective_items, mean_interval
from pipeline.statistics.power import standard_error

MIN_INFORMATION = 0.2  # sensitivity + specificity - 1: below it the judge says too little to be corrected


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How often a judge was right on independent items that people judged."""

    true_positives: int
    positives: int  # by people
    true_negatives: int
    negatives: int

    def __post_init__(self) -> None:
        if not (0 <= self.true_positives <= self.positives and 0 <= self.true_negatives <= self.negatives):
            raise ValueError("a judge cannot be right more often than there are items")


def corrected_rate(
    passed: Sequence[bool], clusters: Sequence[Hashable], confusion: Confusion, confidence: float = 0.95
) -> Estimate:
    """Return the share that people would pass: (p + q0 - 1) / (q0 + q1 - 1), held to [0, 1].

    q1 is the judge's sensitivity and q0 its specificity. Items of one cluster count as their effective number. The
    judged items must not be those on which the confusion was measured, and the judge must err on both alike.

    Args:
        passed: [n] the judge's verdicts.
        clusters: [n] what an item shares with others.
        confusion: What the judge does where people have judged.
        confidence: Of the interval.

    Returns:
        The estimate; none where people judged nothing of a kind, q0 + q1 - 1 is below 0.2, or the whole interval lies
        outside [0, 1], so that the errors cannot be those that were measured.
    """
    items = effective_items(passed, clusters, confidence)
    n, num_clusters = len(passed), items.clusters
    if items.share is None:
        return Estimate.unknown(None, n, num_clusters, too_few(0))
    if min(confusion.positives, confusion.negatives) == 0:
        return Estimate.unknown(None, n, num_clusters, "people judged no item of one kind")
    sensitivity = confusion.true_positives / confusion.positives
    specificity = confusion.true_negatives / confusion.negatives
    information = sensitivity + specificity - 1
    if information < MIN_INFORMATION:
        reason = f"sensitivity + specificity - 1 = {information:.2f} is below {MIN_INFORMATION}"
        return Estimate.unknown(None, n, num_clusters, reason)
    estimate = min(1.0, max(0.0, (items.share + specificity - 1) / information))
    if items.effective is None:
        return Estimate.unknown(estimate, n, num_clusters, too_few(num_clusters))
    low, high = _limits(items.share, items.effective, items.quantile, confusion)
    if high <= 0 or low >= 1:
        return Estimate.unknown(None, n, num_clusters, "the judge does not err on these items as it did before people")
    return Estimate(
        estimate=estimate,
        low=max(0.0, low),
        high=min(1.0, high),
        n=n,
        clusters=num_clusters,
        method=f"Rogan-Gladen, interval of Lang and Reiczigel, {confusion.positives} + {confusion.negatives} judged "
        "by people",
    )


def _limits(share: float, effective: float, z: float, confusion: Confusion) -> tuple[float, float]:
    """Return the limits of Lang and Reiczigel: z^2/2 more of each verdict, one more of each hit and miss, and a shift.

    The shift is 2 z^2 (theta q1 (1 - q1) / m1 - (1 - theta) q0 (1 - q0) / m0), the squared standard error that of the
    delta method, all at the moved values.
    """
    items, m1, m0 = effective + z**2, confusion.positives + 2, confusion.negatives + 2
    p = (effective * share + z**2 / 2) / items
    q1, q0 = (confusion.true_positives + 1) / m1, (confusion.true_negatives + 1) / m0
    information = q0 + q1 - 1
    theta = (p + q0 - 1) / information
    miss1, miss0 = q1 * (1 - q1) / m1, q0 * (1 - q0) / m0
    shift = 2 * z**2 * (theta * miss1 - (1 - theta) * miss0)
    error = math.sqrt(p * (1 - p) / items + theta**2 * miss1 + (1 - theta) ** 2 * miss0) / information
    return theta + shift - z * error, theta + shift + z * error


def prediction_powered_mean(
    judged: Sequence[float],
    judged_clusters: Sequence[Hashable],
    by_people: Sequence[float],
    by_judge: Sequence[float],
    labelled_clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Estimate:
    """Return the mean that people would give: the judge's mean plus the mean of people less judge where both judged.

    The two sets of items are independent, so their variances add; the quantile is t with the degrees of freedom of
    Welch and Satterthwaite. Unlike a corrected rate it needs no two kinds of items, and any judge is good enough: a bad
    one only makes the interval wide.

    Args:
        judged: [n] scores by the judge alone.
        judged_clusters: [n].
        by_people: [m] scores by people.
        by_judge: [m] the judge's scores of the same items.
        labelled_clusters: [m].
        confidence: Of the interval.
    """
    if len(by_people) != len(by_judge):
        raise ValueError(f"people and judge must have scored the same items: got {len(by_people)} and {len(by_judge)}")
    gaps = (finite_vector(by_people) - finite_vector(by_judge)).tolist()
    parts = [mean_interval(judged, judged_clusters, confidence), mean_interval(gaps, labelled_clusters, confidence)]
    n, clusters = sum(part.n for part in parts), sum(part.clusters for part in parts)
    if parts[0].estimate is None or parts[1].estimate is None:
        return Estimate.unknown(None, n, clusters, "no items")
    estimate = parts[0].estimate + parts[1].estimate
    errors = [standard_error(part, confidence) for part in parts]
    if errors[0] is None or errors[1] is None:
        return Estimate.unknown(estimate, n, clusters, next(part.method for part in parts if part.low is None))
    first, second = errors[0] ** 2, errors[1] ** 2
    freedom = (first + second) ** 2 / (first**2 / (parts[0].clusters - 1) + second**2 / (parts[1].clusters - 1))
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(first + second)
    return Estimate(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        n=n,
        clusters=clusters,
        method=f"prediction-powered mean, {parts[1].n} scored by people, t with {freedom:.1f} degrees of freedom",
    )
