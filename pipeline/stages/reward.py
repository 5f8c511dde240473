"""Reward model: a LoRA adapter and a score head learn which of two completions people prefer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.reward import RewardConfig
from pipeline.config.shared import ModelConfig
from pipeline.evaluation.reward_card import AUDIT_FILE
from pipeline.models.head import underlying_model
from pipeline.models.loading import ADAPTER_FOLDER, add_lora, load_base, load_policy, save_adapter
from pipeline.models.lower_layers import LowerLayers
from pipeline.models.reward import (
    RewardFacts,
    load_reward,
    member_folders,
    raw_scores,
    reward_digest,
    save_head,
)
from pipeline.models.roles import switch_dropout_off
from pipeline.stages.audit import Audited, audit
from pipeline.stages.course import Milestones
from pipeline.stages.members import member_config, member_job, member_rows
from pipeline.stages.pairs import PairRows, load_pairs
from pipeline.stages.reward_trainer import RewardHead, make_trainer, validation_loss
from pipeline.stages.training import Training, begin_training, course_metrics, load_chosen, train
from pipeline.tracking.job import StageJob

SECTION = "reward"
NUM_PROBES = 8  # rows that are scored before and after saving


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One member after its training, with the chosen checkpoint loaded."""

    model: PeftModel
    training: Training
    milestones: Milestones
    step: int  # of the chosen checkpoint


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One member whose files are in the staging folder."""

    fitted: Fitted
    base: PreTrainedModel  # without the adapter again
    probes: Tensor  # raw scores of a few rows, as they were before saving


def train_reward(job: StageJob) -> StageOutcome:
    """Fit a reward model to the train comparisons of its folds, audit it, and seal it with the audit card.

    Given a policy, every member starts from its adapter, whose shape it keeps; else from a new one (`reward.lora`).
    """
    config = replace(job.section(RewardConfig), folds=list(job.params["folds"]))
    rows = load_pairs(job, section=SECTION, folds=config.folds, max_length=config.max_length)
    base: PreTrainedModel | None = None
    lower = None if config.upper_layers is None else LowerLayers(config.upper_layers)
    members: list[Trained] = []
    for number, folder in enumerate(member_folders(job.staging, config.num_members)):
        members.append(train_member(job, base, rows, config, number, folder, lower))
        base = members[-1].base
        job.work.remember("dtype", members[-1].fitted.training.dtype.value)
    count = config.num_members
    facts = RewardFacts(
        tail_ids=rows.chat.end_of_turn_ids, stop_ids=rows.chat.stop_ids, means=(0.0,) * count, stds=(1.0,) * count,
        temperature=1.0, folds=tuple(config.folds),
    )  # fmt: skip
    facts.write(job.staging)
    reward = load_reward(members[-1].base, job.staging)
    after = reward.score(_probe_rows(rows), config.microbatch_size).members
    reloaded = float((after - torch.stack([member.probes for member in members])).abs().max())
    audited = audit(job, reward, rows, config, members[0].fitted.training.dtype, reloaded)
    return finish(job, members, audited, rows)


def train_member(
    job: StageJob,
    base: PreTrainedModel | None,
    rows: PairRows,
    config: RewardConfig,
    number: int,
    folder: Path,
    lower: LowerLayers | None,
) -> Trained:
    """Train one member on its own draw of the pairs and write its adapter and head into ``folder``."""
    fitted = fit_member(job, base, rows, config, number, lower)
    model = fitted.model
    head = cast("RewardHead", model.reward_head)
    save_adapter(model, folder / ADAPTER_FOLDER)
    save_head(head.score, folder, head.tie_value())
    probes = raw_scores(model, head.score, _probe_rows(rows), config.microbatch_size)
    return Trained(fitted=fitted, base=model.unload(), probes=probes)


def fit_member(
    job: StageJob,
    base: PreTrainedModel | None,
    rows: PairRows,
    config: RewardConfig,
    number: int,
    lower: LowerLayers | None,
) -> Fitted:
    """Train one member and load the checkpoint that was chosen.

    What lies below the layers that learn is the same for all members, and so is what ``lower`` keeps of it.
    """
    own, drawn = member_config(config, number), member_rows(rows, config, number)
    training = begin_training(member_job(job, rows, config, number), own, section=SECTION)
    if base is None:
        base = load_base(job.base, job.section(ModelConfig), job.runtime, training.dtype)
    model = initial_model(job, base, own)
    if lower is not None:
        lower.freeze(model)
    milestones = train(
        training,
        lambda arguments, meter: make_trainer(model, drawn, own, arguments, meter, lower),
        num_rows=len(drawn.train),
        has_validation=bool(rows.validation),
        measure=lambda trained: {"loss": validation_loss(trained, rows.validation, own.microbatch_size, lower)},
    )
    step = load_chosen(training.attempt, model, keep_best=config.keep_best)
    return Fitted(model=model, training=training, milestones=milestones, step=step)


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


def finish(job: StageJob, members: Sequence[Trained], audited: Audited, rows: PairRows) -> StageOutcome:
    """Write facts, audit card and the course of the training into the staging folder."""
    card, facts, dtype = audited.card, audited.reward.facts, members[0].fitted.training.dtype.value
    facts.write(job.staging)
    for gate in card.gates:
        job.run.notice(f"{gate['outcome']} {gate['name']}: {gate['reason']}")
    fitted = [one.fitted for one in members]
    courses = [{"best_step": one.step, **course_metrics(one.training.attempt, one.step)} for one in fitted]
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
        "planned_steps": fitted[0].milestones.num_steps,
        "rows": {split: count.as_dict() for split, count in counts.items()},
        "validations": [one.training.attempt.course.validations for one in fitted],
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
