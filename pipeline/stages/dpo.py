"""Direct preference optimisation: a policy moves towards what was preferred and stays near where it began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import torch
import trl
from peft import PeftModel
from torch import Tensor

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.dpo import DPOConfig, WatchConfig
from pipeline.config.preference import uses_reference
from pipeline.data.pairs import Pair
from pipeline.models.loading import weights_as_they_are
from pipeline.models.roles import switch_dropout_off
from pipeline.stages.arguments import TRL_REFERENCE, align_special_tokens, quiet_progress, switch_telemetry_off
from pipeline.stages.batches import order_dataset
from pipeline.stages.course import Milestones
from pipeline.stages.finite import StepMeter
from pipeline.stages.pairs import PairCollator, PairRows, load_pairs, pair_order
from pipeline.stages.policies import initial_policy, seal_policy
from pipeline.stages.preference import Objective, policy_pairs, validate
from pipeline.stages.reference import SECTION, SIDES, ReferenceLogprobs, require_same_policy, take_reference
from pipeline.stages.training import Training, begin_training, train
from pipeline.stages.watchdogs import WATCHED, Watchdogs, learned_measures, warnings, written_length
from pipeline.tracking.job import StageJob


class DPOTrainer(trl.DPOTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's loop with our scoring and losses; the reference is a table of log-probabilities.

    Only ``compute_loss`` is overridden. `tests/numerics/test_preference_parity.py` holds it against TRL's own.
    """

    loss_is_scaled_for_ga = True  # each microbatch is divided by the pairs of the whole optimizer step
    meter: StepMeter
    objective: Objective
    reference: Tensor | None  # [N, 2] by row number

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
        numbers = inputs["row_numbers"]
        pairs = policy_pairs(model, inputs, None if self.reference is None else self.reference[numbers])
        loss = self.objective.losses(pairs, inputs["confidence"], inputs["tie"]).sum() / int(num_items_in_batch)
        rows = [self.data_collator.pairs[number] for number in numbers]
        self.meter.add(
            loss=loss,
            rows=[row.id for row in rows],
            processed=sum(row.num_tokens for row in rows),
            supervised=sum(row.chosen.num_supervised + row.rejected.num_supervised for row in rows),
            extras=self.objective.measures(pairs, inputs["confidence"]),
        )
        return loss


def train_dpo(job: StageJob) -> StageOutcome:
    """Fit a policy to comparisons and seal the checkpoint with the lowest validation loss.

    Given a policy, its adapter is trained on and its log-probabilities before training are the reference; without one
    the reference is the base. The first loss is that of log-ratios of zero, log 2 for the sigmoid.
    """
    config = job.section(DPOConfig)
    rows = load_pairs(job, section=SECTION, folds=config.folds, max_length=config.max_length)
    reference = find_reference(job, config, rows)
    training = begin_training(job, config, section=SECTION)
    model = initial_policy(job, config, training.dtype)
    switch_dropout_off(model)
    if reference is not None and training.attempt.checkpoint is None:
        first = rows.train[: config.microbatch_size]
        largest = require_same_policy(model, first, reference.train, training.dtype, section=SECTION)
        job.run.notice(f"policy and reference agree to {largest:.1e} nats per token before the first step")
    objective = Objective(config=config)
    sums = None if reference is None else reference.validation
    milestones = train(
        training,
        lambda arguments, meter: make_trainer(model, rows, config, arguments, meter, reference),
        num_rows=len(rows.train),
        has_validation=bool(rows.validation),
        measure=lambda policy: {
            **validate(policy, objective, rows.validation, sums, config.microbatch_size),
            **written_length(policy, rows.chat, first_prompts(rows.validation, config.watch), config.watch, job.run),
        },
        watchers=[
            lambda meter, course: Watchdogs(
                meter, course, job.run, config.watch, WATCHED, lambda sight: warnings(sight, config)
            )
        ],
    )
    return finish(training, model, rows, milestones)


def find_reference(job: StageJob, config: DPOConfig, rows: PairRows) -> ReferenceLogprobs | None:
    """Read the reference's log-probabilities, or nothing for a loss that has no reference."""
    if not uses_reference(config.loss):
        return None
    return take_reference(job, rows.train, rows.validation, names=SIDES, section=SECTION)


def make_trainer(
    model: PeftModel,
    rows: PairRows,
    config: DPOConfig,
    arguments: dict[str, Any],
    meter: StepMeter,
    reference: ReferenceLogprobs | None,
) -> DPOTrainer:
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
    )
    with quiet_progress(), weights_as_they_are(model):
        trainer = DPOTrainer(
            model=model,
            args=trl.DPOConfig(**arguments, max_length=None),
            data_collator=PairCollator(rows.train, rows.chat.pad_id),
            # TRL tokenizes whatever it is given; our pairs are encoded already and take this row's place below.
            train_dataset=datasets.Dataset.from_dict({"prompt": ["Q:"], "chosen": [" a"], "rejected": [" b"]}),
            processing_class=rows.chat.tokenizer,
        )
    trainer.train_dataset = order_dataset(order)
    model.delete_adapter(TRL_REFERENCE)  # a copy of the policy in memory, which the table of log-probabilities replaces
    trainer.model_accepts_loss_kwargs = True  # so that it counts the pairs of a step, whatever the model's signature
    trainer.meter, trainer.objective = meter, Objective(config=config)
    trainer.reference = None if reference is None else reference.train
    return trainer


def first_prompts(pairs: Sequence[Pair], watch: WatchConfig) -> list[list[int]]:
    """Return the tokens of the first prompts, each once."""
    return list({pair.cluster: pair.chosen.prompt_ids for pair in pairs}.values())[: watch.num_prompts]


def finish(training: Training, model: PeftModel, rows: PairRows, milestones: Milestones) -> StageOutcome:
    """Seal the policy, what was measured on the validation pairs, and what the watchdogs told."""
    course = training.attempt.course
    measures = learned_measures(course)
    return seal_policy(
        training,
        model,
        milestones,
        rows={split: counts.as_dict() for split, counts in rows.counts.items()},
        metrics=lambda step: {
            "validation_accuracy_start": measures.get(0, {}).get("reward_accuracy"),
            "validation_accuracy": measures.get(step, {}).get("reward_accuracy"),
            "validation_margin": measures.get(step, {}).get("reward_margin"),
        },
        facts={"measures": [{"step": step, **values} for step, values in measures.items()]},
        warnings=course.warnings,
    )
