"""Supervised fine-tuning: a LoRA adapter learns to write the completions of demonstrations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trl
from peft import PeftModel
from torch import Tensor

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import DType, ModelConfig
from pipeline.config.stages import SFTConfig
from pipeline.data.rows import Demonstration
from pipeline.data.tables import read_table
from pipeline.errors import DataError
from pipeline.losses.sft import sft_loss
from pipeline.models.loading import add_lora, load_base, load_policy
from pipeline.models.logprobs import supervised_logprobs
from pipeline.models.scoring import score
from pipeline.runtime.device import choose_device
from pipeline.stages.batches import CompletionCollator, TrainRow, order_dataset
from pipeline.stages.callbacks import StepMeter
from pipeline.stages.course import Milestones, make_milestones
from pipeline.stages.order import training_order
from pipeline.stages.training import (
    Attempt,
    begin_attempt,
    microbatches,
    resolve_dtype,
    run_trainer,
    stage_policy,
    switch_telemetry_off,
    trainer_arguments,
)
from pipeline.tracking.job import StageJob
