"""What several unreliable annotators say together, and how reliable each of them is.

Source: A. P. Dawid and A. M. Skene, Applied Statistics 28 (1979) 20-28, equations 2.3 to 2.5. Two things differ, both
stated where they stand: rows of a confusion matrix have a Dirichlet prior, so that few votes do not make an annotator
infallible, and classes that mirror each other can be held to do so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.intp]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DawidSkene:
    """The estimate. U units, A annotators, K classes."""

    posterior: Array  # [U, K] probability of each true class
    prevalence: Array  # [K] share of each true class
    confusion: Array  # [A, K, K] probability that an annotator says the last index where the middle one is true
    log_posterior: list[float]  # in nats, up to a constant, after each step of the fit; it never falls
    converged: bool

    @property
    def accuracy(self) -> Array:
        """[A] probability that an annotator is right on a unit drawn at random."""
        return np.asarray(np.einsum("k,akk->a", self.prevalence, self.confusion))


def dawid_skene(
    units: npt.ArrayLike,
    annotators: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    num_classes: int,
    symmetric: bool = False,
    prior_accuracy: float = 0.7,
    prior_votes: float = 5.0,
    tolerance: float = 1e-9,
    max_iterations: int = 2000,
) -> DawidSkene:
    """Fit true classes and confusion matrices together by expectation-maximisation.

    The prior is worth ``prior_votes`` votes per true class and annotator, of which ``prior_accuracy`` are right and the
    others spread evenly over the wrong classes, and one unit of every class. EM then climbs to a maximum of the
    posterior density instead of the likelihood. It starts from the shares of votes that are right so often, and so
    stays there where the votes teach nothing. Without votes in the prior all of this, the start too, is Dawid and
    Skene's own estimate.

    Args:
        units: [V] whole numbers from 0, each below U: what was judged.
        annotators: [V] whole numbers from 0: by whom.
        labels: [V] whole numbers below ``num_classes``: the verdict.
        num_classes: K.
        symmetric: Class k mirrors class K - 1 - k, as "first is better" mirrors "second is better" where the order of
            a pair is arbitrary: a class and its mirror are equally frequent and equally hard.
        prior_accuracy: Of an annotator of whom nothing is known.
        prior_votes: What that is worth.
        tolerance: Convergence is a rise of the log posterior by less than this part of it.
        max_iterations: After which ``converged`` is False.
    """
    votes = _votes(units, annotators, labels, num_classes)
    prior = _prior(num_classes, prior_accuracy, prior_votes)
    one = float(prior_votes > 0)  # pseudo-unit of every class
    posterior = _shares(votes) @ _prior(num_classes, prior_accuracy if one else 1.0, 1.0)
    history: list[float] = []
    while True:
        counts, prevalence = _counts(votes, posterior) + prior, posterior.sum(axis=0) + one
        if symmetric:
            counts, prevalence = counts + counts[:, ::-1, ::-1], prevalence + prevalence[::-1]
        confusion, prevalence = _normalised(counts), _normalised(prevalence)
        log_confusion, log_prevalence = _logarithm(confusion), _logarithm(prevalence)
        posterior, likelihood = _expected(votes, log_confusion, log_prevalence)
        history.append(likelihood + float((prior * log_confusion).sum()) + one * float(log_prevalence.sum()))
        converged = len(history) > 1 and history[-1] - history[-2] <= tolerance * (1 + abs(history[-1]))
        if converged or len(history) == max_iterations:
            break
    return DawidSkene(
        posterior=posterior,
        prevalence=prevalence,
        confusion=confusion,
        log_posterior=history,
        converged=converged,
    )


class _Votes(NamedTuple):
    """Checked votes. V votes, U units, A annotators, K classes."""

    unit: Codes  # [V]
    cell: Codes  # [V] annotator times K plus label
    label: Codes  # [V]
    num_units: int
    num_annotators: int
    num_classes: int


def _votes(
    units: npt.ArrayLike,
    annotators: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_classes: int,
) -> _Votes:
    unit, who, label = (np.asarray(values, dtype=np.intp) for values in (units, annotators, labels))
    if not unit.shape == who.shape == label.shape:
        raise ValueError("every vote needs a unit, an annotator and a label")
    if len(label) and not 0 <= label.min() <= label.max() < num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}")
    return _Votes(
        unit=unit,
        cell=who * num_classes + label,
        label=label,
        num_units=int(unit.max(initial=-1)) + 1,
        num_annotators=int(who.max(initial=-1)) + 1,
        num_classes=num_classes,
    )


def _shares(votes: _Votes) -> Array:
    """Return [U, K] shares of votes."""
    cell = votes.unit * votes.num_classes + votes.label
    sums = np.bincount(cell, minlength=votes.num_units * votes.num_classes)
    return _normalised(np.asarray(sums, dtype=np.float64).reshape(votes.num_units, votes.num_classes))


def _prior(num_classes: int, accuracy: float, votes: float) -> Array:
    """Return [K, K] votes that every annotator is taken to have given, by what was true and what was said."""
    prior = np.full((num_classes, num_classes), votes * (1 - accuracy) / (num_classes - 1))
    np.fill_diagonal(prior, votes * accuracy)
    return prior


def _counts(votes: _Votes, posterior: Array) -> Array:
    """Return [A, K, K] expected counts of what was said, by what was true (equation 2.3 before it is normalised)."""
    counts = np.empty((votes.num_annotators, votes.num_classes, votes.num_classes))
    for true in range(votes.num_classes):
        weight = posterior[votes.unit, true]
        spoken = np.bincount(votes.cell, weights=weight, minlength=votes.num_annotators * votes.num_classes)
        counts[:, true] = spoken.reshape(votes.num_annotators, votes.num_classes)
    return counts


def _expected(votes: _Votes, log_confusion: Array, log_prevalence: Array) -> tuple[Array, float]:
    """Return [U, K] the probability of each true class (equation 2.5), and the log-likelihood of all votes."""
    joint = np.tile(log_prevalence, (votes.num_units, 1))
    for true in range(votes.num_classes):
        evidence = log_confusion[:, true].ravel()[votes.cell]
        joint[:, true] += np.bincount(votes.unit, weights=evidence, minlength=votes.num_units)
    top = joint.max(axis=1, keepdims=True)
    scaled = np.exp(joint - top)
    return _normalised(scaled), float((top[:, 0] + np.log(scaled.sum(axis=1))).sum())


def _normalised(values: Array) -> Array:
    """Divide by the sum over the last axis; where that is zero, all classes are alike."""
    total = values.sum(axis=-1, keepdims=True)
    even = np.full_like(values, 1 / values.shape[-1])
    return np.asarray(np.divide(values, total, out=even, where=total > 0))


def _logarithm(values: Array) -> Array:
    """Logarithm with a floor far below any vote's evidence, for the zeros of an estimate without a prior."""
    return np.asarray(np.log(np.maximum(values, 1e-300)))
