"""Reward model: a LoRA adapter and a score head learn which of two completions people prefer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import datasets
import torch
import trl
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.reward import ConfidenceUse, RewardConfig, TieModel
from pipeline.config.shared import ModelConfig
from pipeline.data.pairs import Pair
from pipeline.evaluation.reward_card import AUDIT_FILE
from pipeline.losses.reward import (
    bradley_terry_loss,
    centring_loss,
    davidson_loss,
    rao_kupper_loss,
    smoothed,
)
from pipeline.models.head import underlying_model
from pipeline.models.loading import ADAPTER_FOLDER, add_lora, load_base, load_policy, save_adapter
from pipeline.models.packing import can_pack
from pipeline.models.reward import (
    RewardFacts,
    ScoreHead,
    last_scores,
    load_reward,
    member_folders,
    packed_scores,
    raw_scores,
    reward_digest,
    save_head,
)
from pipeline.models.roles import switch_dropout_off
from pipeline.stages.arguments import align_special_tokens, switch_telemetry_off
from pipeline.stages.audit import Audited, audit
from pipeline.stages.batches import order_dataset
from pipeline.stages.course import Milestones
from pipeline.stages.finite import StepMeter
from pipeline.stages.members import member_config, member_job, member_rows
from pipeline.stages.pairs import PackedCollator, PairCollator, PairRows, load_pairs, pair_order
from pipeline.stages.training import Training, begin_training, course_metrics, load_chosen, train
from pipeline.tracking.job import StageJob

SECTION = "reward"
NUM_PROBES = 8  # rows that are scored before and after saving


class RewardTrainer(trl.RewardTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's loop with our loss: scores in fp32 at each side's own last token, labels that can be soft.

    `tests/numerics/test_reward_parity.py` holds it against TRL's own.
    """

    loss_is_scaled_for_ga = True  # each microbatch is divided by the pairs of the whole optimizer step
    meter: StepMeter
    settings: RewardConfig
    mean_weight: float  # of the train pairs

    def _prepare_dataset(self, dataset: datasets.Dataset, *_: Any) -> datasets.Dataset:
        return dataset  # pair numbers; the collator holds the tokens

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the part of the optimizer step's mean loss that this microbatch contributes."""
        if return_outputs or num_items_in_batch is None:
            raise ValueError("the loss is computed in training only; validation has a function of its own")
        head = cast("RewardHead", model.reward_head)
        scores = batch_scores(model, head.score, inputs)
        chosen, rejected = scores.chunk(2)
        losses = pair_losses(chosen, rejected, inputs, self.settings, head.tie)
        if self.settings.confidence is ConfidenceUse.weight:
            losses = losses * (2 * inputs["confidence"] - 1) / self.mean_weight
        loss = (losses + self.settings.centring_coef * centring_loss(chosen, rejected)).sum() / int(num_items_in_batch)
        pairs = [self.data_collator.pairs[number] for number in inputs["row_numbers"]]
        difference = chosen - rejected
        self.meter.add(
            loss=loss,
            rows=[pair.id for pair in pairs],
            processed=sum(pair.num_tokens for pair in pairs),
            supervised=sum(pair.chosen.num_supervised + pair.rejected.num_supervised for pair in pairs),
            extras={
                "accuracy": (difference.sign() + 1) / 2,  # equal scores are half right
                "score_difference": difference,
                "score": (chosen + rejected) / 2,
            },
        )
        return loss


def batch_scores(model: nn.Module, head: ScoreHead, batch: dict[str, Any]) -> Tensor:
    """Return ``[2B]`` raw scores, chosen sides first, of a batch of either collator."""
    if "segments" in batch:
        names = ("input_ids", "position_ids", "segments", "last_index")
        return packed_scores(model, head, *(batch[name] for name in names))
    return last_scores(model, head, batch["input_ids"], batch["attention_mask"], batch["last_index"])


class RewardHead(nn.Module):
    """What is trained beside the adapter: the score head, and the one number of a model of ties."""

    def __init__(self, hidden_size: int, ties: TieModel) -> None:
        """`tie` is the logarithm of Davidson's ``nu``, or what Rao and Kupper's threshold is the softplus of."""
        super().__init__()
        self.score = ScoreHead(hidden_size)
        self.tie = None if ties is TieModel.half else nn.Parameter(torch.zeros(()))


def pair_losses(
    chosen: Tensor, rejected: Tensor, batch: dict[str, Tensor], config: RewardConfig, tie: Tensor | None
) -> Tensor:
    """Return ``[B]`` nats: the negative log-likelihood of each pair's label, without weight and centring."""
    difference = chosen - rejected
    if config.use_margin:
        difference = difference - batch["margin"]
    confidence = batch["confidence"]
    if config.confidence is not ConfidenceUse.label:
        confidence = (confidence > 0.5).float() + 0.5 * (confidence == 0.5).float()
    confidence = smoothed(confidence, config.label_smoothing)
    plain = bradley_terry_loss(difference, confidence)
    if tie is None:
        return plain
    with_ties = davidson_loss if config.ties is TieModel.davidson else rao_kupper_loss
    return torch.where(batch["has_tie"], with_ties(difference, confidence, batch["tie"], tie), plain)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One member after its training: its files are in the staging folder."""

    training: Training
    milestones: Milestones
    step: int  # of the chosen checkpoint
    base: PreTrainedModel  # without the adapter again
    probes: Tensor  # raw scores of a few rows, as they were before saving


def train_reward(job: StageJob) -> StageOutcome:
    """Fit a reward model to the train comparisons of its folds, audit it, and seal it with the audit card.

    Given a policy, every member starts from its adapter, whose shape it keeps; else from a new one (`reward.lora`).
    """
    config = replace(job.section(RewardConfig), folds=list(job.params["folds"]))
    rows = load_pairs(job, section=SECTION, folds=config.folds, max_length=config.max_length)
    base: PreTrainedModel | None = None
    members: list[Trained] = []
    for number, folder in enumerate(member_folders(job.staging, config.num_members)):
        members.append(train_member(job, base, rows, config, number, folder))
        base = members[-1].base
        job.work.remember("dtype", members[-1].training.dtype.value)
    count = config.num_members
    facts = RewardFacts(
        tail_ids=rows.chat.end_of_turn_ids, stop_ids=rows.chat.stop_ids, means=(0.0,) * count, stds=(1.0,) * count,
        temperature=1.0, folds=tuple(config.folds),
    )  # fmt: skip
    facts.write(job.staging)
    reward = load_reward(members[-1].base, job.staging)
    after = reward.score(_probe_rows(rows), config.microbatch_size).members
    reloaded = float((after - torch.stack([member.probes for member in members])).abs().max())
    audited = audit(job, reward, rows, config, members[0].training.dtype, reloaded)
    return finish(job, members, audited, rows)


def train_member(
    job: StageJob, base: PreTrainedModel | None, rows: PairRows, config: RewardConfig, number: int, folder: Path
) -> Trained:
    """Train one member on its own draw of the pairs and write its adapter and head into ``folder``."""
    own, drawn = member_config(config, number), member_rows(rows, config, number)
    training = begin_training(member_job(job, rows, config, number), own, section=SECTION)
    if base is None:
        base = load_base(job.base, job.section(ModelConfig), job.runtime, training.dtype)
    model = initial_model(job, base, own)
    milestones = train(
        training,
        lambda arguments, meter: make_trainer(model, drawn, own, arguments, meter),
        num_rows=len(drawn.train),
        has_validation=bool(rows.validation),
        measure=lambda trained: {"loss": validation_loss(trained, rows.validation, own.microbatch_size)},
    )
    step = load_chosen(training.attempt, model, keep_best=config.keep_best)
    head = cast("RewardHead", model.reward_head)
    save_adapter(model, folder / ADAPTER_FOLDER)
    save_head(head.score, folder)
    probes = raw_scores(model, head.score, _probe_rows(rows), config.microbatch_size)
    return Trained(training=training, milestones=milestones, step=step, base=model.unload(), probes=probes)


def _probe_rows(rows: PairRows) -> list[list[int]]:
    return [pair.chosen.input_ids for pair in rows.train[:NUM_PROBES]]


def initial_model(job: StageJob, base: PreTrainedModel, config: RewardConfig) -> PeftModel:
    """Return the given policy's adapter, or a new one, with a head that says zero, and no dropout anywhere."""
    given = job.one("policy")
    model = add_lora(base, config.lora, config.seed) if given is None else load_policy(base, given, trainable=True)
    # A sealed adapter names its base without a path, and peft asks the hub about such a name at every save.
    model.active_peft_config.base_model_name_or_path = str(job.base.folder)
    switch_dropout_off(model)
    causal = underlying_model(model)
    head = RewardHead(causal.config.get_text_config().hidden_size, config.ties)
    model.reward_head = head.to(next(model.parameters()).device)
    causal.config.num_labels = 1  # what TRL asks of a model that scores
    return model


def make_trainer(
    model: PeftModel, rows: PairRows, config: RewardConfig, arguments: dict[str, Any], meter: StepMeter
) -> RewardTrainer:
    """Build the trainer over the whole run's pairs, in their order."""
    switch_telemetry_off()
    align_special_tokens(model, rows.chat.tokenizer)
    order = pair_order(
        rows.train,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        group_by_length=config.group_by_length,
        max_steps=config.max_steps,
        packed=can_pack(model),
    )
    collator = PackedCollator if can_pack(model) else PairCollator
    trainer = RewardTrainer(
        model=model,
        args=trl.RewardConfig(**arguments, max_length=None),
        data_collator=collator(rows.train, rows.chat.pad_id),
        train_dataset=order_dataset(order),
        processing_class=rows.chat.tokenizer,
    )
    trainer.model_accepts_loss_kwargs = True  # so that it counts the pairs of a step, whatever the model's signature
    trainer.meter, trainer.settings = meter, config
    trainer.mean_weight = max(sum(2 * pair.confidence - 1 for pair in rows.train) / len(rows.train), 1e-6)
    return trainer


def validation_loss(model: PeftModel, pairs: Sequence[Pair], batch_size: int) -> float:
    """Mean negative log-likelihood of the soft labels of the validation pairs under Bradley-Terry, in nats."""
    head = cast("RewardHead", model.reward_head)
    collator = (PackedCollator if can_pack(model) else PairCollator)(pairs, pad_id=0)
    device = next(model.parameters()).device
    order = sorted(range(len(pairs)), key=lambda number: (-pairs[number].num_packed, number))
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            batch = collator([{"row": number} for number in order[start : start + batch_size]])
            moved = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
            chosen, rejected = batch_scores(model, head.score, moved).chunk(2)
            total += float(bradley_terry_loss(chosen - rejected, moved["confidence"]).double().sum())
    return total / len(pairs)


def finish(job: StageJob, members: Sequence[Trained], audited: Audited, rows: PairRows) -> StageOutcome:
    """Write facts, audit card and the course of the training into the staging folder."""
    card, facts, dtype = audited.card, audited.reward.facts, members[0].training.dtype.value
    facts.write(job.staging)
    for gate in card.gates:
        job.run.notice(f"{gate['outcome']} {gate['name']}: {gate['reason']}")
    courses = [{"best_step": one.step, **course_metrics(one.training.attempt, one.step)} for one in members]
    metrics = {
        **courses[0],
        "accuracy": card.values["accuracy"]["estimate"],
        "calibration_error": card.values["calibration"]["ece"]["estimate"],
        "temperature": facts.temperature,
    }
    for name in ("processed_tokens", "supervised_tokens", "skipped_steps"):  # of the whole ensemble
        metrics[name] = sum(course[name] for course in courses)
    counts = {**rows.counts, "test": audited.counts} if audited.counts is not rows.counts["validation"] else rows.counts
    content = {
        **metrics,
        "planned_steps": members[0].milestones.num_steps,
        "rows": {split: count.as_dict() for split, count in counts.items()},
        "validations": [one.training.attempt.course.validations for one in members],
        "members": courses,
        "folds": list(facts.folds),
        "dtype": dtype,
    }
    write_durably(job.staging / "training.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    write_durably(job.staging / AUDIT_FILE, json.dumps(card.values, indent=1, sort_keys=True) + "\n")
    return StageOutcome(
        parts={"reward": reward_digest(job.staging), "audit": sha256_file(job.staging / AUDIT_FILE)},
        metrics=metrics,
        resolved={"dtype": dtype},
        gates=card.gates,
    )
