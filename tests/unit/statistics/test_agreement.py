"""Agreement against the values that its authors published, an independent library, and cases worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.statistics.agreement import Kappa, Level, cohen_kappas, krippendorff_alpha

# The reliability data of Krippendorff (2011), section C: four observers, twelve units, full stops where nobody judged.
PUBLISHED = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def long_form(observers: tuple[str, ...]) -> tuple[list[int], list[int], list[int]]:
    """Return units, observers and values of what was judged."""
    cells = [
        (unit, observer, ord(value))
        for observer, row in enumerate(observers)
        for unit, value in enumerate(row)
        if value != "."
    ]
    units, who, values = zip(*cells, strict=True)
    return list(units), list(who), list(values)


def alpha(observers: tuple[str, ...], level: Level = Level.nominal) -> float | None:
    units, _, values = long_form(observers)
    return krippendorff_alpha(units, values, level)


@pytest.mark.parametrize(
    ("level", "expected"), [(Level.nominal, 0.743), (Level.ordinal, 0.815), (Level.interval, 0.849)]
)
def test_alpha_of_the_papers_example(level: Level, expected: float) -> None:
    assert alpha(PUBLISHED, level) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("level", "expected"), [(Level.nominal, 0.691), (Level.ordinal, 0.807), (Level.interval, 0.811)]
)
def test_alpha_of_three_coders_with_many_gaps(level: Level, expected: float) -> None:
    # The example of the Wikipedia article "Krippendorff's alpha", fifteen units.
    assert alpha((".....34121133.3", "1.213343.......", "..21344.21133.4"), level) == pytest.approx(expected, abs=5e-4)


def test_alpha_of_the_papers_examples_with_two_observers() -> None:
    assert alpha(("0100000010", "1110010000")) == pytest.approx(0.095, abs=5e-4)  # section A, binary
    assert alpha(("aabbdcccedda", "babbbccceddd")) == pytest.approx(0.692, abs=5e-4)  # section B, nominal


def test_interval_alpha_by_hand() -> None:
    # Values 0 2 | 4 4: D_o = (4 + 4) / 4 = 2; D_e = 2 * (4 + 16 + 16 + 4 + 4) / (4 * 3) = 88 / 12; 1 - 24 / 88.
    assert krippendorff_alpha([0, 0, 1, 1], [0, 2, 4, 4], Level.interval) == pytest.approx(1 - 24 / 88)
    # Negative control: as names the two differ as much as any two values do, D_o = 2 / 4 and D_e = 10 / 12.
    assert krippendorff_alpha([0, 0, 1, 1], [0, 2, 4, 4], Level.nominal) == pytest.approx(1 - 6 / 10)


def test_what_stands_alone_counts_for_nothing() -> None:
    with_two = krippendorff_alpha([0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 1, 2], Level.ordinal)
    with_more = krippendorff_alpha([0, 0, 1, 1, 2, 2, 7, 9], [1, 1, 2, 2, 1, 2, 5, 1], Level.ordinal)
    assert with_more == with_two
    # Negative control: a second value for unit 7 makes it count.
    assert krippendorff_alpha([0, 0, 1, 1, 2, 2, 7, 7], [1, 1, 2, 2, 1, 2, 5, 1], Level.ordinal) != with_two


@pytest.mark.parametrize("level", list(Level))
def test_alpha_is_one_for_perfect_agreement_and_near_zero_for_none(level: Level) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 4000)
    units = np.tile(np.arange(4000), 2)
    assert krippendorff_alpha(units, np.tile(truth, 2), level) == pytest.approx(1.0)
    shuffled = krippendorff_alpha(units, np.concatenate([truth, generator.permutation(truth)]), level)
    assert shuffled == pytest.approx(0.0, abs=0.06)  # four standard errors of a correlation of 4,000


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize(
    ("units", "values"),
    [([], []), ([0, 1, 2], [1, 2, 1]), ([0, 0, 1, 1], [3, 3, 3, 3])],
    ids=["no votes", "nothing judged twice", "always the same"],
)
def test_alpha_is_none_where_chance_leaves_nothing(units: list[int], values: list[float], level: Level) -> None:
    assert krippendorff_alpha(units, values, level) is None


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="leave out what was not judged"):
        krippendorff_alpha([0, 0], [1, float("nan")], Level.nominal)
    with pytest.raises(ValueError, match="needs a unit"):
        krippendorff_alpha([0, 0], [1], Level.nominal)


def test_kappa_by_hand() -> None:
    # Both yes 20, both no 15, yes/no 5, no/yes 10: p_o = 35/50; p_e = (25 * 30 + 25 * 20) / 50^2 = 1/2.
    first = [1] * 20 + [0] * 15 + [1] * 5 + [0] * 10
    second = [1] * 20 + [0] * 15 + [0] * 5 + [1] * 10
    units = list(range(50))
    (kappa,) = cohen_kappas(units * 2, [0] * 50 + [1] * 50, first + second)
    assert (kappa.first, kappa.second, kappa.num_shared) == (0, 1, 50)
    assert kappa.kappa == pytest.approx(0.4)


def test_kappa_looks_only_at_what_both_judged() -> None:
    # On the units 0 to 3 they agree on 0, 1 and 2: p_o = 3/4; p_e = (2 * 1 + 2 * 3) / 16 = 1/2. Unit 8 is one's alone.
    found = cohen_kappas([0, 1, 2, 3, 8, 0, 1, 2, 3, 9], [0] * 5 + [4] * 5, [1, 2, 2, 1, 1, 1, 2, 2, 2, 1])
    assert found == [Kappa(first=0, second=4, num_shared=4, kappa=pytest.approx(0.5))]  # type: ignore[arg-type]


def test_kappa_is_none_where_both_always_say_the_same_one_thing() -> None:
    assert [entry.kappa for entry in cohen_kappas([0, 1, 0, 1], [0, 0, 1, 1], [2, 2, 2, 2])] == [None]
    assert [entry.kappa for entry in cohen_kappas([0, 1, 0, 1], [0, 0, 1, 1], [2, 2, 1, 1])] == [0.0]
    assert cohen_kappas([], [], []) == []
    assert cohen_kappas([0, 1], [0, 1], [1, 1]) == []  # they share nothing
    with pytest.raises(ValueError, match="judged a unit twice"):
        cohen_kappas([0, 0], [1, 1], [1, 2])


def test_agreement_on_pandalm(real_data: Path) -> None:
    """Three annotators on 999 pairs, 0 is a tie; by krippendorff 0.9.0 and scikit-learn 1.9.1 on the raw numbers."""
    rows = json.loads((real_data / "pandalm/testset-v1.json").read_text())
    values = np.array([[row[f"annotator{number}"] for row in rows] for number in (1, 2, 3)])
    units = np.tile(np.arange(len(rows)), 3)
    assert krippendorff_alpha(units, values.ravel(), Level.nominal) == pytest.approx(0.8642206851960816, abs=1e-12)
    between = np.where(values == 0, 1.5, values).ravel()
    assert krippendorff_alpha(units, between, Level.ordinal) == pytest.approx(0.8774636737774044, abs=1e-12)
    assert krippendorff_alpha(units, between, Level.interval) == pytest.approx(0.8772172081293725, abs=1e-12)
    # Negative control: with a tie below both sides the order is wrong, and only names stay what they are.
    assert krippendorff_alpha(units, values.ravel(), Level.ordinal) != pytest.approx(0.8774636737774044, abs=1e-3)
    kappas = [entry.kappa for entry in cohen_kappas(units, np.repeat([0, 1, 2], len(rows)), values.ravel())]
    assert kappas == pytest.approx([0.8520226785167024, 0.8789438112500384, 0.8616614540762907], abs=1e-12)
