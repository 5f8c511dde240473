"""Looks at every row of a run's record, and at the rewards before there is one."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.ppo.signatures import SIGNATURES, TOLD_APART, Row


def told_apart(values: Tensor) -> float:
    """Return the share of completions to which a reward gave another value than the most common one.

    Where it is 0 the reward says nothing about how to get more of it, whatever else moves the score.
    """
    counts = torch.unique(values, return_counts=True)[1]
    return 1.0 - float(counts.max()) / values.numel()


def nothing_to_learn(scores: Tensor, section: str) -> str | None:
    """Say it where the rewards hardly tell apart what a policy answers; None where they do.

    Args:
        scores: ``[B]``, the bare sums of the rewards of held-out completions.
        section: Of the configuration, whose keys the message names.
    """
    share = told_apart(scores)
    if share >= TOLD_APART:
        return None
    common = float(scores.mode().values)
    return (
        f"{1 - share:.0%} of {len(scores)} held-out completions have the score {common:g}: the rewards hardly tell "
        f"apart what this policy writes, so there is next to nothing to learn from. Look at `{section}.rewards`, or "
        "begin with a policy that earns them some of the time."
    )


class Watchdog:
    """Tells of each signature once per run, when it has been seen as often in a row as it takes."""

    def __init__(self, *, warmup: int, in_fp32: bool) -> None:
        """Nothing was seen yet.

        Args:
            warmup: Rollouts of which only the value model learns.
            in_fp32: Whether engine and training compute in full precision.
        """
        self.signatures = [one for one in SIGNATURES if one.in_fp32 in (None, in_fp32)]
        self.warmup = warmup
        self.streaks: dict[str, int] = {}
        self.told: list[str] = []
        self.first_spread: float | None = None  # between the members of a reward model, in the first rollout

    def warnings(self, row: Row, number: int) -> list[str]:
        """Return what is to be said about the row of rollout ``number``, counted from 0."""
        found = []
        if "reward_spread" in row:
            self.first_spread = row["reward_spread"] if self.first_spread is None else self.first_spread
            row = {**row, "first_reward_spread": self.first_spread}
        for signature in self.signatures:
            known = signature.metric in row and all(metric in row for metric in signature.needs)
            if not known or (signature.after is not None and number < self.warmup + signature.after):
                continue
            seen = signature.sees(row, signature.threshold)
            self.streaks[signature.name] = self.streaks.get(signature.name, 0) + 1 if seen else 0
            if self.streaks[signature.name] >= signature.patience and signature.name not in self.told:
                self.told.append(signature.name)
                text = signature.message.format(**row, threshold=signature.threshold)
                found.append(f"{signature.name}: {text}")
        return found
