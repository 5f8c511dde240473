"""Gates on simulated systems: equal ones seldom fail, a planted regression is found as often as was promised."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from pipeline.statistics.decisions import Decision, better, not_worse
from pipeline.statistics.intervals import Estimate, paired_proportion_difference, wilson
from pipeline.statistics.power import items_needed, items_to_detect, minimum_detectable

FULL, SMALL = 5000, 300
POWER = 0.75, 0.87  # within which the measured power has to lie where 0.8 is stated


def interval(count: int, total: int) -> tuple[float, float]:
    """Return the 99.9 % interval of a measured share."""
    value = wilson(count, total, confidence=0.999)
    assert value.low is not None
    assert value.high is not None
    return value.low, value.high


def say(what: str, count: int, total: int) -> tuple[float, float]:
    low, high = interval(count, total)
    sys.stdout.write(f"{what} | {total} | {count / total:.3f} [{low:.3f}, {high:.3f}]\n")
    return low, high


def assert_power(what: str, count: int, replications: int) -> None:
    low, high = say(what, count, replications)
    if replications == FULL:
        assert POWER[0] <= low
        assert high <= POWER[1]
    assert high >= POWER[0]
    assert low <= POWER[1]


def systems(
    generator: np.random.Generator, num_clusters: int, size: int, only_old: float, only_new: float
) -> tuple[list[bool], list[bool], list[int]]:
    """Return what two systems pass; seven items of ten follow their cluster."""
    codes = np.repeat(np.arange(num_clusters), size)
    luck = np.where(
        generator.random(len(codes)) < (0.7 if size > 1 else 0.0),
        generator.random(num_clusters)[codes],
        generator.random(len(codes)),
    )
    both = luck > 0.5
    new = both | (luck < only_new)
    old = both | ((luck >= only_new) & (luck < only_new + only_old))
    return new.tolist(), old.tolist(), codes.tolist()


def simulate(
    decide: Callable[[Estimate], bool],
    replications: int,
    num_clusters: int,
    size: int,
    only_old: float,
    only_new: float,
) -> int:
    generator = np.random.default_rng([num_clusters, size, replications])
    return sum(
        decide(paired_proportion_difference(*systems(generator, num_clusters, size, only_old, only_new)))
        for _ in range(replications)
    )


def fails(estimate: Estimate) -> bool:
    return not_worse(estimate, margin=0.03) is Decision.FAIL


def improves(estimate: Estimate) -> bool:
    return better(estimate) is Decision.PASS


def looks_worse(estimate: Estimate) -> bool:
    """The gate on the point estimate alone that many use."""
    assert estimate.estimate is not None
    return estimate.estimate < 0


@pytest.mark.parametrize("replications", [SMALL, pytest.param(FULL, marks=pytest.mark.integration)])
@pytest.mark.parametrize(("num_clusters", "size"), [(50, 1), (200, 1), (40, 5)])
def test_two_equal_systems_seldom_fail_a_gate(num_clusters: int, size: int, replications: int) -> None:
    for what, decide in (("fails a gate", fails), ("passes for better", improves)):
        count = simulate(decide, replications, num_clusters, size, 0.15, 0.15)
        low, high = say(f"equal, {num_clusters} x {size}: {what}", count, replications)
        assert low <= 0.025
        assert high <= (0.05 if replications == FULL else 0.09)
    naive = simulate(looks_worse, replications, num_clusters, size, 0.15, 0.15)
    assert say(f"equal, {num_clusters} x {size}: point estimate is worse", naive, replications)[0] > 0.3


def exact_power(n: int, only_old: float, only_new: float) -> float:
    """Return the chance that n independent items show a regression, summed over all they can come to.

    Bonett and Price's interval written out: two more items, one won and one lost, in its centre and variance.
    """
    total = 0.0
    for lost in range(n + 1):
        won = np.arange(n - lost + 1)
        chance = stats.binom.pmf(lost, n, only_old) * stats.binom.pmf(won, n - lost, only_new / (1 - only_old))
        centre = (won - lost) / (n + 2)
        squares = (lost + 1) * (1 + centre) ** 2 + (won + 1) * (1 - centre) ** 2 + (n - lost - won) * centre**2
        total += float(chance[centre + stats.t.ppf(0.975, n - 1) * np.sqrt(squares) / (n + 2) < 0].sum())
    return total


def test_the_stated_power_is_the_exact_one_but_for_a_point() -> None:
    """The formula for planning (arXiv:2411.00640) is a normal one, the interval has two more items and Student's t."""
    assert exact_power(items_needed(0.1, 0.3 - 0.1**2), 0.2, 0.1) == pytest.approx(0.791, abs=0.001)
    assert exact_power(114, 0.2, 0.1) < 0.52  # negative control: half the items


@pytest.mark.parametrize("replications", [SMALL, pytest.param(FULL, marks=pytest.mark.integration)])
def test_a_planted_regression_of_ten_points_is_found_with_the_stated_power(replications: int) -> None:
    # Only the old one passes 20 % of the items, only the new one 10 %: the variance is 0.3 - 0.1^2.
    n = items_needed(0.1, 0.3 - 0.1**2)
    assert n == 228
    found = simulate(fails, replications, n, 1, 0.2, 0.1)
    assert_power(f"regression of 10 points, {n} items", found, replications)
    # Negative control: half the items find it much less often.
    halved = simulate(fails, replications, n // 2, 1, 0.2, 0.1)
    assert say(f"regression of 10 points, {n // 2} items", halved, replications)[1] < 0.65


@pytest.mark.parametrize("replications", [SMALL, pytest.param(FULL, marks=pytest.mark.integration)])
def test_what_a_comparison_of_clusters_says_it_can_find_it_finds(replications: int) -> None:
    """What a comparison of equal systems says that it could find is found in four of five when it is planted."""
    generator = np.random.default_rng(5)
    said = [
        (minimum_detectable(value), items_to_detect(value, 0.1))
        for value in (paired_proportion_difference(*systems(generator, 100, 5, 0.15, 0.15)) for _ in range(200))
    ]
    detectable = float(np.mean([one for one, _ in said if one is not None]))
    assert 0.08 < detectable < 0.2
    found = simulate(fails, replications, 100, 5, 0.15 + detectable / 2, 0.15 - detectable / 2)
    assert_power(f"regression of {detectable:.3f} in 100 clusters of 5", found, replications)
    # So many items of the same kind find ten points as often.
    needed = round(float(np.mean([one for _, one in said if one is not None])) / 5)
    count = simulate(fails, replications, needed, 5, 0.2, 0.1)
    assert_power(f"regression of 10 points in {needed} clusters of 5", count, replications)
    # Taken for independent, items seem to be enough that are not: equal systems fail.
    alone = 0
    for _ in range(replications):
        new, old, codes = systems(generator, 100, 5, 0.15, 0.15)
        alone += fails(paired_proportion_difference(new, old, range(len(codes))))
    assert say("equal, taken for independent: fails a gate", alone, replications)[0] > 0.05
