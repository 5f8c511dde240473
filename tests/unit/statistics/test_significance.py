"""Exact tests and Holm's correction, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.statistics.significance import holm, mcnemar_p, sign_flip_p


def test_sign_flips_by_hand() -> None:
    # Of the 8 arrangements of 1, 2, 3 only +++ and --- reach |6|.
    assert sign_flip_p([1, 2, 3], range(3)) == 2 / 8
    # With 3, -1, 2 the sum is 4: reached by +6, +4 and their mirrors.
    assert sign_flip_p([3, -1, 2], range(3)) == 4 / 8
    assert sign_flip_p([0, 0, 0], range(3)) == 1.0
    assert sign_flip_p([], []) is None


def test_rounding_decides_no_tie() -> None:
    """Tenths are no exact numbers; the same whole numbers are, and have the same p-value."""
    generator = np.random.default_rng(4)
    for values in generator.integers(-5, 6, (20, 8)):
        assert sign_flip_p((values / 10).tolist(), range(8)) == sign_flip_p(values.tolist(), range(8))


def test_clusters_flip_as_one() -> None:
    assert sign_flip_p([1, 1, 2, 2], ["a", "a", "b", "b"]) == 2 / 4
    assert sign_flip_p([1, 1, 2, 2], range(4)) == 2 / 16  # negative control: as if they were independent


def test_drawn_arrangements_agree_with_all_of_them() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.35, 1, 16)
    exact = sign_flip_p(values, range(16))
    assert exact is not None
    # One more item of no difference changes no sum, but makes too many arrangements to look at.
    drawn = sign_flip_p([*values, 0.0], range(17), draws=200_000)
    assert 0.02 < exact < 0.9
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 200_000) ** 0.5 + 1e-5)
    assert sign_flip_p(np.ones(40), range(40), draws=999) == 1 / 1000  # never zero


def test_a_margin_is_added_to_the_differences() -> None:
    generator = np.random.default_rng(1)
    worse = generator.normal(-0.5, 1, 200)
    assert (sign_flip_p(worse, range(200)) or 0) < 0.001
    assert (sign_flip_p(worse + 0.5, range(200)) or 0) > 0.01


def test_mcnemar_by_hand() -> None:
    assert mcnemar_p(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_p(9, 1) == mcnemar_p(1, 9)
    assert mcnemar_p(3, 3) == 1.0
    assert mcnemar_p(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative"):
        mcnemar_p(-1, 2)


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06 and 0.04 lifted to it; names keep their order.
    adjusted = holm({"d": 0.04, "a": 0.01, "b": 0.02, "c": 0.03})
    assert list(adjusted) == ["d", "a", "b", "c"]
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"x": 0.7, "y": 0.6}) == {"x": 1.0, "y": 1.0}
    assert holm({}) == {}
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm({"x": 1.1})


def test_holm_keeps_the_error_of_the_family_and_no_correction_does_not() -> None:
    p = np.random.default_rng(3).random((4000, 5))
    corrected = np.mean([min(holm(dict(enumerate(row))).values()) <= 0.05 for row in p.tolist()])  # type: ignore[arg-type]
    assert corrected < 0.05 + 3.29 * (0.05 * 0.95 / 4000) ** 0.5
    assert (p.min(axis=1) <= 0.05).mean() > 0.15
