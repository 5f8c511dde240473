"""Does what the policy learns serve what it is really wanted to do? Measured on held-out prompts, against a gold score.

A reward is a proxy. Pushed far enough it goes on rising while the gold falls (arXiv:2210.10760). The gold is never
trained on: a reward model of other folds, or a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.statistics.intervals import Estimate, paired_difference

MONITOR_FILE = "monitor.json"  # of the policy that was watched
LENGTH_BUCKETS = 3


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The held-out prompts, answered by the policy of one step, always with the same random streams."""

    step: int
    prompts: list[str]  # id of the prompt of each completion
    kl: float  # k1 against the reference, nats per completion
    proxy: list[float]  # the rewards, per completion
    gold: list[float] | None
    completion_tokens: list[int]
    finished_rate: float
    distinct_2: float  # share of different pairs of neighbouring tokens

    def mean(self, name: str) -> float:
        """Return the mean of a list over the completions."""
        values = getattr(self, name)
        return float(sum(values) / len(values))

    def row(self) -> dict[str, float]:
        """Return what the record says."""
        row = {
            "monitor_score": self.mean("proxy"),
            "monitor_kl": self.kl,
            "monitor_completion_tokens": self.mean("completion_tokens"),
            "monitor_finished_rate": self.finished_rate,
            "monitor_distinct_2": self.distinct_2,
        }
        return row | ({} if self.gold is None else {"monitor_gold": self.mean("gold")})

    def by_length(self) -> list[dict[str, float]]:
        """Return the scores in three buckets of length: a reward that only likes length shows here."""
        order = sorted(range(len(self.proxy)), key=lambda row: (self.completion_tokens[row], row))
        size = -(-len(order) // LENGTH_BUCKETS)
        buckets = []
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            bucket = {
                "shortest": float(self.completion_tokens[rows[0]]),
                "longest": float(self.completion_tokens[rows[-1]]),
                "n": float(len(rows)),
                "score": sum(self.proxy[row] for row in rows) / len(rows),
            }
            if self.gold is not None:
                bucket["gold"] = sum(self.gold[row] for row in rows) / len(rows)
            buckets.append(bucket)
        return buckets


@dataclass(frozen=True, kw_only=True)
class Overoptimised:
    """The gold fell while the proxy rose."""

    step: int
    best_step: int
    gold_change: float
    low: float
    high: float
    n: int
    proxy_change: float


@dataclass(kw_only=True)
class Monitor:
    """All measurements so far, and what follows from them."""

    margin: float
    confidence: float
    kl_budget: float | None
    measurements: list[Measurement] = field(default_factory=list)
    fired: Overoptimised | None = None  # the first time

    def add(self, measurement: Measurement) -> Overoptimised | None:
        """Note a measurement; returns the finding if this one shows over-optimisation for the first time."""
        self.measurements.append(measurement)
        if self.fired is None:
            self.fired = self._compare(measurement)
            return self.fired
        return None

    def _compare(self, now: Measurement) -> Overoptimised | None:
        """Compare with the best gold so far, prompt by prompt: fallen is an interval below minus the margin."""
        best = self.best
        if now.gold is None or best is None or best.gold is None or best.step >= now.step:
            return None
        difference = paired_difference(now.gold, best.gold, now.prompts, self.confidence)
        rise = now.mean("proxy") - best.mean("proxy")
        if difference.high is None or difference.low is None or difference.estimate is None:
            return None
        if difference.high >= -self.margin or rise <= 0:
            return None
        return Overoptimised(
            step=now.step, best_step=best.step, gold_change=difference.estimate, low=difference.low,
            high=difference.high, n=difference.n, proxy_change=rise,
        )  # fmt: skip

    @property
    def inside(self) -> list[Measurement]:
        """The measurements inside the budget."""
        return [m for m in self.measurements if self.kl_budget is None or m.kl <= self.kl_budget]

    @property
    def best(self) -> Measurement | None:
        """The measurement with the highest mean gold inside the budget, the earliest of equals; None without a gold."""
        known = [measurement for measurement in self.inside if measurement.gold is not None]
        return max(known, key=lambda measurement: (measurement.mean("gold"), -measurement.step), default=None)

    def chosen_step(self, *, rollback: bool, last_step: int) -> tuple[int, str]:
        """Return the step whose policy is delivered, and why."""
        if rollback and self.best is not None:
            return self.best.step, "best gold score inside the budget"
        if self.kl_budget is not None and self.inside and self.measurements[-1].kl > self.kl_budget:
            return self.inside[-1].step, "last one inside the KL budget"
        return last_step, "last step"

    def changes(self, step: int) -> dict[str, Estimate]:
        """Return how score and gold changed between the first measurement and that of a step, completion by completion.

        The draws of both have the same random streams, and completions of one prompt are not independent.
        """
        start, end = self.measurements[0], next(m for m in self.measurements if m.step == step)
        found = {"score": paired_difference(end.proxy, start.proxy, start.prompts, self.confidence)}
        if start.gold is not None and end.gold is not None:
            found["gold"] = paired_difference(end.gold, start.gold, start.prompts, self.confidence)
        return found

    def facts(self) -> dict[str, Any]:
        """Return JSON values from which `restore` makes the same state."""
        return {
            "measurements": [asdict(measurement) for measurement in self.measurements],
            "fired": None if self.fired is None else asdict(self.fired),
        }

    def restore(self, facts: dict[str, Any]) -> None:
        """Take up what a checkpoint remembers."""
        self.measurements = [Measurement(**values) for values in facts["measurements"]]
        self.fired = None if facts["fired"] is None else Overoptimised(**facts["fired"])


def distinct_pairs(completions: Sequence[Sequence[int]]) -> float:
    """Return the share of different pairs of neighbouring tokens (distinct-2, arXiv:1510.03055); 1 without any pair."""
    pairs = [pair for ids in completions for pair in zip(ids, ids[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else 1.0
