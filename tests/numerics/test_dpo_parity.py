"""The trainer of `dpo` against TRL's own on the same batches: the same losses, from the same first step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import trl
from pair_jobs import comparisons, make_pair_workshop, small_dpo
from transformers import TrainerCallback

from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig, Schedule
from pipeline.data.encode import load_chat
from pipeline.data.pairs import encode_pairs
from pipeline.models.loading import add_lora, load_base
from pipeline.models.scoring import score
from pipeline.stages.arguments import trainer_arguments
from pipeline.stages.dpo import make_trainer
from pipeline.stages.finite import StepMeter
from pipeline.stages.pairs import PairRows, pair_order
from pipeline.stages.reference import ReferenceLogprobs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]
NUM_STEPS, BATCH, RATE = 4, 4, 5e-3


class Losses(TrainerCallback):
    """Notes the loss of every step; also resets our meter, as the stage's callbacks do."""

    def __init__(self, meter: StepMeter | None = None) -> None:
        self.meter = meter
        self.values: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.meter is not None:
            self.meter.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.values.append(logs["loss"])


def test_the_losses_are_trls_on_the_same_batches(tmp_path: Path) -> None:
    workshop = make_pair_workshop(tmp_path / "workshop", num_train=1, num_validation=0)
    chat = load_chat(workshop.base.folder, workshop.model)
    pairs = encode_pairs(comparisons(NUM_STEPS * BATCH), chat, max_length=128).pairs
    optimizer = OptimizerConfig(learning_rate=RATE, schedule=Schedule.constant, warmup_fraction=0.0)
    config = small_dpo(
        optimizer=optimizer, num_epochs=1, batch_size=BATCH, microbatch_size=2, group_by_length=False, soft_labels=False
    )

    def policy() -> Any:
        base = load_base(workshop.base, workshop.model, RuntimeConfig(num_threads=1), DType.float32)
        return add_lora(base, LoRAConfig(rank=4, alpha=8.0), 5)

    model, meter = policy(), StepMeter()
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    sums = torch.tensor([row.nats for row in score(model, sides, 8)]).view(-1, 2)
    arguments = trainer_arguments(
        config, section="dpo", output_dir=tmp_path / "ours", num_steps=NUM_STEPS, device=torch.device("cpu"),
        dtype=DType.float32,
    )  # fmt: skip
    rows = PairRows(chat=chat, train=pairs, validation=[], counts={})
    ours, our_losses = make_trainer(
        model, rows, config, arguments, meter, ReferenceLogprobs(train=sums, validation=sums[:0])
    ), Losses(meter)  # fmt: skip
    ours.add_callback(our_losses)
    ours.train()

    order = pair_order(pairs, num_epochs=1, batch_size=BATCH, seed=config.seed, group_by_length=False)
    placeholder = datasets.Dataset.from_dict({"prompt": ["Q:"], "chosen": [" a"], "rejected": [" b"]})
    theirs, their_losses = trl.DPOTrainer(
        model=policy(),
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "theirs"), per_device_train_batch_size=BATCH, num_train_epochs=1,
            learning_rate=RATE, lr_scheduler_type="constant", bf16=False, use_cpu=True, max_length=None,
            train_sampling_strategy="sequential", report_to="none", save_strategy="no", logging_steps=1,
            disable_tqdm=True, dataloader_pin_memory=False, activation_checkpointing=False,
        ),
        train_dataset=placeholder,
        processing_class=chat.tokenizer,
    ), Losses()  # fmt: skip
    theirs.train_dataset = datasets.Dataset.from_list([trl_row(pairs[number]) for number in order])
    theirs.add_callback(their_losses)
    theirs.train()

    assert len(our_losses.values) == len(their_losses.values) == NUM_STEPS
    assert our_losses.values[0] == pytest.approx(math.log(2), abs=1e-5)
    assert our_losses.values == pytest.approx(their_losses.values, abs=1e-4)
    assert abs(their_losses.values[-1] - math.log(2)) > 1e-2, "nothing was learned, so nothing is compared"


def trl_row(pair: Any) -> dict[str, list[int]]:
    """What TRL's own preparation makes of a row, from the very same tokens."""
    start = pair.chosen.completion_mask.index(True)
    return {
        "prompt_ids": pair.chosen.input_ids[:start],
        "chosen_ids": pair.chosen.input_ids[start:],
        "rejected_ids": pair.rejected.input_ids[start:],
    }
