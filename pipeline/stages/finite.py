"""Updates stay finite: one whose loss or gradient is not is skipped, and nothing that is not finite is ever saved."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import TrainingDivergedError
from pipeline.stages.course import Course
from pipeline.tracking.run import Run

SHOWN_ROWS = 16  # ids of rows that a message names before it only counts the rest


@dataclass(kw_only=True)
class StepMeter:
    """What one optimizer step has seen so far, over its microbatches."""

    losses: list[Tensor] = field(default_factory=list)  # scalars that add up to the step's mean loss
    rows: list[str] = field(default_factory=list)  # ids
    processed: int = 0  # tokens without padding
    supervised: int = 0
    extras: dict[str, list[Tensor]] = field(default_factory=dict)  # by name, a value for each row that has one
    seconds: float = 0.0
    _started: float = 0.0

    def start(self) -> None:
        """Forget the step before."""
        self.losses, self.rows, self.processed, self.supervised, self.extras = [], [], 0, 0, {}
        self._started = time.perf_counter()

    def add(
        self,
        *,
        loss: Tensor,
        rows: Sequence[str],
        processed: int,
        supervised: int,
        extras: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Note one microbatch; each of the extras has a value for each row that it can be told of."""
        self.losses.append(loss.detach())
        for name, values in (extras or {}).items():
            self.extras.setdefault(name, []).append(values.detach())
        self.rows += rows
        self.processed += processed
        self.supervised += supervised

    def stop(self) -> None:
        """The update is made."""
        self.seconds = time.perf_counter() - self._started

    def means(self) -> dict[str, float]:
        """Return the mean of each of the extras over the step's rows that have it; one that none has is left out."""
        joined = {name: torch.cat(values).float() for name, values in self.extras.items()}
        return {name: float(values.mean()) for name, values in joined.items() if values.numel()}


class FiniteUpdates(TrainerCallback):  # type: ignore[misc]  # untyped upstream
    """Skips an update whose loss or gradient is not finite, and ends the run when that does not stop."""

    def __init__(self, meter: StepMeter, course: Course, run: Run, *, max_in_a_row: int, section: str) -> None:
        """`section` is the configuration section whose keys an error names."""
        self.meter, self.course, self.run = meter, course, run
        self.max_in_a_row, self.section = max_in_a_row, section

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A new optimizer step."""
        self.meter.start()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gradients are clipped and not applied yet: without gradients the optimizer changes nothing."""
        parameters = [parameter for parameter in kwargs["model"].parameters() if parameter.grad is not None]
        loss = torch.stack(self.meter.losses).sum()
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        # Clipping divides by the norm: one that overflowed leaves zeros. A loss has such a gradient itself only where
        # it cannot get any lower, as a hinge that every pair satisfies.
        reason = "the loss" if not math.isfinite(loss.item()) else "the gradient"
        is_sound = 0.0 < norm.item() < math.inf or (norm.item() == 0.0 and loss.item() == 0.0)
        if math.isfinite(loss.item()) and is_sound:
            self.course.skipped_in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.course.skipped_steps += 1
        self.course.skipped_in_a_row += 1
        step, rows = state.global_step + 1, _named(self.meter.rows)
        self.run.notice(f"step {step}: {reason} is not finite, so the update was skipped. Rows: {rows}")
        if self.course.skipped_in_a_row > self.max_in_a_row:
            raise TrainingDivergedError(
                f"{reason.capitalize()} was not finite in {self.course.skipped_in_a_row} optimizer steps in a row, the "
                f"last of them step {step}. Nothing that is not finite was saved. Look at the rows of that step "
                f"({rows}), lower `{self.section}.optimizer.learning_rate` or "
                f"`{self.section}.optimizer.max_grad_norm`, or set `model.dtype=float32`."
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock and count what was read."""
        self.meter.stop()
        self.course.processed_tokens += self.meter.processed
        self.course.supervised_tokens += self.meter.supervised


def require_finite(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Refuse to save a state that holds anything that is not finite.

    Raises:
        TrainingDivergedError: A trained parameter or a value of the optimizer's state is not finite.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors: list[tuple[str, Tensor]] = [(name, parameter.detach()) for name, parameter in named.items()]
    for name, parameter in named.items():
        state = optimizer.state.get(parameter, {})
        tensors += [(f"{name} ({key})", value) for key, value in state.items() if isinstance(value, Tensor)]
    bad = [name for name, tensor in tensors if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise TrainingDivergedError(
            f"After step {step} {len(bad)} tensors hold values that are not finite, the first of them {bad[0]}. "
            "Nothing was saved; earlier checkpoints are intact. Lower the learning rate or set `model.dtype=float32`."
        )


def _named(rows: Sequence[str]) -> str:
    shown = ", ".join(rows[:SHOWN_ROWS])
    return shown if len(rows) <= SHOWN_ROWS else f"{shown} and {len(rows) - SHOWN_ROWS} more"
