"""Calibration errors and temperatures, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.statistics.calibration import calibration, fit_temperature


def test_calibration_by_hand() -> None:
    # Two bins of two: at 0.6 one of two comes true, gap 0.1; at 0.9 two of two, gap 0.1.
    value = calibration([0.6, 0.6, 0.9, 0.9], [1, 0, 1, 1], range(4), num_bins=2, draws=100)
    assert value.ece.estimate == pytest.approx(0.1)
    assert value.brier.estimate == pytest.approx((0.16 + 0.36 + 0.01 + 0.01) / 4)
    assert value.nll.estimate == pytest.approx(-(math.log(0.6) + math.log(0.4) + 2 * math.log(0.9)) / 4)
    assert [entry.confidence for entry in value.bins] == pytest.approx([0.6, 0.9])
    assert [entry.accuracy.estimate for entry in value.bins] == [0.5, 1.0]
    # With one bin the two gaps cancel: 3/4 came true and 3/4 was claimed.
    assert calibration([0.6, 0.6, 0.9, 0.9], [1, 0, 1, 1], range(4), num_bins=1, draws=100).ece.estimate == (
        pytest.approx(0.0)
    )


def test_bins_hold_equally_many_and_never_part_equal_values() -> None:
    given = np.concatenate([np.linspace(0.5, 0.6, 50), np.linspace(0.61, 1.0, 50)])
    value = calibration(given, np.ones(100), range(100), num_bins=4, draws=50)
    assert [entry.accuracy.n for entry in value.bins] == [25, 25, 25, 25]
    tied = calibration([0.7] * 90 + [0.9] * 10, [1] * 100, range(100), num_bins=10, draws=50)
    assert [entry.accuracy.n for entry in tied.bins] == [90, 10]


def test_the_sides_of_a_pair_are_arbitrary() -> None:
    generator = np.random.default_rng(0)
    given = generator.random(200)
    came = (generator.random(200) < given).astype(float)
    came[:20] = 0.5
    swap = generator.random(200) < 0.5
    one = calibration(given, came, range(200), draws=200)
    other = calibration(np.where(swap, 1 - given, given), np.where(swap, 1 - came, came), range(200), draws=200)
    for name in ("ece", "brier", "nll"):
        mine, mirrored = getattr(one, name), getattr(other, name)
        assert mirrored.estimate == pytest.approx(mine.estimate, abs=1e-12)
        assert mirrored.low == pytest.approx(mine.low, abs=1e-9)


def test_noise_alone_gives_an_error_and_how_much_is_said() -> None:
    generator = np.random.default_rng(1)
    given = generator.random(300)
    honest = calibration(given, (generator.random(300) < given).astype(float), range(300))
    assert honest.ece.estimate is not None
    assert honest.ece.low is not None
    assert honest.ece_if_calibrated is not None
    assert 0.02 < honest.ece_if_calibrated < 0.08
    assert honest.ece.estimate == pytest.approx(honest.ece_if_calibrated, abs=0.03)
    assert honest.ece.low < 0.02  # zero error is about what the interval says
    # Negative control: one that is far too sure of itself.
    bold = np.where(given > 0.5, 0.98, 0.02)
    boasting = calibration(bold, (generator.random(300) < given).astype(float), range(300))
    assert boasting.ece.low is not None
    assert boasting.ece_if_calibrated is not None
    assert boasting.ece.low > 0.1 > 5 * boasting.ece_if_calibrated


def test_what_was_held_impossible() -> None:
    value = calibration([0.0, 1.0, 0.5], [1, 1, 0], range(3), draws=50)
    assert value.nll.estimate is None
    assert "held impossible" in value.nll.method
    assert calibration([0.0, 1.0, 0.5], [0, 1, 0], range(3), draws=50).nll.estimate == pytest.approx(math.log(2) / 3)


def test_a_temperature_is_found_whatever_the_unit_of_the_scores() -> None:
    generator = np.random.default_rng(2)
    margins = generator.normal(0, 4, 4000)
    came = (generator.random(4000) < 1 / (1 + np.exp(-margins / 2.5))).astype(float)
    value = fit_temperature(margins, came, range(4000))
    assert value.low is not None
    assert value.high is not None
    assert value.low < 2.5 < value.high
    assert value.estimate == pytest.approx(2.5, rel=0.1)
    assert value.high / value.low < 1.2
    scaled = fit_temperature(margins * 1e3, came, range(4000))
    assert scaled.estimate == pytest.approx(1e3 * (value.estimate or 0), rel=1e-6)
    # Two verdicts for, one against, at a margin of one: sigma(1 / T) = 2/3.
    assert fit_temperature([1, 1, 1], [1, 1, 0], range(3)).estimate == pytest.approx(1 / math.log(2), rel=1e-6)
    # A tie is half of each: sigma(1 / T) = 3/4.
    assert fit_temperature([1, 1], [1, 0.5], range(2)).estimate == pytest.approx(1 / math.log(3), rel=1e-6)


def test_margins_that_determine_no_temperature() -> None:
    assert "no margin contradicts" in fit_temperature([1, 2, -1], [1, 1, 0], range(3)).method
    assert "do not rise" in fit_temperature([1, 2, -1], [0, 0, 1], range(3)).method
    assert fit_temperature([], [], []).estimate is None
    one = fit_temperature([1, 1, 1], [1, 1, 0], ["a"] * 3)
    assert one.estimate is not None
    assert one.low is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration([1.2], [1], [0])
    with pytest.raises(ValueError, match="needs an outcome: got 1 and 2"):
        calibration([0.2], [1, 0], [0])
    empty = calibration([], [], [])
    assert (empty.ece.estimate, empty.ece_if_calibrated, empty.nll.estimate, empty.bins) == (None, None, None, [])
