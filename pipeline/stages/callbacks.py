"""What every trainer of a stage is watched by: updates stay finite, validation, checkpoints, signals, the record.

Each callback does one thing at an optimizer step's end or just before its update. They share a `Course`, which is what
a checkpoint remembers, and a `StepMeter`, which the trainer's ``compute_loss`` feeds.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.errors import StorageError, TrainingDivergedError
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.runtime.signals import StopRequest
from pipeline.stages.course import Course, Milestones
from pipeline.tracking.run import Run

SHOWN_ROWS = 16  # ids of rows that a message names before it only counts the rest


@dataclass(kw_only=True)
class StepMeter:
    """What one optimizer step has seen so far, over its microbatches."""

    losses: list[Tensor] = field(default_factory=list)  # scalars that add up to the step's mean loss
    rows: list[str] = field(default_factory=list)  # ids
    processed: int = 0  # tokens without padding
    supervised: int = 0
    seconds: float = 0.0
    _started: float = 0.0

    def start(self) -> None:
        """Forget the step before."""
        self.losses, self.rows, self.processed, self.supervised = [], [], 0, 0
        self._started = time.perf_counter()

    def add(self, *, loss: Tensor, rows: Sequence[str], processed: int, supervised: int) -> None:
        """Note one microbatch."""
        self.losses.append(loss.detach())
        self.rows += rows
        self.processed += processed
        self.supervised += supervised

    def stop(self) -> None:
        """The update is made."""
        self.seconds = time.perf_counter() - self._started


class FiniteUpdates(TrainerCallback):
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
        # Clipping divides by the norm: one that overflowed leaves zeros, and no gradient of a loss is zero throughout.
        reason = "the loss" if not math.isfinite(loss.item()) else "the gradient"
        if math.isfinite(loss.item()) and 0.0 < norm.item() < math.inf:
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


class Validation(TrainerCallback):
    """Measures the validation rows before training, at the milestones, and ends the run when nothing improves."""

    def __init__(
        self,
        measure: Callable[[torch.nn.Module], float],
        course: Course,
        milestones: Milestones,
        run: Run,
        *,
        patience: int | None,
    ) -> None:
        """`measure` returns the validation loss of a model in evaluation mode."""
        self.measure, self.course, self.milestones, self.run, self.patience = measure, course, milestones, run, patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step 0: what the policy is worth before training."""
        if self.milestones.validate_at and state.global_step == 0:
            self.run.log({"validation_loss": self._validate(kwargs["model"], 0), "epoch": 0.0}, 0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate at the milestones."""
        if state.global_step not in self.milestones.validate_at:
            return
        self._validate(kwargs["model"], state.global_step)
        waited = self.course.validations_without_improvement
        if self.patience is not None and waited >= self.patience and state.global_step < self.milestones.num_steps:
            self.run.notice(f"step {state.global_step}: {waited} validations without improvement, training ends")
            self.course.finished = control.should_training_stop = True

    def _validate(self, model: torch.nn.Module, step: int) -> float:
        model.eval()
        loss = self.measure(model)
        model.train()
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"The validation loss at step {step} is {loss}. Look for rows with extreme content, or set "
                "`model.dtype=float32`."
            )
        self.course.validations.append((step, loss))
        return loss


class StopAtSignal(TrainerCallback):
    """Ends training at the next step's end after SIGTERM or SIGINT; `Checkpoints` saves that step."""

    def __init__(self, stop: StopRequest) -> None:
        """`stop` has its handlers installed."""
        self.stop = stop

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for the end."""
        if self.stop.signal_number is not None:
            control.should_training_stop = True


class Checkpoints(TrainerCallback):
    """Commits what the trainer wrote: hashed, synced and renamed, so that a crash leaves the old or the new one."""

    # The trainer's own pickle of its arguments, and files that say nothing about the state.
    DROPPED = ("training_args.bin", "README.md", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

    def __init__(
        self, folder: CheckpointFolder, course: Course, milestones: Milestones, *, keep: int, keep_best: bool
    ) -> None:
        """`keep` is how many of the newest stay, beside the best one if `keep_best`."""
        self.folder, self.course, self.milestones = folder, course, milestones
        self.keep, self.keep_best = keep, keep_best

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decide whether this step is saved; runs after every callback that may end the training."""
        step = state.global_step
        if step >= self.milestones.num_steps:
            self.course.finished = True
        is_best = self.keep_best and self.course.best_step == step
        if step in self.milestones.save_at or is_best or control.should_training_stop:
            require_space(Path(args.output_dir), 4 * _trained_bytes(kwargs["model"]))
            require_finite(kwargs["model"], kwargs["optimizer"], step)
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take over the folder that the trainer has just written."""
        source = Path(args.output_dir, f"checkpoint-{state.global_step}")
        for name in self.DROPPED:
            (source / name).unlink(missing_ok=True)
        self.folder.commit(source, state.global_step, self.course.facts())
        best = self.course.best_step if self.keep_best else None
        self.folder.rotate(self.keep, set() if best is None else {best})


class Record(TrainerCallback):
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
        if self.course.validations and self.course.validations[-1][0] == step:
            row["validation_loss"] = self.course.validations[-1][1]
        self.run.log(row, step)
        self.run.progress(self.milestones.num_steps, step)


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


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse to begin writing a checkpoint that the disk cannot hold.

    Raises:
        StorageError: Less than ``num_bytes`` are free where ``folder`` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StorageError(
            f"A checkpoint needs {num_bytes:,} bytes and {free:,} are free on the disk of {folder}. Earlier "
            "checkpoints are intact. Make room, then run the same command again: it goes on from the last checkpoint."
        )


def _trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of the trained parameters; Adam's two averages take as much again each."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(parameter.numel() * parameter.element_size() for parameter in trained)


def _named(rows: Sequence[str]) -> str:
    shown = ", ".join(rows[:SHOWN_ROWS])
    return shown if len(rows) <= SHOWN_ROWS else f"{shown} and {len(rows) - SHOWN_ROWS} more"
