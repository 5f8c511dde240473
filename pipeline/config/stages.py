"""Hyperparameters of the training stages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.fields import option
from pipeline.config.shared import LoRAConfig, OptimizerConfig

# What happens to a row with more than `max_length` tokens. Cut rows lose their right end, and one with nothing left
# to learn from is dropped. (Written as a call, because `raise` cannot name a member in a class body.)
OverlengthPolicy = StrEnum("OverlengthPolicy", ["drop", "truncate", "raise"])


@dataclass(kw_only=True)
class TrainingConfig:
    """What every stage that trains an adapter with a trainer of TRL has; a row is a conversation, or a pair of them."""

    seed: int = option(17, ge=0)
    lora: LoRAConfig = option(factory=LoRAConfig)  # of a new adapter; one that is given keeps its shape
    optimizer: OptimizerConfig = option(factory=OptimizerConfig)
    num_epochs: int = option(3, ge=1)  # passes over the train rows
    max_steps: int | None = option(None, ge=1)  # optimizer steps; ends earlier than num_epochs
    batch_size: int = option(8, ge=1)  # rows per optimizer step, over all processes
    microbatch_size: int = option(4, ge=1)  # rows per backward pass on one device
    max_length: int = option(1024, ge=8)  # tokens per sequence
    group_by_length: bool = True  # batches of similar length, so that little is padding
    activation_checkpointing: bool = False  # less memory for about a third more time
    validate_every: int | None = option(None, ge=1)  # optimizer steps; null is once per epoch
    save_every: int | None = option(None, ge=1, affects_results=False)  # optimizer steps; null is at each validation
    keep_checkpoints: int = option(2, ge=2, affects_results=False)  # verified ones, beside the best
    keep_best: bool = True  # the result is the checkpoint with the lowest validation loss, else the last
    # Validations without improvement after which training ends; null never ends early.
    early_stopping_patience: int | None = option(None, ge=1)
    max_nonfinite_steps: int = option(5, ge=1)  # skipped in a row before the run stops


@dataclass(kw_only=True)
class SFTConfig(TrainingConfig):
    """Supervised fine-tuning on demonstrations."""

    overlength: OverlengthPolicy = OverlengthPolicy.drop
