"""What a trainer's course is watched by: validation, signals and the record of metrics.

Each callback does one thing at an optimizer step's end. They share a `Course`, which is what a checkpoint remembers,
and a `StepMeter`, which the trainer's ``compute_loss`` feeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import TrainingDivergedError
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.runtime.signals import StopRequest
from pipeline.stages.course import Course, Milestones
from pipeline.stages.finite import StepMeter
from pipeline.tracking.run import Run

# Measures a model in evaluation mode; the key `loss` is what the best checkpoint is chosen by.
Measure = Callable[[torch.nn.Module], Mapping[str, float]]


class Validation(TrainerCallback):  # type: ignore[misc]  # untyped upstream
    """Measures the validation rows before training, at the milestones, and ends the run when nothing improves."""

    def __init__(
        self,
        measure: Measure,
        course: Course,
        milestones: Milestones,
        run: Run,
        *,
        patience: int | None,
    ) -> None:
        """Whatever `measure` returns is recorded under `validation_<name>`."""
        self.measure, self.course, self.milestones, self.run, self.patience = measure, course, milestones, run, patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step 0: what the policy is worth before training."""
        if self.milestones.validate_at and state.global_step == 0:
            self._validate(kwargs["model"], 0)
            self.run.log({**validation_row(self.course, 0), "epoch": 0.0}, 0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Validate at the milestones."""
        if state.global_step not in self.milestones.validate_at:
            return
        self._validate(kwargs["model"], state.global_step)
        waited = self.course.validations_without_improvement
        if self.patience is not None and waited >= self.patience and state.global_step < self.milestones.num_steps:
            self.run.notice(f"step {state.global_step}: {waited} validations without improvement, training ends")
            self.course.finished = control.should_training_stop = True

    def _validate(self, model: torch.nn.Module, step: int) -> None:
        model.eval()
        measured = self.measure(model)
        model.train()
        loss = measured["loss"]
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"The validation loss at step {step} is {loss}. Look for rows with extreme content, or set "
                "`model.dtype=float32`."
            )
        self.course.validations.append((step, loss))
        self.course.details.append({name: value for name, value in measured.items() if name != "loss"})


def validation_row(course: Course, step: int) -> dict[str, float]:
    """Return what was measured on the validation rows after a step, as metrics; nothing where nothing was."""
    if not course.validations or course.validations[-1][0] != step:
        return {}
    details = course.details[-1] if course.details else {}
    return {f"validation_{name}": value for name, value in {"loss": course.validations[-1][1], **details}.items()}


class StopAtSignal(TrainerCallback):  # type: ignore[misc]  # untyped upstream
    """Ends training at the next step's end after SIGTERM or SIGINT; `Checkpoints` saves that step."""

    def __init__(self, stop: StopRequest) -> None:
        """`stop` has its handlers installed."""
        self.stop = stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for the end."""
        if self.stop.signal_number is not None:
            control.should_training_stop = True


class Record(TrainerCallback):  # type: ignore[misc]  # untyped upstream
    """Writes one row of metrics per optimizer step; the trainer's own history is not kept beside it."""

    def __init__(self, meter: StepMeter, course: Course, milestones: Milestones, run: Run) -> None:
        """Everything that a row says comes from these and from what the trainer logs."""
        self.meter, self.course, self.milestones, self.run = meter, course, milestones, run

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a step; the summary that the trainer logs at the end has no ``loss``."""
        state.log_history.clear()
        if logs is None or "loss" not in logs:
            return
        step, meter = state.global_step, self.meter
        row: dict[str, float | int] = {
            name: logs[name] for name in ("loss", "grad_norm", "learning_rate") if math.isfinite(logs[name])
        }
        row |= {
            "epoch": self.milestones.epoch(step),
            "tokens_per_second": meter.processed / max(meter.seconds, 1e-9),
            "supervised_fraction": meter.supervised / max(meter.processed, 1),
            "memory_gb": peak_memory_bytes(args.device.type) / 1e9,
            "skipped_steps": self.course.skipped_steps,
        }
        row |= {name: value for name, value in meter.means().items() if math.isfinite(value)}
        self.run.log(row | validation_row(self.course, step), step)
        self.run.progress(self.milestones.num_steps, step)
