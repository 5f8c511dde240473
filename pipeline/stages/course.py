"""What a training run remembers about its own course, and at which steps it validates and saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.stages.order import epoch_ends, num_optimizer_steps


@dataclass(frozen=True, kw_only=True)
class Milestones:
    """Optimizer steps of a run; every number counts finished steps, so the first step ends at 1."""

    num_rows: int
    batch_size: int  # rows per optimizer step
    num_steps: int
    validate_at: frozenset[int]  # empty where there are no validation rows
    save_at: frozenset[int]

    def epoch(self, step: int) -> float:
        """Return how many passes over the rows are done after ``step``."""
        return step * self.batch_size / self.num_rows


def make_milestones(
    num_rows: int,
    *,
    num_epochs: int,
    batch_size: int,
    max_steps: int | None,
    validate_every: int | None,
    save_every: int | None,
    has_validation: bool,
) -> Milestones:
    """Turn the configured intervals into steps; the last step always validates and saves.

    Args:
        num_rows: Train rows.
        num_epochs: Passes over them.
        batch_size: Rows per optimizer step.
        max_steps: Ends earlier.
        validate_every: Steps between validations; None is once per epoch.
        save_every: Steps between checkpoints; None is at each validation.
        has_validation: False where there are no validation rows.
    """
    num_steps = num_optimizer_steps(num_rows, num_epochs=num_epochs, batch_size=batch_size, max_steps=max_steps)
    ends = frozenset(epoch_ends(num_rows, num_epochs=num_epochs, batch_size=batch_size, max_steps=max_steps))

    def steps(every: int | None, default: frozenset[int]) -> frozenset[int]:
        return default if every is None else frozenset(range(every, num_steps, every)) | {num_steps}

    validate_at = steps(validate_every, ends)
    return Milestones(
        num_rows=num_rows,
        batch_size=batch_size,
        num_steps=num_steps,
        validate_at=validate_at if has_validation else frozenset(),
        save_at=steps(save_every, validate_at),
    )


@dataclass(kw_only=True)
class Course:
    """State of a run beside weights, optimizer and random numbers; every checkpoint carries it in its facts."""

    validations: list[tuple[int, float]] = field(default_factory=list)  # (step, validation loss), step 0 included
    details: list[dict[str, float]] = field(default_factory=list)  # what else each validation measured
    recent: dict[str, list[float]] = field(default_factory=dict)  # a watcher's numbers of the last steps, by name
    warnings: list[dict[str, Any]] = field(default_factory=list)  # what a watcher has told: step, name, message
    skipped_steps: int = 0  # updates that were not made because something was not finite
    skipped_in_a_row: int = 0
    processed_tokens: int = 0  # without padding
    supervised_tokens: int = 0
    finished: bool = False  # nothing is left to train: the last step is done, or validation stopped improving

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Course:
        """Take up the course again from a checkpoint's facts."""
        pairs = [(int(step), float(loss)) for step, loss in facts["validations"]]
        return cls(**{**facts, "validations": pairs})

    def facts(self) -> dict[str, Any]:
        """Return JSON values from which `from_facts` makes the same course."""
        return asdict(self)

    @property
    def best_step(self) -> int | None:
        """The trained step with the lowest validation loss (the earliest of equals), or None before the first."""
        trained = [(loss, step) for step, loss in self.validations if step > 0]
        return min(trained)[1] if trained else None

    @property
    def validations_without_improvement(self) -> int:
        """How many validations came after the lowest loss so far, that of the untrained policy included."""
        if not self.validations:
            return 0
        losses = [loss for _, loss in self.validations]
        return len(losses) - 1 - losses.index(min(losses))
