"""pass@k against counting all draws."""

from __future__ import annotations

import itertools

import pytest

from pipeline.statistics.pass_at_k import pass_at_k


@pytest.mark.parametrize(("passed", "total", "k"), [(0, 5, 2), (1, 5, 2), (3, 5, 2), (4, 5, 2), (5, 5, 1), (2, 9, 4)])
def test_against_counting_every_draw(passed: int, total: int, k: int) -> None:
    draws = list(itertools.combinations([True] * passed + [False] * (total - passed), k))
    expected = sum(any(draw) for draw in draws) / len(draws)
    assert pass_at_k([passed], [total], k, [0]).estimate == pytest.approx(expected, abs=1e-12)
    if 0 < passed < total - k + 1 and k > 1:  # negative control: the biased plug-in, as if drawn with replacement
        assert expected != pytest.approx(1 - (1 - passed / total) ** k, abs=1e-3)


def test_the_mean_over_items_and_its_interval() -> None:
    value = pass_at_k([0, 5, 1, 5], [5, 5, 5, 5], 5, range(4))
    assert value.estimate == 0.75  # whoever passes once passes in five
    assert value.low is not None
    assert value.high is not None
    assert 0 < value.low < 0.75 < value.high <= 1
    assert pass_at_k([0, 5, 1, 5], [5, 5, 5, 5], 1, range(4)).estimate == pytest.approx(11 / 20)
    assert pass_at_k([300], [1000], 100, [0]).estimate == pytest.approx(1.0, abs=1e-12)  # no overflow


def test_bad_counts() -> None:
    with pytest.raises(ValueError, match="at least k = 3"):
        pass_at_k([1], [2], 3, [0])
    with pytest.raises(ValueError, match="as many completions as pass"):
        pass_at_k([3], [2], 1, [0])
