"""The folds of comparisons: parts that hold no prompt in common, not even nearly."""

from __future__ import annotations

from array import array

from pipeline.data.curation.duplicates import NONE, Known
from pipeline.data.curation.spill import Spill
from pipeline.data.curation.words import Indices

NUM_FOLDS = 5


def find_folds(spill: Spill, known: Known, comparisons: Indices) -> array[int]:
    """Return the folds of comparisons: by the hash of the first of all prompts that are near to each other.

    Args:
        spill: All rows.
        known: Which prompts are near to each other.
        comparisons: The rows that need a fold, ascending; all others get `NONE`.
    """
    folds = array("b", [NONE]) * len(spill.numbers)
    rows, groups = comparisons.tolist(), known.prompts.of_row[comparisons].tolist()
    root: dict[int, int] = {group: group for group in groups}

    def find(group: int) -> int:
        while root[group] != group:
            root[group] = group = root[root[group]]
        return group

    for group in sorted(root):
        for other, _ in known.near_prompts.of(group):
            if other in root:
                low, high = sorted((find(group), find(other)))
                root[high] = low
    first = dict(zip(reversed(groups), reversed(rows), strict=True))
    for row, group in zip(rows, groups, strict=True):
        folds[row] = int(spill.numbers["place"][first[find(group)], 1]) % NUM_FOLDS
    return folds
