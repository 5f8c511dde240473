"""The trainer of `sft` against TRL's own on the same batches, and gradient accumulation against one large batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import trl
from sft_jobs import Workshop, demonstrations, make_workshop, small_config
from transformers import TrainerCallback

from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig
from pipeline.config.stages import OverlengthPolicy, SFTConfig
from pipeline.data.encode import Encoded, encode_rows, load_chat
from pipeline.models.loading import add_lora, load_base
from pipeline.stages import sft
from pipeline.stages.arguments import trainer_arguments
from pipeline.stages.finite import StepMeter
from pipeline.stages.order import training_order

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
NUM_STEPS = 6


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


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def encoded(workshop: Workshop) -> list[Encoded]:
    chat = load_chat(workshop.base.folder, workshop.model)
    return encode_rows(demonstrations(8 * NUM_STEPS), chat, 128, OverlengthPolicy["drop"]).rows


def config_for(microbatch_size: int) -> SFTConfig:
    return small_config(
        lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_fraction=0.0),
        num_epochs=1, batch_size=8, microbatch_size=microbatch_size, group_by_length=False,
    )  # fmt: skip


def policy(workshop: Workshop) -> Any:
    base = load_base(workshop.base, workshop.model, RuntimeConfig(num_threads=1), DType.float32)
    return add_lora(base, config_for(8).lora, 5)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def train_ours(
    workshop: Workshop, rows: list[Encoded], folder: Path, microbatch_size: int = 8
) -> tuple[list[float], dict[str, torch.Tensor]]:
    config = config_for(microbatch_size)
    arguments = trainer_arguments(
        config, section="sft", output_dir=folder, num_steps=NUM_STEPS, device=torch.device("cpu"), dtype=DType.float32
    )
    chat = load_chat(workshop.base.folder, workshop.model)
    meter = StepMeter()
    model = policy(workshop)
    trainer = sft.make_trainer(
        model, sft.SFTRows(chat=chat, train=rows, validation=[], counts={}), config, arguments, meter
    )
    losses = Losses(meter)
    trainer.add_callback(losses)
    trainer.train()
    assert len(losses.values) == NUM_STEPS
    return losses.values, weights(model)


def train_trl(
    workshop: Workshop, rows: list[Encoded], folder: Path, shift: int = 0
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """TRL's trainer as its users run it on tokenised rows; `shift` moves what is supervised, for the control."""
    config = config_for(8)
    order = training_order(
        [len(row.input_ids) for row in rows], num_epochs=1, batch_size=8, seed=config.seed, group_by_length=False
    )
    chosen = [rows[number] for number in order]
    masks = [
        [*row.completion_mask[-shift:], *row.completion_mask[:-shift]] if shift else row.completion_mask
        for row in chosen
    ]
    labels = [
        [token if learn else -100 for token, learn in zip(row.input_ids, mask, strict=True)]
        for row, mask in zip(chosen, masks, strict=True)
    ]
    arguments = trl.SFTConfig(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=8, seed=config.seed, bf16=False,
        use_cpu=True, learning_rate=2e-3, lr_scheduler_type="cosine", warmup_steps=0, weight_decay=0.0,
        max_grad_norm=1.0, activation_checkpointing=False, train_sampling_strategy="sequential", max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, report_to="none", save_strategy="no", logging_steps=1,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    model = policy(workshop)
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"input_ids": [row.input_ids for row in chosen], "labels": labels}),
        processing_class=load_chat(workshop.base.folder, workshop.model).tokenizer,
    )
    losses = Losses()
    trainer.add_callback(losses)
    trainer.train()
    return losses.values, weights(model)


def largest_gap(left: list[float], right: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(left, right, strict=True))


def test_losses_are_those_of_trl_step_by_step(workshop: Workshop, encoded: list[Encoded], tmp_path: Path) -> None:
    ours, our_weights = train_ours(workshop, encoded, tmp_path / "ours")
    theirs, their_weights = train_trl(workshop, encoded, tmp_path / "theirs")
    assert largest_gap(ours, theirs) < 1e-4
    assert ours[-1] < ours[0] - 0.1, "nothing was learned, so the later steps compare nothing"
    for name, value in our_weights.items():
        torch.testing.assert_close(value, their_weights[name], rtol=0, atol=1e-4)
    shifted, _ = train_trl(workshop, encoded, tmp_path / "shifted", shift=1)
    assert largest_gap(ours, shifted) > 1e-2, "the tolerance is too loose to see a mask that is off by one"


def test_accumulation_is_the_large_batch(
    workshop: Workshop, encoded: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a step hold different numbers of supervised tokens, so a mean of means is another loss."""
    large, large_weights = train_ours(workshop, encoded, tmp_path / "large", microbatch_size=8)
    small, small_weights = train_ours(workshop, encoded, tmp_path / "small", microbatch_size=1)
    assert small == pytest.approx(large, rel=1e-6)
    for name, value in large_weights.items():
        torch.testing.assert_close(value, small_weights[name], rtol=0, atol=5e-6)

    loss_of = sft.sft_loss
    monkeypatch.setattr(sft, "sft_loss", lambda logprobs, _: loss_of(logprobs, logprobs.numel()) / 8)
    means, _ = train_ours(workshop, encoded, tmp_path / "means", microbatch_size=1)
    assert largest_gap(large, means) > 1e-2, "these rows cannot tell a mean of means from the mean"


def test_rows_of_other_lengths_in_the_batch_do_not_matter(workshop: Workshop, encoded: list[Encoded]) -> None:
    """Padding reaches no loss: a row scores the same alone and beside a row that is much longer."""
    chat = load_chat(workshop.base.folder, workshop.model)
    ordered = sorted(encoded, key=lambda row: len(row.input_ids))
    rows = [
        ordered[0],
        replace(ordered[-1], input_ids=ordered[-1].input_ids * 2, completion_mask=ordered[-1].completion_mask * 2),
    ]
    model = policy(workshop)
    alone = sft.validation_loss(model, rows[:1], 1)
    collator = sft.CompletionCollator(rows, chat.pad_id)
    batch = collator([{"row": 0}, {"row": 1}])
    scored = sft.supervised_logprobs(model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    assert -scored.logprobs[scored.row == 0].mean().item() == pytest.approx(alone, abs=1e-5)
    assert batch["attention_mask"].sum().item() == sum(len(row.input_ids) for row in rows)
    assert (batch["labels"][:, 1:] != -100).sum().item() == sum(row.num_supervised for row in rows)
