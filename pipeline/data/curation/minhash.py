"""MinHash and its bands: texts that share most of their runs of words share a band's number.

The share of equal minima under random permutations estimates the Jaccard similarity of two sets (Broder 1997,
doi:10.1109/SEQUEN.1997.666900). Texts of similarity ``s`` agree in one of ``b`` bands of ``r`` minima with probability
``1 - (1 - s^r)^b`` (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.curation.words import Ragged, mix

MIN_RECALL = 0.99  # of pairs whose similarity is exactly the threshold; more similar ones are found more surely
BLOCK = 1 << 16  # runs of words that are hashed at a time, so that they stay in the cache
Minima = npt.NDArray[np.uint32]
Bands = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Banding:
    """How many bands of how many minima each."""

    num_bands: int
    rows: int

    @classmethod
    def choose(cls, threshold: float, num_permutations: int) -> Banding:
        """Take the longest bands, which give the fewest false candidates, that still find `MIN_RECALL` of the pairs."""
        chosen = cls(num_permutations, 1)
        for rows in range(2, num_permutations + 1):
            candidate = cls(num_permutations // rows, rows)
            if candidate.recall(threshold) < MIN_RECALL:
                break
            chosen = candidate
        return chosen

    def recall(self, similarity: float) -> float:
        """Return the probability that two texts of this similarity become candidates."""
        return float(1 - (1 - similarity**self.rows) ** self.num_bands)


class MinHash:
    """Computes the bands of sets of runs of words."""

    def __init__(self, banding: Banding, seed: int) -> None:
        """Draw one permutation of 32-bit numbers per minimum: multiply by an odd number and add another."""
        self.banding = banding
        generator = np.random.Generator(np.random.PCG64(seed))
        size = banding.num_bands * banding.rows
        self._factors = generator.integers(0, 1 << 31, size, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._terms = generator.integers(0, 1 << 32, size, dtype=np.uint32)

    def minima(self, sets: Ragged) -> Minima:
        """Return ``[permutations, sets]``; those of a union are the lower ones. No set may be empty."""
        minima = np.empty((len(self._factors), len(sets.lengths)), np.uint32)
        values = (sets.values >> np.uint64(32)).astype(np.uint32)
        ends = np.cumsum(sets.lengths)
        begin = 0
        while begin < len(ends):
            first = int(ends[begin] - sets.lengths[begin])
            end = max(begin + 1, int(np.searchsorted(ends, first + BLOCK, "right")))
            block = values[first : ends[end - 1]]
            starts = ends[begin:end] - sets.lengths[begin:end] - first
            hashed = np.empty_like(block)
            for number, (factor, term) in enumerate(zip(self._factors, self._terms, strict=True)):
                np.multiply(block, factor, out=hashed)
                np.add(hashed, term, out=hashed)
                np.minimum.reduceat(hashed, starts, out=minima[number, begin:end])
            begin = end
        return minima

    def bands(self, minima: Minima) -> Bands:
        """Hash the minima of each band into one number: ``[sets, bands]``."""
        rows = self.banding.rows
        combined = np.zeros((self.banding.num_bands, minima.shape[1]), np.uint64)
        for row in range(rows):
            combined = mix(combined + minima[row::rows].astype(np.uint64) + np.uint64(row + 1))
        return np.ascontiguousarray((combined >> np.uint64(32)).astype(np.uint32).T)
