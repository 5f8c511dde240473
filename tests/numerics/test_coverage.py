"""Intervals cover what they promise, in simulations where the truth is known.

Items come in clusters of uneven size that mostly share their luck. The bounds of each kind are fixed here, and the
99.9 % interval of the measured coverage has to lie within them; the same items taken for independent, or the usual
shortcut, have to fall below. The default suite runs a few hundred replications of small data sets, where the interval
only has to reach the bounds; `make test-integration` runs all: 5,000 replications, and 1,000 where a model is fitted
in every draw of a bootstrap. The shortcuts miss by so much that a fifth of the replications shows it.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import expit

from pipeline.statistics import bootstrap as bootstrap_module
from pipeline.statistics import calibration as calibration_module
from pipeline.statistics import ratings as ratings_module
from pipeline.statistics.bootstrap import bootstrap_totals, cluster_draws
from pipeline.statistics.calibration import calibration, fit_temperature
from pipeline.statistics.concordance import concordance
from pipeline.statistics.intervals import (
    Estimate,
    mean_interval,
    paired_difference,
    paired_proportion_difference,
    paired_ratio_difference,
    proportion_interval,
    ratio_interval,
    wilson,
)
from pipeline.statistics.judge_correction import Confusion, corrected_rate, prediction_powered_mean
from pipeline.statistics.length_control import length_controlled_win_rate
from pipeline.statistics.ratings import ELO_PER_NAT, policy_ratings
from pipeline.statistics.win_rates import order_effects, win_rate

Generator = np.random.Generator
SHARED = 0.85  # of the items follow their cluster's luck instead of their own
Bounds = tuple[float, float]
Hits = tuple[bool, bool | None]  # whether the interval covers, and the shortcut's where it was asked for


@pytest.fixture(autouse=True, scope="module")
def _draws_made_once() -> Iterator[None]:
    """Keep the draws of clusters: every replication has the same seed, and so the same ones."""

    @functools.lru_cache(maxsize=4)
    def kept(num_clusters: int, n: int, draws: int, seed: int) -> list[np.ndarray]:
        return list(cluster_draws(num_clusters, n, draws, seed))

    with pytest.MonkeyPatch.context() as patch:
        for module in (bootstrap_module, calibration_module, ratings_module):
            patch.setattr(module, "cluster_draws", kept)
        yield


@dataclass(frozen=True, slots=True)
class Sample:
    """Items of C clusters."""

    codes: np.ndarray  # [n]
    luck: np.ndarray  # [n] uniform, mostly that of the cluster
    generator: Generator
    with_shortcut: bool = True  # whether the shortcut is computed too

    @property
    def clusters(self) -> list[int]:
        return list(self.codes.tolist())

    @property
    def n(self) -> int:
        return len(self.codes)

    def again(self) -> np.ndarray:
        """Draw another luck of the same items."""
        return luck(self.codes, self.generator)


def luck(codes: np.ndarray, generator: Generator) -> np.ndarray:
    shared = generator.random(int(codes[-1]) + 1)[codes]
    return np.where(generator.random(len(codes)) < SHARED, shared, generator.random(len(codes)))


def sample(num_clusters: int, sizes: tuple[int, ...], generator: Generator, with_shortcut: bool) -> Sample:
    codes = np.repeat(np.arange(num_clusters), np.resize(sizes, num_clusters))
    return Sample(codes, luck(codes, generator), generator, with_shortcut)


def hit(value: Estimate, truth: float) -> bool:
    return value.low is not None and value.high is not None and value.low <= truth <= value.high


def both(one: Callable[[list[int]], Estimate], data: Sample, truth: float) -> Hits:
    """Return whether the interval covers with the real clusters, and with every item as its own."""
    return hit(one(data.clusters), truth), hit(one(list(range(data.n))), truth) if data.with_shortcut else None


def mean(data: Sample) -> Hits:
    values = data.luck.tolist()
    return both(lambda clusters: mean_interval(values, clusters), data, 0.5)


def skewed_mean(data: Sample) -> Hits:
    values = (-np.log(data.luck)).tolist()  # exponential
    return both(lambda clusters: mean_interval(values, clusters), data, 1.0)


def difference(data: Sample) -> Hits:
    a, b = -np.log(data.luck) + 0.1, -np.log(data.again())
    return both(lambda clusters: paired_difference(a, b, clusters), data, 0.1)


def ratio(data: Sample) -> Hits:
    tokens = 20 + 80 * data.generator.random(data.n)
    nats = tokens * (1 + 2 * data.luck)
    return both(lambda clusters: ratio_interval(nats, tokens, clusters), data, 2.0)


def ratio_difference(data: Sample) -> Hits:
    tokens = 20 + 80 * data.generator.random(data.n)
    a, b = tokens * (1.1 + 2 * data.luck), tokens * (1 + 2 * data.again())
    return both(lambda clusters: paired_ratio_difference(a, b, tokens, clusters), data, 0.1)


def share(probability: float) -> Callable[[Sample], Hits]:
    def run(data: Sample) -> Hits:
        passed = (data.luck < probability).tolist()
        return both(lambda clusters: proportion_interval(passed, clusters), data, probability)

    return run


def share_difference(data: Sample) -> Hits:
    a, b = data.luck < 0.3, (data.luck > 0.2) & (data.luck < 0.4)  # 0.1 both, 0.2 only a, 0.1 only b
    return both(lambda clusters: paired_proportion_difference(a.tolist(), b.tolist(), clusters), data, 0.1)


def independent_share(data: Sample) -> Hits:
    """Wilson's interval of as many items as clusters, beside Wald's."""
    count = int(data.codes[-1]) + 1
    passed = int((data.generator.random(count) < 0.9).sum())
    wald = 1.96 * (passed / count * (1 - passed / count) / count) ** 0.5
    return hit(wilson(passed, count), 0.9), abs(passed / count - 0.9) <= wald


def wins(data: Sample) -> Hits:
    verdicts = np.select([data.luck < 0.5, data.luck < 0.8], [1.0, 0.5], 0.0)
    return both(lambda clusters: win_rate(verdicts, clusters), data, 0.65)


def first_slot(data: Sample) -> Hits:
    """A judge that goes by the slot on a fifth of the pairs, mostly by the first."""
    truth, slot = (data.again() < 0.6).astype(float), data.luck
    forward = np.select([slot < 0.15, slot < 0.2], [1.0, 0.0], truth)
    backward = np.select([slot < 0.15, slot < 0.2], [0.0, 1.0], truth)
    return both(lambda clusters: order_effects(forward, backward, clusters).first_slot_bias, data, 0.05)


def corrected(data: Sample) -> Hits:
    """A judge with sensitivity 0.85 and specificity 0.8; people judged 60 of each. The naive one takes its word."""
    true = data.luck < 0.7
    said = np.where(data.generator.random(data.n) < np.where(true, 0.85, 0.8), true, ~true)
    draw = data.generator.binomial
    confusion = Confusion(
        true_positives=int(draw(60, 0.85)), positives=60, true_negatives=int(draw(60, 0.8)), negatives=60
    )
    value = corrected_rate(said.tolist(), data.clusters, confusion)
    # Taken at its word, and its own error rates as if they were known exactly.
    naive = proportion_interval(said.tolist(), range(data.n))
    return hit(value, 0.7), hit(naive.moved(scale=1 / 0.65, shift=-0.2 / 0.65), 0.7)


def prediction_powered(data: Sample) -> Hits:
    quality, people = data.luck, data.again()[: max(40, data.n // 5)]
    judged = quality + 0.3 + 0.1 * data.generator.normal(size=data.n)
    by_judge = people + 0.3 + 0.1 * data.generator.normal(size=len(people))
    clusters = data.clusters
    value = prediction_powered_mean(judged, clusters, people, by_judge, clusters[: len(people)])
    return hit(value, 0.5), hit(mean_interval(judged, clusters), 0.5)


def totals(data: Sample) -> Hits:
    """A product of means, studentised from 40 clusters on."""
    table = np.column_stack([-np.log(data.luck), 1 + data.again(), np.ones(data.n)])

    def product(sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums[:, 0] * sums[:, 1] / sums[:, 2] ** 2)

    return both(lambda clusters: bootstrap_totals(product, table, clusters, method="product", draws=600), data, 1.5)


def length_controlled(theta: float) -> Callable[[Sample], Hits]:
    def run(data: Sample) -> Hits:
        lengths, others = data.generator.normal(270, 90, data.n), data.generator.normal(230, 70, data.n)
        excess = lengths - others
        verdicts = (data.luck < expit(theta + np.tanh(excess / excess.std()))).astype(float)
        return both(
            lambda clusters: length_controlled_win_rate(verdicts, lengths, others, clusters, draws=200),
            data,
            float(expit(theta)),
        )

    return run


def published_length_control(data: Sample) -> Hits:
    """Independent items, beside the standard error of the mean of fitted predictions."""
    lengths, others = data.generator.normal(270, 90, data.n), data.generator.normal(230, 70, data.n)
    excess = lengths - others
    verdicts = (data.generator.random(data.n) < expit(0.7 + np.tanh(excess / excess.std()))).astype(float)
    value = length_controlled_win_rate(verdicts, lengths, others, range(data.n), draws=200)
    spread = float(np.std(expit(0.7 + np.tanh(excess / excess.std())))) / data.n**0.5
    assert value.estimate is not None
    return hit(value, float(expit(0.7))), abs(value.estimate - float(expit(0.7))) <= 1.96 * spread


def kappa(data: Sample) -> Hits:
    people = data.generator.integers(0, 3, int(data.codes[-1]) + 1)[data.codes]
    judge = np.where(data.luck < 0.1, (people + 1 + data.generator.integers(0, 2, data.n)) % 3, people)

    def one(clusters: list[int]) -> Estimate:
        return concordance(people.tolist(), judge.tolist(), clusters, categories=[0, 1, 2], draws=200).kappa

    return both(one, data, (0.9 - 1 / 3) / (2 / 3))


def agreement_ac1(data: Sample) -> Hits:
    people = data.generator.integers(0, 2, int(data.codes[-1]) + 1)[data.codes]
    judge = np.where(data.luck < 0.2, 1 - people, people)

    def one(clusters: list[int]) -> Estimate:
        return concordance(people.tolist(), judge.tolist(), clusters, categories=[0, 1], draws=200).gwet_ac1

    return both(one, data, (0.8 - 0.5) / 0.5)


def calibration_error(data: Sample) -> Hits:
    """A judge that claims 40 % more than is true; the naive interval is the bootstrap of the biased error itself."""
    given = data.generator.uniform(0.5, 1, data.n)
    came = (data.luck < 0.5 + 0.6 * (given - 0.5)).astype(float)
    value = calibration(given, came, data.clusters, draws=200)
    groups = np.minimum((given * 20 - 10).astype(int), 9)
    table = np.zeros((data.n, 11))
    table[np.arange(data.n), groups] = came - given
    table[:, 10] = 1

    def error(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(sums[:, :10]).sum(axis=1) / sums[:, 10])

    if not data.with_shortcut:
        return hit(value.ece, 0.1), None
    return hit(value.ece, 0.1), hit(bootstrap_totals(error, table, range(data.n), method="naive", draws=200), 0.1)


def temperature(data: Sample) -> Hits:
    margins = np.abs(data.generator.normal(0, 3, data.n))  # the better one first: luck acts alike on a whole cluster
    came = (data.luck < expit(margins / 2)).astype(float)
    return both(lambda clusters: fit_temperature(margins, came, clusters), data, 2.0)


def rating(data: Sample) -> Hits:
    """Each item compares all three pairs; the judge likes style, and the first policies of an item share their luck."""
    pairs = np.array(list(itertools.combinations(range(3), 2)))
    strengths = np.array([0.8, 0.0, -0.8])
    first, second = np.tile(pairs, (data.n, 1)).T
    looks = data.generator.normal(size=len(first))
    chance = expit(strengths[first] - strengths[second] + 0.7 * looks)
    verdicts = (np.repeat(data.luck, 3) < chance).astype(float)
    members = np.repeat(data.codes, 3).tolist()

    def one(clusters: list[int]) -> Estimate:
        return policy_ratings(
            first, second, verdicts, clusters, num_policies=3, styles=looks[:, None], draws=120
        ).policies[0]

    truth = 1000 + ELO_PER_NAT * 0.8
    return hit(one(members), truth), hit(one(list(range(len(members)))), truth) if data.with_shortcut else None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of interval and its promise."""

    run: Callable[[Sample], Hits]
    few: Bounds  # with 12 clusters
    many: Bounds  # with 50 and more
    replications: int = 5000
    quick: int = 300  # of the default suite
    sizes: tuple[int, ...] = (2, 4, 6, 8)
    shortcut_fails: tuple[int, ...] = (12, 50, 200, 1000)  # clusters


T: dict[str, Bounds] = {"few": (0.90, 0.985), "many": (0.925, 0.97)}  # of means and ratios
PSEUDO: dict[str, Bounds] = {"few": (0.92, 1.0), "many": (0.93, 0.995)}  # kept wide by pseudo-clusters
FITTED: dict[str, Bounds] = {"few": (0.88, 1.0), "many": (0.89, 0.999)}
SMALL = (1, 2, 3)
MIN_CONTROLS = 300  # replications of a shortcut
KINDS: dict[str, Kind] = {
    "mean": Kind(mean, **T),
    "skewed mean": Kind(skewed_mean, (0.84, 0.985), (0.90, 0.97)),  # few clusters are few for a t interval
    "paired difference": Kind(difference, **T),
    "ratio": Kind(ratio, **T),
    "paired ratio difference": Kind(ratio_difference, **T),
    "share of 50 %": Kind(share(0.5), **PSEUDO),
    "share of 80 %": Kind(share(0.8), **PSEUDO),
    "share of 95 %": Kind(share(0.95), **PSEUDO, shortcut_fails=(50, 200, 1000)),
    "independent share": Kind(independent_share, (0.92, 0.99), (0.93, 0.98), shortcut_fails=(12, 50)),
    "paired difference of shares": Kind(share_difference, **PSEUDO, shortcut_fails=(50, 200, 1000)),
    "win rate": Kind(wins, **PSEUDO),
    "first-slot bias": Kind(first_slot, **PSEUDO, shortcut_fails=(50, 200, 1000)),
    "corrected rate": Kind(corrected, **PSEUDO),
    "prediction-powered mean": Kind(prediction_powered, **T),
    "bootstrap": Kind(totals, (0.82, 1.0), FITTED["many"], quick=100),
    "length-controlled win rate": Kind(length_controlled(0.7), **FITTED, replications=1000, quick=100, sizes=(2, 4, 6),
                                       shortcut_fails=(50, 200, 1000)),
    "length-controlled win rate of 90 %": Kind(length_controlled(2.2), **FITTED, replications=1000, quick=100,
                                               sizes=(2, 4, 6), shortcut_fails=(200, 1000)),
    "length control beside the published error": Kind(published_length_control, **FITTED, replications=1000, quick=100,
                                                      sizes=(1,)),
    "kappa": Kind(kappa, **FITTED, quick=100, shortcut_fails=(50, 200, 1000)),
    "AC1": Kind(agreement_ac1, **FITTED, quick=100),
    "calibration error": Kind(calibration_error, (0.9, 1.0), (0.93, 1.0), quick=100,
                              shortcut_fails=(12, 50)),
    "temperature": Kind(temperature, **FITTED, quick=100, shortcut_fails=(50, 200, 1000)),
    "rating": Kind(rating, **FITTED, replications=1000, quick=100, sizes=SMALL, shortcut_fails=(50, 200)),
}  # fmt: skip


def measure(name: str, num_clusters: int, replications: int, controls: int) -> tuple[list[float], list[float]]:
    """Return the 99.9 % intervals of both coverages, the shortcut's from the first ``controls``, and say them."""
    kind, generator = KINDS[name], np.random.default_rng([num_clusters, sum(name.encode())])
    hits = [kind.run(sample(num_clusters, kind.sizes, generator, done < controls)) for done in range(replications)]
    intervals, shown = [], []
    for covered in ([ours for ours, _ in hits], [other for _, other in hits if other is not None]):
        value = wilson(sum(covered), len(covered), confidence=0.999)
        assert value.low is not None
        assert value.high is not None
        intervals.append([value.low, value.high])
        shown.append(f"{value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}] of {len(covered)}")
    sys.stdout.write(f"{name} | {num_clusters} clusters | {' | '.join(shown)}\n")
    return intervals[0], intervals[1]


@pytest.mark.parametrize("name", KINDS)
def test_intervals_reach_what_they_promise(name: str) -> None:
    kind = KINDS[name]
    ours, shortcut = measure(name, 50, kind.quick, kind.quick)
    assert ours[1] >= kind.many[0]
    assert ours[0] <= kind.many[1]
    if 50 in kind.shortcut_fails:
        assert shortcut[0] < kind.many[0]


@pytest.mark.integration
@pytest.mark.parametrize("num_clusters", [12, 50, 200, 1000])
@pytest.mark.parametrize("name", KINDS)
def test_intervals_cover_what_they_promise_and_shortcuts_do_not(name: str, num_clusters: int) -> None:
    kind = KINDS[name]
    bounds = kind.few if num_clusters == 12 else kind.many
    ours, shortcut = measure(name, num_clusters, kind.replications, max(MIN_CONTROLS, kind.replications // 5))
    assert bounds[0] <= ours[0]
    assert ours[1] <= bounds[1]  # where a coverage of 100 % is allowed, the bound is 1
    if num_clusters in kind.shortcut_fails:
        assert shortcut[1] < bounds[0]
