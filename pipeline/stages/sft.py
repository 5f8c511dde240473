"""Supervised fine-tuning: a LoRA adapter learns to write the completions of demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import trl
from peft import PeftModel
from torch import Tensor

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import ModelConfig
from pipeline.config.stages import SFTConfig
from pipeline.data.encode import Chat, Encoded, EncodingCounts, coloured_sample, encode_rows, load_chat
from pipeline.data.rows import Demonstration
from pipeline.data.tables import part_name, read_table
from pipeline.errors import DataError
from pipeline.losses.sft import sft_loss
from pipeline.models.loading import weights_as_they_are
from pipeline.models.logprobs import supervised_logprobs
from pipeline.models.scoring import score
from pipeline.stages.arguments import align_special_tokens, switch_telemetry_off
from pipeline.stages.batches import CompletionCollator, order_dataset
from pipeline.stages.finite import StepMeter
from pipeline.stages.order import training_order
from pipeline.stages.policies import initial_policy, seal_policy
from pipeline.stages.training import begin_training, train
from pipeline.tracking.job import StageJob

SECTION = "sft"


class SFTTrainer(trl.SFTTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's loop with our loss: the head is applied to supervised positions alone, in chunks.

    Only ``compute_loss`` is overridden. `tests/numerics/test_sft_parity.py` holds it against TRL's own.
    """

    loss_is_scaled_for_ga = True  # each microbatch is divided by the supervised tokens of the whole optimizer step
    meter: StepMeter

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the part of the optimizer step's mean loss that this microbatch contributes."""
        if return_outputs or num_items_in_batch is None:
            raise ValueError("the loss is computed in training only; validation has a function of its own")
        scored = supervised_logprobs(model, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
        loss = sft_loss(scored.logprobs, int(num_items_in_batch))
        rows = [self.data_collator.rows[number] for number in inputs["row_numbers"]]
        self.meter.add(
            loss=loss,
            rows=[row.id for row in rows],
            processed=sum(len(row.input_ids) for row in rows),
            supervised=sum(row.num_supervised for row in rows),
        )
        return loss


def train_sft(job: StageJob) -> StageOutcome:
    """Fit a policy to the train demonstrations and seal the checkpoint with the lowest validation loss.

    The loss is the mean negative log-likelihood of the supervised tokens (`losses.sft`). Given a policy, its adapter is
    trained on, and `sft.lora` is not applied: the shape of an adapter is decided once, by the first stage of a chain.
    """
    config = job.section(SFTConfig)
    rows = load_rows(job, config)
    training = begin_training(job, config, section=SECTION)
    model = initial_policy(job, config, training.dtype)
    milestones = train(
        training,
        lambda arguments, meter: make_trainer(model, rows, config, arguments, meter),
        num_rows=len(rows.train),
        has_validation=bool(rows.validation),
        measure=lambda policy: {"loss": validation_loss(policy, rows.validation, config.microbatch_size)},
    )
    counts = {split: counts.as_dict() for split, counts in rows.counts.items()}
    return seal_policy(training, model, milestones, rows=counts)


@dataclass(frozen=True, kw_only=True)
class SFTRows:
    """Encoded demonstrations and what became of those that are missing."""

    chat: Chat
    train: list[Encoded]
    validation: list[Encoded]
    counts: dict[str, EncodingCounts]  # by split


def load_rows(job: StageJob, config: SFTConfig) -> SFTRows:
    """Read and encode the train and validation demonstrations, and say what is left of them.

    Raises:
        DataError: No train row is left.
    """
    dataset = job.one("dataset")
    if dataset is None:
        raise DataError("The stage sft got no data set. Name `curate` in `stages`, or set `inputs.sft.dataset`.")
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    for notice in chat.notices:
        job.run.notice(notice)
    splits: dict[str, list[Encoded]] = {}
    counts: dict[str, EncodingCounts] = {}
    for split in ("train", "validation"):
        present = part_name("demonstrations", split) in dataset.manifest.parts
        if not present and split == "validation":
            job.run.notice("there are no validation rows, so the last checkpoint becomes the policy")
        rows = read_table(dataset, "demonstrations", split, Demonstration) if present or split == "train" else []
        encoded = encode_rows(rows, chat, config.max_length, config.overlength)
        splits[split], counts[split] = encoded.rows, encoded.counts
        job.run.notice(f"{split}: {_counted(encoded.counts)}")
    if not splits["train"]:
        raise DataError(
            f"No train row is left to learn from: {_counted(counts['train'])}. "
            f"Raise `sft.max_length` ({config.max_length}) or set `sft.overlength=truncate`."
        )
    job.run.notice(f"what is learned, in row {splits['train'][0].id}:\n{coloured_sample(splits['train'][0], chat)}")
    return SFTRows(chat=chat, train=splits["train"], validation=splits["validation"], counts=counts)


def _counted(counts: EncodingCounts) -> str:
    """Say it in one line: every row given is encoded or counted under the reason it was dropped for."""
    dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.dropped.items())) or "none"
    share = counts.supervised_tokens / max(counts.total_tokens, 1)
    return (
        f"{counts.given} rows = {counts.encoded} encoded + {sum(counts.dropped.values())} dropped ({dropped}); "
        f"{counts.truncated} truncated; {counts.total_tokens:,} tokens, {counts.supervised_tokens:,} supervised "
        f"({share:.0%}); the longest row has {counts.longest}"
    )


def make_trainer(
    model: PeftModel, rows: SFTRows, config: SFTConfig, arguments: dict[str, Any], meter: StepMeter
) -> SFTTrainer:
    """Build the trainer over the whole run's rows, in their order."""
    switch_telemetry_off()
    align_special_tokens(model, rows.chat.tokenizer)
    order = training_order(
        [len(row.input_ids) for row in rows.train],
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        group_by_length=config.group_by_length,
        max_steps=config.max_steps,
    )
    with weights_as_they_are(model):
        trainer = SFTTrainer(
            model=model,
            args=trl.SFTConfig(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
            data_collator=CompletionCollator(rows.train, rows.chat.pad_id),
            train_dataset=order_dataset(order),
            processing_class=rows.chat.tokenizer,
        )
    trainer.model_accepts_loss_kwargs = True  # so that it counts supervised tokens, whatever the model's signature
    trainer.meter = meter
    return trainer


def validation_loss(policy: torch.nn.Module, rows: Sequence[Encoded], batch_size: int) -> float:
    """Mean negative log-likelihood over all supervised tokens of the validation rows, in nats."""
    scores = score(policy, rows, batch_size)
    return -sum(row.nats for row in scores) / sum(row.tokens for row in scores)
