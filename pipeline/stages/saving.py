"""Checkpoints of a trainer: written by it, then checked, committed and rotated by us."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.artifacts.durable import storage_errors
from pipeline.errors import StorageError
from pipeline.stages.course import Course, Milestones
from pipeline.stages.finite import require_finite

TRIAL_BYTES = 1 << 16
HEADS_NAME = "heads.safetensors"  # of a checkpoint: trained parameters that belong to no adapter


class Checkpoints(TrainerCallback):  # type: ignore[misc]  # untyped upstream
    """Commits what the trainer wrote: hashed, synced and renamed, so that a crash leaves the old or the new one."""

    # The trainer's own pickle of its arguments, and files that say nothing about the state.
    DROPPED = ("training_args.bin", "README.md", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

    def __init__(
        self, folder: CheckpointFolder, course: Course, milestones: Milestones, *, keep: int, keep_best: bool
    ) -> None:
        """`keep` is how many of the newest stay, beside the best one if `keep_best`."""
        self.folder, self.course, self.milestones = folder, course, milestones
        self.keep, self.keep_best = keep, keep_best
        self.num_bytes = 0  # of a checkpoint that is being written, at most; 0 while none is

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Decide whether this step is saved; runs after every callback that may end the training."""
        step = state.global_step
        if step >= self.milestones.num_steps:
            self.course.finished = True
        is_best = self.keep_best and self.course.best_step == step
        if step in self.milestones.save_at or is_best or control.should_training_stop:
            self.num_bytes = 4 * _trained_bytes(kwargs["model"])
            require_space(Path(args.output_dir), self.num_bytes)
            require_finite(kwargs["model"], kwargs["optimizer"], step)
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take over the folder that the trainer has just written."""
        source = Path(args.output_dir, f"checkpoint-{state.global_step}")
        for name in self.DROPPED:
            (source / name).unlink(missing_ok=True)
        for folder in filter(Path.is_dir, list(source.iterdir())):
            shutil.rmtree(folder)  # a frozen adapter beside the trained one; a resume takes it from where it came
        if heads := head_parameters(kwargs["model"]):
            tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in heads.items()}
            save_file(tensors, source / HEADS_NAME)
        self.folder.commit(source, state.global_step, self.course.facts())
        best = self.course.best_step if self.keep_best else None
        self.folder.rotate(self.keep, set() if best is None else {best})
        self.num_bytes = 0

    def explain(self, folder: Path) -> None:
        """After a failure, find out whether it was the disk: writers of tensors do not pass on the system's reason.

        Raises:
            StorageError: A checkpoint was being written, and as many bytes cannot be written to ``folder``.
        """
        if not self.num_bytes:
            return
        trial = folder / "trial"
        with storage_errors(folder, self.num_bytes):
            try:
                with trial.open("wb") as file:
                    for _ in range(0, self.num_bytes, TRIAL_BYTES):
                        file.write(bytes(TRIAL_BYTES))
            finally:
                trial.unlink(missing_ok=True)


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


def head_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the trained parameters that belong to no adapter, by name: peft does not save them."""
    named = model.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad and "lora_" not in name}


def _trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of the trained parameters; Adam's two averages take as much again each."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(parameter.numel() * parameter.element_size() for parameter in trained)
