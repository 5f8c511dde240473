"""Dawid and Skene's estimate against their own data, fixed points in closed form, and what must not matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.statistics.dawid_skene import DawidSkene, dawid_skene

# Table 1 of Dawid and Skene (1979): fitness for anaesthesia of 45 patients in four classes, by five observers, the
# first of whom judged three times.
PATIENTS = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 "
    "2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 "
    "2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 "
    "1111111 1111111 1212111 2322222 1211111 2222222"
)


def anaesthetists(**more: float) -> DawidSkene:
    votes = [
        (unit, observer, int(value) - 1)
        for unit, row in enumerate(PATIENTS.split())
        for observer, value in zip((0, 0, 0, 1, 2, 3, 4), row, strict=True)
    ]
    units, observers, labels = zip(*votes, strict=True)
    return dawid_skene(units, observers, labels, num_classes=4, tolerance=1e-13, **more)  # type: ignore[arg-type]


def test_without_a_prior_it_is_the_published_estimate() -> None:
    fit = anaesthetists(prior_votes=0)
    assert fit.converged
    assert fit.prevalence == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=5e-3)
    # Observer 1 by crowd-kit 1.4.2, whose own smoothing moves the third decimal.
    assert fit.confusion[0] == pytest.approx(
        np.array([[0.889, 0.111, 0, 0], [0.070, 0.877, 0.053, 0], [0, 0.335, 0.665, 0], [0, 0, 0.556, 0.444]]),
        abs=5e-3,
    )
    # Negative control: what the prior is there for. Observers stop being infallible, and the estimate moves.
    assert fit.confusion[2, 0, 0] == 1.0
    cautious = anaesthetists()
    assert cautious.confusion[2, 0, 0] < 0.99
    assert cautious.confusion.min() > 0


def test_pandalm_against_an_independent_library(real_data: Path) -> None:
    """Three annotators, 999 pairs, with the tie between the sides; by crowd-kit 1.4.2 after 500 steps."""
    rows = json.loads((real_data / "pandalm/testset-v1.json").read_text())
    labels = [{1: 0, 0: 1, 2: 2}[row[f"annotator{number}"]] for row in rows for number in (1, 2, 3)]
    units, who = np.repeat(np.arange(len(rows)), 3), np.tile(np.arange(3), len(rows))
    fit = dawid_skene(units, who, labels, num_classes=3, prior_votes=0, tolerance=1e-13)
    assert fit.prevalence == pytest.approx([0.42260, 0.10543, 0.47196], abs=1e-4)
    right = np.array([[0.97316, 0.88323, 0.96757], [0.94395, 0.95811, 0.95256], [0.95164, 0.95891, 0.98126]])
    assert np.diagonal(fit.confusion, axis1=1, axis2=2) == pytest.approx(right, abs=3e-4)
    # Negative control: the prior moves the rare class by more than the two libraries differ.
    cautious = dawid_skene(units, who, labels, num_classes=3)
    assert np.abs(np.diagonal(cautious.confusion, axis1=1, axis2=2) - right).max() > 3e-3


@pytest.mark.parametrize("prior_votes", [0.0, 5.0])
def test_the_log_posterior_never_falls(prior_votes: float) -> None:
    history = anaesthetists(prior_votes=prior_votes).log_posterior
    assert len(history) > 5
    assert np.diff(history).min() > -1e-9
    assert history[-1] > history[0] + 1  # it does rise


def test_the_same_votes_give_the_same_bits() -> None:
    one, other = anaesthetists(), anaesthetists()
    assert one.posterior.tobytes() == other.posterior.tobytes()
    assert one.confusion.tobytes() == other.confusion.tobytes()


@pytest.mark.parametrize(("num_votes", "expected"), [(1, 0.7), (2, 0.49 / 0.58), (3, 0.343 / 0.37)])
def test_annotators_of_known_accuracy_give_bayes_rule(num_votes: int, expected: float) -> None:
    # A prior worth a billion votes fixes the accuracy at 0.7; mirrored classes have equal prevalence.
    fit = dawid_skene(
        [0] * num_votes, list(range(num_votes)), [0] * num_votes, num_classes=2, symmetric=True, prior_votes=1e9
    )
    assert fit.posterior[0] == pytest.approx([expected, 1 - expected], abs=1e-7)
    assert fit.accuracy == pytest.approx([0.7] * num_votes, abs=1e-7)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return units, annotators, labels and truth of 300 units by five annotators each, of whom two guess."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([0, 0, 0, 2], 300)
    units, annotators = np.repeat(np.arange(300), 5), np.tile(np.arange(5), 300)
    right = generator.random(1500) < np.array([0.95, 0.9, 0.8, 0.5, 0.5])[annotators]
    labels = np.where(generator.random(1500) < 0.1, 1, np.where(right, truth[units], 2 - truth[units]))
    return units, annotators, labels, truth


def test_accuracy_is_found() -> None:
    units, annotators, labels, truth = planted()
    fit = dawid_skene(units, annotators, labels, num_classes=3, symmetric=True)
    # A tenth are ties; three standard errors of a share of 300.
    assert fit.accuracy == pytest.approx(np.array([0.95, 0.9, 0.8, 0.5, 0.5]) * 0.9, abs=0.09)
    found = (fit.posterior.argmax(axis=1) == truth).mean()
    majority = (np.bincount(units, weights=labels - 1.0) < 0) == (truth == 0)
    assert found > majority.mean() + 0.02
    # Negative control: with the annotators' names shuffled nobody is better than another, and the advantage is gone.
    shuffled = np.random.default_rng(1).permutation(annotators)
    lost = dawid_skene(units, shuffled, labels, num_classes=3, symmetric=True)
    assert np.ptp(fit.accuracy) > 0.3
    assert np.ptp(lost.accuracy) < 0.15


def test_the_order_of_a_pair_does_not_matter_where_classes_mirror_each_other() -> None:
    units, annotators, labels, _ = planted()
    turned = np.random.default_rng(2).random(300) < 0.5
    mirrored = np.where(turned[units], 2 - labels, labels)
    apart = []
    for symmetric in (True, False):
        one = dawid_skene(units, annotators, labels, num_classes=3, symmetric=symmetric).posterior
        other = dawid_skene(units, annotators, mirrored, num_classes=3, symmetric=symmetric).posterior
        other[turned] = other[turned, ::-1]
        apart.append(np.abs(one - other).max())
    assert apart[0] < 1e-5
    assert apart[1] > 1e-2  # negative control: three in four true answers were on one side, and that was learned


def test_no_votes_and_bad_votes() -> None:
    fit = dawid_skene([], [], [], num_classes=3)
    assert (fit.posterior.shape, fit.confusion.shape) == ((0, 3), (0, 3, 3))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        dawid_skene([0], [0], [3], num_classes=3)
    with pytest.raises(ValueError, match="needs a unit, an annotator and a label"):
        dawid_skene([0, 1], [0], [1], num_classes=3)
