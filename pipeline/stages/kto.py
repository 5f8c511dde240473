"""Kahneman-Tversky optimisation: good completions become likelier than unrelated ones do, and bad ones less likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import torch
import trl
from peft import PeftModel
from torch import Tensor

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.dpo import WatchConfig
from pipeline.config.kto import KTOConfig, ThumbLoss
from pipeline.data.thumbs import Thumb
from pipeline.models.loading import weights_as_they_are
from pipeline.models.roles import switch_dropout_off
from pipeline.models.scoring import score
from pipeline.stages.arguments import TRL_REFERENCE, align_special_tokens, quiet_progress, switch_telemetry_off
from pipeline.stages.batches import order_dataset
from pipeline.stages.finite import StepMeter
from pipeline.stages.order import training_order
from pipeline.stages.policies import initial_policy, seal_policy
from pipeline.stages.preference import summed_logprobs
from pipeline.stages.reference import ReferenceLogprobs, require_same_policy, take_reference
from pipeline.stages.thumb_objective import WATCHED, ThumbObjective, validate, warnings
from pipeline.stages.thumbs import SECTION, SIDES, ThumbCollator, ThumbTables, label_weights, load_thumbs
from pipeline.stages.training import begin_training, train
from pipeline.stages.watchdogs import Watchdogs, learned_measures, written_length
from pipeline.tracking.job import StageJob


class Baseline:
    """The mean log-ratio of unrelated completions, over all rows of an optimizer step and before it is made.

    TRL estimates it in every microbatch, so that it gets noisier the more a step is cut up, and in a microbatch of one
    row it is that row's own. Here it does not depend on how a step is cut.
    """

    def __init__(
        self, thumbs: Sequence[Thumb], reference: Tensor, order: Sequence[int], batch_size: int, microbatch_size: int
    ) -> None:
        """Nothing is scored yet.

        Args:
            thumbs: Train rows.
            reference: ``[N]``, of their unrelated completions.
            order: Row numbers of the whole run.
            batch_size: Rows of a step.
            microbatch_size: Rows that are scored at a time.
        """
        self._thumbs, self._reference, self._order = thumbs, reference, order
        self._batch_size, self._microbatch_size = batch_size, microbatch_size
        self._step, self._mean = -1, 0.0

    def before(self, step: int, policy: torch.nn.Module) -> float:
        """Return the mean in nats per completion; ``step`` counts the optimizer steps that are done."""
        if step != self._step:
            numbers = self._order[step * self._batch_size : (step + 1) * self._batch_size]
            scores = score(policy, [self._thumbs[number].mismatched for number in numbers], self._microbatch_size)
            own = torch.tensor([row.nats for row in scores], dtype=torch.float64)
            self._step, self._mean = step, (own - self._reference[numbers]).mean().item()
        return self._mean


class KTOTrainer(trl.KTOTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's loop with our scoring and losses; the reference is a table of log-probabilities.

    Only ``compute_loss`` is overridden. `tests/numerics/test_kto_parity.py` holds it against TRL's own.
    """

    loss_is_scaled_for_ga = True  # each microbatch is divided by the rows of the whole optimizer step
    meter: StepMeter
    objective: ThumbObjective
    reference: Tensor  # [N] by row number, of the completions themselves
    baseline: Baseline | None  # None for a loss that has none

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
        numbers, label = inputs["row_numbers"], inputs["label"]
        drift = None if self.baseline is None else self.baseline.before(self.state.global_step, model)
        sums = summed_logprobs(model, inputs)
        log_ratio = sums - self.reference[numbers].to(sums)
        loss = self.objective.losses(log_ratio, label, inputs["confidence"], drift).sum() / int(num_items_in_batch)
        rows = [self.data_collator.thumbs[number] for number in numbers]
        lengths = inputs["completion_mask"].sum(dim=1)
        self.meter.add(
            loss=loss,
            rows=[row.id for row in rows],
            processed=sum(len(row.own.input_ids) if drift is None else row.num_tokens for row in rows),
            supervised=sum(row.own.num_supervised for row in rows),
            extras=self.objective.measures(log_ratio, sums, lengths, label, inputs["confidence"], drift),
        )
        return loss


def train_kto(job: StageJob) -> StageOutcome:
    """Fit a policy to labelled completions and seal the checkpoint with the lowest validation loss.

    Given a policy, its adapter is trained on and its log-probabilities before training are the reference; without one
    the reference is the base. The first loss is half of what a row weighs on average: 0.5 with balanced weights.
    """
    config = job.section(KTOConfig)
    rows = load_thumbs(job, rows=config.rows, folds=config.folds, max_length=config.max_length)
    reference = take_reference(job, rows.train, rows.validation, names=SIDES, section=SECTION)
    objective = ThumbObjective(config=config, weights=label_weights(config, rows.counts["train"]))
    weights = objective.weights
    job.run.notice(f"a good completion weighs {weights.desirable:.4g}, a bad one {weights.undesirable:.4g}")
    training = begin_training(job, config, section=SECTION)
    model = initial_policy(job, config, training.dtype)
    switch_dropout_off(model)
    if training.attempt.checkpoint is None:
        first = rows.train[: config.microbatch_size]
        largest = require_same_policy(model, first, reference.train, training.dtype, section=SECTION)
        job.run.notice(f"policy and reference agree to {largest:.1e} nats per token before the first step")
    prompts = first_prompts(rows.validation, config.watch)
    milestones = train(
        training,
        lambda arguments, meter: make_trainer(model, rows, objective, arguments, meter, reference),
        num_rows=len(rows.train),
        has_validation=bool(rows.validation),
        measure=lambda policy: {
            **validate(policy, objective, rows.validation, reference.validation, config.microbatch_size),
            **written_length(policy, rows.chat, prompts, config.watch, job.run),
        },
        watchers=[
            lambda meter, course: Watchdogs(
                meter, course, job.run, config.watch, WATCHED, lambda sight: warnings(sight, objective)
            )
        ],
    )
    course = training.attempt.course
    measures = learned_measures(course)
    return seal_policy(
        training,
        model,
        milestones,
        rows={split: counts.as_dict() for split, counts in rows.counts.items()},
        metrics=lambda step: {
            "validation_accuracy_start": measures.get(0, {}).get("label_accuracy"),
            "validation_accuracy": measures.get(step, {}).get("label_accuracy"),
            "validation_drift": measures.get(step, {}).get("drift"),
        },
        facts={
            "measures": [{"step": step, **values} for step, values in measures.items()],
            "weights": {"desirable": weights.desirable, "undesirable": weights.undesirable},
        },
        warnings=course.warnings,
    )


def make_trainer(
    model: PeftModel,
    rows: ThumbTables,
    objective: ThumbObjective,
    arguments: dict[str, Any],
    meter: StepMeter,
    reference: ReferenceLogprobs,
) -> KTOTrainer:
    """Build the trainer over the whole run's rows, shuffled: TRL's own takes them as they stand."""
    config = objective.config
    switch_telemetry_off()
    align_special_tokens(model, rows.chat.tokenizer)
    order = training_order(
        [len(thumb.own.input_ids) for thumb in rows.train],
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        group_by_length=config.group_by_length,
        max_steps=config.max_steps,
    )
    with quiet_progress(), weights_as_they_are(model):
        trainer = KTOTrainer(
            model=model,
            # With this loss TRL makes no unrelated completions of its own and takes microbatches of one row. Which
            # loss is computed, `objective` says.
            args=trl.KTOConfig(**arguments, max_length=None, loss_type=ThumbLoss.apo_zero_unpaired.value),
            data_collator=ThumbCollator(rows.train, rows.chat.pad_id),
            # TRL tokenizes whatever it is given; our rows are encoded already and take this row's place below.
            train_dataset=datasets.Dataset.from_dict({"prompt": ["Q:"], "completion": [" a"], "label": [True]}),
            processing_class=rows.chat.tokenizer,
        )
    trainer.train_dataset = order_dataset(order)
    model.delete_adapter(TRL_REFERENCE)  # a copy of the policy in memory, which the table of log-probabilities replaces
    trainer.model_accepts_loss_kwargs = True  # so that it counts the rows of a step, whatever the model's signature
    trainer.meter, trainer.objective, trainer.reference = meter, objective, reference.train[:, 0]
    trainer.baseline = None
    if config.loss is ThumbLoss.kto:
        unrelated = reference.train[:, 1]
        trainer.baseline = Baseline(rows.train, unrelated, order, config.batch_size, config.microbatch_size)
    return trainer


def first_prompts(thumbs: Sequence[Thumb], watch: WatchConfig) -> list[list[int]]:
    """Return the tokens of the first prompts, each once."""
    return list({thumb.cluster: thumb.own.prompt_ids for thumb in thumbs}.values())[: watch.num_prompts]
