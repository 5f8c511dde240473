"""How the trainers of TRL are set up: their arguments, and what they must not do by themselves."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, Trainer

from pipeline.config.shared import DType, Schedule
from pipeline.config.stages import TrainingConfig
from pipeline.errors import ConfigError

TRL_REFERENCE = "ref"  # the adapter that a trainer of TRL adds when it is given a policy
_SCHEDULES = {Schedule.cosine: "cosine", Schedule.linear: "linear", Schedule.constant: "constant_with_warmup"}


def microbatches(batch_size: int, microbatch_size: int, *, section: str) -> tuple[int, int]:
    """Return sequences per backward pass and backward passes per optimizer step.

    Raises:
        ConfigError: The optimizer step cannot be cut into equal backward passes.
    """
    size = min(microbatch_size, batch_size)
    if batch_size % size:
        raise ConfigError(
            f"{section}.batch_size is {batch_size}, which is not a multiple of {section}.microbatch_size "
            f"({microbatch_size}). Set, for example, {section}.microbatch_size={math.gcd(batch_size, microbatch_size)}."
        )
    return size, batch_size // size


def trainer_arguments(
    config: TrainingConfig, *, section: str, output_dir: Path, num_steps: int, device: torch.device, dtype: DType
) -> dict[str, Any]:
    """Map our configuration to the arguments that every trainer of TRL shares.

    Saving, validation and the choice of the best checkpoint are ours (see `callbacks`), so the trainer's are off. The
    rows come in the order of `order.training_order`, which is the whole run, so the trainer sees one epoch.
    """
    optimizer = config.optimizer
    microbatch_size, accumulation_steps = microbatches(config.batch_size, config.microbatch_size, section=section)
    return {
        "output_dir": str(output_dir),
        "seed": config.seed,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": microbatch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "optim": "adamw_torch",
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": _SCHEDULES[optimizer.schedule],
        "warmup_steps": math.ceil(optimizer.warmup_fraction * num_steps),
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        # The base is already in its number format and the forward pass casts for itself; fp16 also needs loss scaling.
        "bf16": False,
        "fp16": dtype is DType.float16,
        "use_cpu": device.type == "cpu",
        "activation_checkpointing": config.activation_checkpointing,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show a running average in place of a loss that is not finite
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.type == "cuda",
    }


def switch_telemetry_off() -> None:
    """TRL reports every trainer to its makers unless this setting of the hub library is on."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # the variable was read when the library was imported


@contextmanager
def quiet_progress() -> Iterator[None]:
    """Show no progress bar for the table of one row that a trainer of TRL is built over."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def align_special_tokens(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokenizer's special tokens into the model's configurations, as every trainer does with a warning."""
    for config in (model.config.get_text_config(), model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(tokenizer, name)
            if token is not None:
                setattr(config, name, token)


def require_one_device(device: torch.device) -> None:
    """Refuse several GPUs in one process, which the trainer would spread each batch over.

    Raises:
        ConfigError: More than one GPU is visible and no launcher started one process for each.
    """
    if device.type == "cuda" and torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible to this process. Choose one: CUDA_VISIBLE_DEVICES=0."
        )


def require_one_process(trainer: Trainer) -> None:
    """Refuse to train in another set-up than the one that was asked for.

    Raises:
        ConfigError: The launcher started several processes, or the trainer did not see what the launcher started.
    """
    asked, seen = int(os.environ.get("WORLD_SIZE", "1")), trainer.accelerator.num_processes
    if asked != seen:
        raise ConfigError(
            f"The launcher set WORLD_SIZE={asked}, and the trainer runs as {seen} process(es): each of them would "
            "train a policy of its own. Check MASTER_ADDR, MASTER_PORT and RANK."
        )
    if seen > 1:
        raise ConfigError(
            f"This stage was launched as {seen} processes, and gradients are not yet added up across processes. "
            "Launch it as one."
        )
