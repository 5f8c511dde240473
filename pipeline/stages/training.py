"""What every stage that trains with a trainer of TRL does the same way: resuming, stopping, the result."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PrinterCallback, Trainer, TrainerCallback

from pipeline.artifacts.checkpoints import Checkpoint
from pipeline.artifacts.temporary import discard
from pipeline.config.shared import DType, ModelConfig
from pipeline.config.stages import TrainingConfig
from pipeline.errors import CheckpointError
from pipeline.models.loading import adapter_digest, save_adapter
from pipeline.models.logprobs import recompute_as_computed
from pipeline.runtime.allocator import keep_memory
from pipeline.runtime.device import choose_device, probe_dtype
from pipeline.runtime.seeds import seed_everything
from pipeline.runtime.signals import StopRequest
from pipeline.stages.arguments import microbatches, require_one_device, require_one_process, trainer_arguments
from pipeline.stages.callbacks import Measure, Record, StopAtSignal, Validation
from pipeline.stages.course import Course, Milestones, make_milestones
from pipeline.stages.finite import FiniteUpdates, StepMeter
from pipeline.stages.saving import HEADS_NAME, Checkpoints, head_parameters
from pipeline.tracking.job import StageJob

ADAPTER_FOLDER = "adapter"
BEFORE_EVERY_STEP = -1  # metrics are cut back to here where there is no checkpoint, since step 0 is measured again


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a stage in its work folder, which earlier starts may have brought some way."""

    job: StageJob
    course: Course
    checkpoint: Checkpoint | None  # what this attempt goes on from; None is from the beginning


def begin_attempt(job: StageJob) -> Attempt:
    """Find the newest checkpoint that verifies and cut the record of metrics back to it."""
    checkpoint = job.work.checkpoints.newest(job.run.notice)
    course = Course() if checkpoint is None else Course.from_facts(checkpoint.facts)
    job.run.cut(BEFORE_EVERY_STEP if checkpoint is None else checkpoint.step)
    if checkpoint is not None:
        job.run.notice(f"going on from the checkpoint of step {checkpoint.step}")
    return Attempt(job=job, course=course, checkpoint=checkpoint)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stage trains on this machine: decided before any weight is loaded."""

    section: str  # the configuration section whose keys an error names
    config: TrainingConfig
    attempt: Attempt
    device: torch.device
    dtype: DType


def begin_training(job: StageJob, config: TrainingConfig, *, section: str) -> Training:
    """Take up the work folder and decide device and number format.

    Raises:
        ConfigError: The batches cannot be cut evenly, or there is more than one device.
    """
    microbatches(config.batch_size, config.microbatch_size, section=section)
    keep_memory()
    attempt = begin_attempt(job)
    device = choose_device(job.runtime)
    require_one_device(device)
    return Training(section=section, config=config, attempt=attempt, device=device, dtype=resolve_dtype(job, device))


def resolve_dtype(job: StageJob, device: torch.device) -> DType:
    """Return the number format of the base weights; what `auto` came to at the first start holds for every resume."""
    configured = job.section(ModelConfig).dtype
    if configured is not DType.auto:
        return configured
    remembered = job.work.recall("dtype")
    if remembered is not None:
        return DType(remembered)
    probe = probe_dtype(device)
    job.run.notice(f"number format: {probe}")
    job.work.remember("dtype", probe.dtype.value)
    return probe.dtype


MakeTrainer = Callable[[dict[str, Any], StepMeter], Trainer]  # from the arguments that all trainers of TRL share
MakeWatcher = Callable[[StepMeter, Course], TrainerCallback]


def train(
    training: Training,
    make_trainer: MakeTrainer,
    *,
    num_rows: int,
    has_validation: bool,
    measure: Measure,
    watchers: Sequence[MakeWatcher] = (),
) -> Milestones:
    """Train to the last step, from wherever earlier attempts came; nothing is done where they came to the end.

    Args:
        training: Of `begin_training`.
        make_trainer: Builds the trainer over the whole run's rows, in their order.
        num_rows: Train rows.
        has_validation: False where there are no validation rows.
        measure: What is measured on the validation rows.
        watchers: A stage's own callbacks; what they keep in the course is saved with every checkpoint.
    """
    config, attempt = training.config, training.attempt
    milestones = make_milestones(
        num_rows,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        max_steps=config.max_steps,
        validate_every=config.validate_every,
        save_every=config.save_every,
        has_validation=has_validation,
    )
    if not attempt.course.finished:
        arguments = trainer_arguments(
            config,
            section=training.section,
            output_dir=attempt.job.work.checkpoints.draft(),
            num_steps=milestones.num_steps,
            device=training.device,
            dtype=training.dtype,
        )
        meter = StepMeter()
        own = [make_watcher(meter, attempt.course) for make_watcher in watchers]
        trainer = make_trainer(arguments, meter)
        if config.activation_checkpointing:
            recompute_as_computed(trainer.model)
        run_trainer(trainer, training, milestones, meter, measure, own)
    return milestones


def run_trainer(
    trainer: Trainer,
    training: Training,
    milestones: Milestones,
    meter: StepMeter,
    measure: Measure,
    own: Sequence[TrainerCallback] = (),
) -> None:
    """Run a trainer from where the attempt stands to the last step.

    Raises:
        Interrupted: A signal asked for the end. The last optimizer step is saved.
        TrainingDivergedError: Too many updates in a row were not finite.
    """
    config, attempt = training.config, training.attempt
    job, course, folder = attempt.job, attempt.course, Path(trainer.args.output_dir)
    require_one_process(trainer)
    trainer.remove_callback(PrinterCallback)
    saving = Checkpoints(
        job.work.checkpoints, course, milestones, keep=config.keep_checkpoints, keep_best=config.keep_best
    )
    with StopRequest() as stop:
        # The order counts: whatever may end the training comes before what saves its last step.
        watchers: list[TrainerCallback] = [
            FiniteUpdates(meter, course, job.run, max_in_a_row=config.max_nonfinite_steps, section=training.section),
            Validation(measure, course, milestones, job.run, patience=config.early_stopping_patience),
            StopAtSignal(stop),
            *own,
            saving,
            Record(meter, course, milestones, job.run),
        ]
        for watcher in watchers:
            trainer.add_callback(watcher)
        if attempt.checkpoint is not None:
            load_heads(trainer.model, attempt.checkpoint)  # the trainer itself restores the adapter and all else
        # What was drawn until here does not move the first step; a resume restores its own.
        seed_everything(config.seed)
        try:
            trainer.train(resume_from_checkpoint=None if attempt.checkpoint is None else str(attempt.checkpoint.path))
        except Exception:
            saving.explain(folder)
            raise
        finally:
            discard(folder)
        if stop.signal_number is not None:
            name, step = signal.Signals(stop.signal_number).name, trainer.state.global_step
            raise stop.interrupted(
                f"Stopped by {name} after step {step} of {milestones.num_steps}, which is saved. "
                "The same command goes on from there."
            )


def load_chosen(attempt: Attempt, model: PeftModel, *, keep_best: bool) -> int:
    """Load the adapter and the heads of the best or the last verified checkpoint into the model.

    Returns:
        The step it was saved at.

    Raises:
        CheckpointError: The chosen checkpoint does not verify, so what was trained is lost.
    """
    job, course = attempt.job, attempt.course
    step = course.best_step if keep_best and course.best_step is not None else job.work.checkpoints.steps()[-1]
    try:
        checkpoint = job.work.checkpoints.step(step)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} It is the one that was chosen, with the lowest validation loss. "
            f"Delete {job.work.path} to train this stage again from the start."
        ) from error
    set_peft_model_state_dict(model, load_file(checkpoint.path / "adapter_model.safetensors"))
    load_heads(model, checkpoint)
    return step


def load_heads(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Load the trained parameters that belong to no adapter, which the trainer knows nothing of."""
    parameters = head_parameters(model)
    saved = load_file(checkpoint.path / HEADS_NAME) if parameters else {}
    if saved.keys() != parameters.keys():
        raise CheckpointError(f"Checkpoint {checkpoint.path} has the heads {sorted(saved)}, not {sorted(parameters)}.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def stage_policy(attempt: Attempt, model: PeftModel, *, keep_best: bool) -> tuple[int, str]:
    """Write the chosen adapter into the staging folder; return its step and the digest of its tensors."""
    step = load_chosen(attempt, model, keep_best=keep_best)
    folder = attempt.job.staging / ADAPTER_FOLDER
    save_adapter(model, folder)
    return step, adapter_digest(folder)


def course_metrics(attempt: Attempt, step: int) -> dict[str, Any]:
    """Return the facts of a training that every stage seals; ``step`` is that of the chosen checkpoint."""
    course = attempt.course
    losses = dict(course.validations)
    if losses and losses.get(step, losses[0]) >= losses[0]:
        attempt.job.run.notice("no checkpoint has a lower validation loss than the model before training")
    return {
        "steps": max(attempt.job.work.checkpoints.steps()),
        "validation_loss_start": losses.get(0),
        "validation_loss_best": losses.get(step),
        "validation_loss_last": course.validations[-1][1] if course.validations else None,
        "supervised_tokens": course.supervised_tokens,
        "processed_tokens": course.processed_tokens,
        "skipped_steps": course.skipped_steps,
    }
