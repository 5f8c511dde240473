"""In which order a training stage visits its rows: one list for the whole run, a pure function of a seed.

A sampler that draws from the global random state visits other rows after a restart in the middle of an epoch, unless
it is replayed. A list that is computed anew at every start cannot: going on from optimizer step ``k`` is going on
from position ``k * batch_size``. Nothing here imports torch, so that a plan can count steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

BATCHES_PER_POOL = 50  # grouping by length happens within pools of this many batches, so that batches stay random


def num_optimizer_steps(num_rows: int, *, num_epochs: int, batch_size: int, max_steps: int | None = None) -> int:
    """Count the optimizer steps of a run; only the last of them may have fewer than ``batch_size`` rows."""
    steps = math.ceil(num_rows * num_epochs / batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def epoch_ends(num_rows: int, *, num_epochs: int, batch_size: int, max_steps: int | None = None) -> set[int]:
    """Return the optimizer steps during which each pass over the rows is completed, and the last step."""
    last = num_optimizer_steps(num_rows, num_epochs=num_epochs, batch_size=batch_size, max_steps=max_steps)
    ends = {math.ceil(num_rows * epoch / batch_size) for epoch in range(1, num_epochs + 1)}
    return {step for step in ends if step < last} | {last}


def training_order(
    lengths: Sequence[int],
    *,
    num_epochs: int,
    batch_size: int,
    seed: int,
    group_by_length: bool,
    max_steps: int | None = None,
) -> list[int]:
    """Row numbers in the order they are trained on; every epoch visits every row once.

    Batches run on across the end of an epoch, so that all but the last are full. With ``group_by_length`` the rows
    of a batch have similar lengths, longest first, and the batches of an epoch come in random order; the batch with
    the longest row of all opens the run, so that too little memory shows at its first step.

    Args:
        lengths: Tokens of each row.
        num_epochs: Passes over the rows.
        batch_size: Rows per optimizer step.
        seed: Decides the order alone.
        group_by_length: Put rows of similar length into one batch.
        max_steps: Ends the list after this many batches.

    Returns:
        ``num_epochs * len(lengths)`` row numbers, or fewer with ``max_steps``.
    """
    steps = num_optimizer_steps(len(lengths), num_epochs=num_epochs, batch_size=batch_size, max_steps=max_steps)
    order: list[int] = []
    for epoch in range(num_epochs):
        if len(order) >= steps * batch_size:
            break
        generator = random.Random(f"{seed}/{epoch}")
        rows = list(range(len(lengths)))
        generator.shuffle(rows)
        if not group_by_length:
            order += rows
            continue
        unfinished = set(order[len(order) - len(order) % batch_size :])
        rows.sort(key=unfinished.__contains__)  # a batch that spans two epochs gets no row twice where that can be
        num_missing = -len(order) % batch_size
        order += rows[:num_missing]
        order += _grouped(rows[num_missing:], lengths, batch_size, generator, longest_first=epoch == 0)
    return order[: steps * batch_size]


def _grouped(
    rows: list[int], lengths: Sequence[int], batch_size: int, generator: random.Random, *, longest_first: bool
) -> list[int]:
    """Put shuffled rows into batches of similar length; the rows that fill no batch come last."""
    pool_size = BATCHES_PER_POOL * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(rows), pool_size):
        pool = sorted(rows[start : start + pool_size], key=lambda row: -lengths[row])
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    rest = batches.pop() if batches and len(batches[-1]) < batch_size else []
    generator.shuffle(batches)
    if longest_first and batches:
        longest = max(range(len(batches)), key=lambda index: lengths[batches[index][0]])
        batches[0], batches[longest] = batches[longest], batches[0]
    return [row for batch in batches for row in batch] + rest
