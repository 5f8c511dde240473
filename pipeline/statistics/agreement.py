"""How far annotators agree beyond chance: Krippendorff's alpha and Cohen's kappa.

What chance alone fixes is None and never a number: nobody judged the same thing twice, or everybody always says the
same, so that there is nothing to disagree about.

Sources: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (University of Pennsylvania, 2011), section E for
any number of observers, missing values and any metric; J. Cohen, Educational and Psychological Measurement 20 (1960)
37-46.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import sparse

Codes = npt.NDArray[np.intp]
Vector = npt.NDArray[np.float64]


class Level(StrEnum):
    """What the values mean, which says how far two of them differ."""

    nominal = "nominal"  # names: two are the same or not
    ordinal = "ordinal"  # places: as many values as were given between two of them
    interval = "interval"  # amounts: the square of their difference


@dataclass(frozen=True, kw_only=True, slots=True)
class Kappa:
    """Agreement of two annotators on what both judged; ``kappa`` is None where chance leaves nothing to agree on."""

    first: int
    second: int
    num_shared: int
    kappa: float | None


def krippendorff_alpha(units: npt.ArrayLike, values: npt.ArrayLike, level: Level) -> float | None:
    """Return alpha = 1 - D_o / D_e of judgements given in long form, one (unit, value) each.

    Both disagreements are sums over the coincidence matrix: a unit u with m_u values adds 1 / (m_u - 1) for each of its
    ordered pairs, and chance adds n_c n_k / (n - 1). The matrix itself is not needed, so that time and memory are those
    of sorting the values: pairs of unequal values number m_u^2 - sum_c n_uc^2, and squared differences sum to 2 m_u
    times the sum of squares about the mean. The ordinal metric, (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2, is the squared
    difference of mid-ranks.

    Args:
        units: [V] whole numbers: what was judged.
        values: [V] finite numbers: the verdicts. A missing judgement is no entry.
        level: How far two values differ.

    Returns:
        Alpha, 1 for perfect agreement and 0 for chance, or None where no unit has two values or no two values differ.
    """
    codes, given = np.asarray(units, dtype=np.intp), np.asarray(values, dtype=np.float64)
    if codes.shape != given.shape or codes.ndim != 1:
        raise ValueError(f"every value needs a unit: got {codes.shape} units and {given.shape} values")
    if not np.isfinite(given).all():
        raise ValueError("every value must be finite: leave out what was not judged")
    if not len(codes):
        return None
    _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    pairable = sizes[codes] >= 2  # a value that stands alone agrees and disagrees with nothing
    codes, given = codes[pairable], given[pairable]
    _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    _, categories, totals = np.unique(given, return_inverse=True, return_counts=True)
    if len(totals) < 2:
        return None
    n = len(codes)
    if level is Level.nominal:
        cells, counts = np.unique(codes * len(totals) + categories, return_counts=True)
        same = np.bincount(cells // len(totals), weights=counts.astype(np.float64) ** 2)
        observed = float(((sizes**2 - same) / (sizes - 1)).sum())
        expected = float(n) ** 2 - float((totals.astype(np.float64) ** 2).sum())
    else:
        places = given if level is Level.interval else (np.cumsum(totals) - totals / 2)[categories]
        means = np.bincount(codes, weights=places) / sizes
        squares = np.bincount(codes, weights=(places - means[codes]) ** 2)
        observed = float((2 * sizes * squares / (sizes - 1)).sum())
        expected = 2 * n * float(((places - places.mean()) ** 2).sum())
    return 1 - (n - 1) * observed / expected


def cohen_kappas(units: npt.ArrayLike, annotators: npt.ArrayLike, values: npt.ArrayLike) -> list[Kappa]:
    """Return kappa = (p_o - p_e) / (1 - p_e) of every two annotators who judged at least one unit in common.

    Chance is that of the two annotators' own habits on the units they share (Cohen 1960). All pairs are found at once
    by sparse products of annotator-by-unit indicators.

    Args:
        units: [V] whole numbers: what was judged, at most once by each annotator.
        annotators: [V] whole numbers from 0: by whom.
        values: [V] the verdicts, compared as names.
    """
    rows, values = np.asarray(annotators, dtype=np.intp), np.asarray(values)
    if not len(rows):
        return []
    _, columns = np.unique(np.asarray(units), return_inverse=True)
    cells = rows.astype(np.int64) * (int(columns.max()) + 1) + columns
    if len(np.unique(cells)) != len(cells):
        raise ValueError("an annotator judged a unit twice: keep the judgement that counts")
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    judged = _indicator(rows, columns, shape)
    shared = sparse.triu(judged @ judged.T, k=1).tocoo()
    if not shared.nnz:
        return []
    order = np.lexsort((shared.col, shared.row))
    first, second, num_shared = shared.row[order], shared.col[order], shared.data[order]
    agreed, chance = np.zeros(len(first)), np.zeros(len(first))
    for value in np.unique(values):
        said = _indicator(rows[values == value], columns[values == value], shape)
        agreed += _at(said @ said.T, first, second)
        habits = said @ judged.T  # [A, A]: how often one said this where the other judged too
        chance += _at(habits, first, second) * _at(habits, second, first)
    by_chance, agreement = chance / num_shared**2, agreed / num_shared
    return [
        Kappa(
            first=int(first[index]),
            second=int(second[index]),
            num_shared=int(num_shared[index]),
            # Compared as whole numbers: 1 - p_e is exactly zero where both always said the same one thing.
            kappa=None
            if chance[index] == num_shared[index] ** 2
            else float((agreement[index] - by_chance[index]) / (1 - by_chance[index])),
        )
        for index in range(len(first))
    ]


def _indicator(rows: Codes, columns: Codes, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _at(matrix: sparse.csr_array, rows: Codes, columns: Codes) -> Vector:
    return np.asarray(matrix[rows, columns], dtype=np.float64).ravel()
