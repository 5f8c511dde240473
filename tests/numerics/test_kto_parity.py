"""The trainer of `kto` against TRL's own on the same batches and the same unrelated completions: the same losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import trl
from test_dpo_parity import Losses
from thumb_jobs import FOLDS, make_thumb_workshop, small_kto, thumbs

from pipeline.config.kto import KTOConfig
from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig, Schedule
from pipeline.data.encode import Chat, load_chat
from pipeline.data.thumbs import Thumb, ThumbCounts, encode_thumbs, with_mismatched
from pipeline.losses.unpaired import LabelWeights
from pipeline.models.loading import add_lora, load_base
from pipeline.models.scoring import score
from pipeline.stages.arguments import trainer_arguments
from pipeline.stages.finite import StepMeter
from pipeline.stages.kto import make_trainer
from pipeline.stages.order import training_order
from pipeline.stages.reference import ReferenceLogprobs
from pipeline.stages.thumb_objective import ThumbObjective
from pipeline.stages.thumbs import ThumbTables

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]
NUM_STEPS, BATCH, RATE = 5, 4, 5e-3
WEIGHTS = LabelWeights(desirable=2.0, undesirable=0.5)


@pytest.mark.parametrize(("wrong", "differs"), [(None, False), ("unrelated", True), ("weights", True)])
def test_the_losses_are_trls_on_the_same_batches(tmp_path: Path, wrong: str | None, differs: bool) -> None:
    """With other unrelated completions, or the weights of the labels exchanged, they are not."""
    workshop = make_thumb_workshop(tmp_path / "workshop", num_train=2, num_validation=0)
    chat = load_chat(workshop.base.folder, workshop.model)
    rows = with_mismatched(
        encode_thumbs(thumbs(NUM_STEPS * BATCH), [], chat, max_length=128, folds=FOLDS).rows, [], 128
    )
    optimizer = OptimizerConfig(learning_rate=RATE, schedule=Schedule.constant, warmup_fraction=0.0)
    config = small_kto(
        optimizer=optimizer, num_epochs=1, batch_size=BATCH, microbatch_size=2, beta=1.0, soft_labels=False
    )

    def policy() -> Any:
        base = load_base(workshop.base, workshop.model, RuntimeConfig(num_threads=1), DType.float32)
        return add_lora(base, LoRAConfig(rank=4, alpha=8.0), 5)

    theirs = trl_losses(policy(), chat, rows, config, tmp_path, shift=wrong == "unrelated")
    weights = LabelWeights(desirable=0.5, undesirable=2.0) if wrong == "weights" else WEIGHTS
    ours = our_losses(policy(), chat, rows, config, weights, tmp_path)
    assert len(ours) == len(theirs) == NUM_STEPS
    largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    assert (largest > 1e-3) if differs else (largest < 1e-4)
    assert len({round(loss, 3) for loss in theirs}) > 1, "nothing was learned, so nothing is compared"


def our_losses(
    model: Any, chat: Chat, rows: list[Thumb], config: KTOConfig, weights: LabelWeights, folder: Path
) -> list[float]:
    sums = torch.tensor([row.nats for thumb in rows for row in score(model, thumb.sides, 2)]).view(-1, 2)
    arguments = trainer_arguments(
        config, section="kto", output_dir=folder / "ours", num_steps=NUM_STEPS, device=torch.device("cpu"),
        dtype=DType.float32,
    )  # fmt: skip
    meter = StepMeter()
    tables = ThumbTables(chat=chat, train=rows, validation=[], counts={"train": ThumbCounts()})
    reference = ReferenceLogprobs(train=sums, validation=sums[:0])
    objective = ThumbObjective(config=config, weights=weights)
    trainer, losses = make_trainer(model, tables, objective, arguments, meter, reference), Losses(meter)
    trainer.add_callback(losses)
    trainer.train()
    return losses.values


def trl_losses(
    model: Any, chat: Chat, rows: list[Thumb], config: KTOConfig, folder: Path, *, shift: bool
) -> list[float]:
    """Train with TRL; ``shift`` gives every row the unrelated completion of the row before it in the batch."""
    lengths = [len(row.own.input_ids) for row in rows]
    order = training_order(lengths, num_epochs=1, batch_size=BATCH, seed=config.seed, group_by_length=False)
    placeholder = datasets.Dataset.from_dict({"prompt": ["Q:"], "completion": [" a"], "label": [True]})
    trainer, losses = trl.KTOTrainer(
        model=model,
        args=trl.KTOConfig(
            output_dir=str(folder / "theirs"), per_device_train_batch_size=BATCH, num_train_epochs=1, beta=config.beta,
            desirable_weight=WEIGHTS.desirable, undesirable_weight=WEIGHTS.undesirable, learning_rate=RATE,
            lr_scheduler_type="constant", bf16=False, use_cpu=True, max_length=None, report_to="none",
            train_sampling_strategy="sequential", save_strategy="no", logging_steps=1, disable_tqdm=True,
            dataloader_pin_memory=False, activation_checkpointing=False,
        ),
        train_dataset=placeholder,
        processing_class=chat.tokenizer,
    ), Losses()  # fmt: skip
    unrelated = [rows[number - 1 if shift else number].mismatched for number in order]
    trainer.train_dataset = datasets.Dataset.from_list(
        [trl_row(rows[number], other) for number, other in zip(order, unrelated, strict=True)]
    )
    trainer.add_callback(losses)
    trainer.train()
    return losses.values


def trl_row(thumb: Thumb, unrelated: Any) -> dict[str, Any]:
    """What TRL's own preparation makes of a row, from the very same tokens."""
    return {
        "prompt_ids": thumb.own.prompt_ids,
        "completion_ids": thumb.own.input_ids[len(thumb.own.prompt_ids) :],
        "KL_completion_ids": unrelated.input_ids[len(unrelated.prompt_ids) :],
        "label": thumb.label,
    }
