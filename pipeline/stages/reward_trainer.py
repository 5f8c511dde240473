"""How a reward model learns: TRL's loop with our loss over the pairs in their order, and scores of held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import datasets
import torch
import trl
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import softplus

from pipeline.config.reward import ConfidenceUse, RewardConfig, TieModel
from pipeline.data.pairs import Pair
from pipeline.losses.reward import (
    bradley_terry_loss,
    centring_loss,
    davidson_loss,
    rao_kupper_loss,
    smoothed,
)
from pipeline.models.loading import weights_as_they_are
from pipeline.models.lower_layers import LowerLayers
from pipeline.models.packing import can_pack
from pipeline.models.reward import ScoreHead, last_scores, packed_scores
from pipeline.stages.arguments import align_special_tokens, switch_telemetry_off
from pipeline.stages.batches import order_dataset
from pipeline.stages.finite import StepMeter
from pipeline.stages.pairs import PackedCollator, PairCollator, PairRows, pair_order


class RewardTrainer(trl.RewardTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's loop with our loss: scores in fp32 at each side's own last token, labels that can be soft.

    `tests/numerics/test_reward_parity.py` holds it against TRL's own.
    """

    loss_is_scaled_for_ga = True  # each microbatch is divided by the pairs of the whole optimizer step
    meter: StepMeter
    settings: RewardConfig
    lower: LowerLayers | None
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
        scores = batch_scores(model, head.score, inputs, self.lower)
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
                # Equal scores are half right; a pair that nobody decided has no right side.
                "accuracy": (difference.sign()[inputs["confidence"] > 0.5] + 1) / 2,
                "score_difference": difference,
                "score": (chosen + rejected) / 2,
            },
        )
        return loss


def batch_scores(model: nn.Module, head: ScoreHead, batch: dict[str, Any], lower: LowerLayers | None = None) -> Tensor:
    """Return ``[2B]`` raw scores, chosen sides first, of a batch of either collator."""
    if "segments" in batch:
        ids, positions, segments = batch["input_ids"], batch["position_ids"], batch["segments"]
        return packed_scores(model, head, ids, positions, segments, batch["last_index"], lower)
    return last_scores(model, head, batch["input_ids"], batch["attention_mask"], batch["last_index"])


class RewardHead(nn.Module):
    """What is trained beside the adapter: the score head, and the one number of a model of ties."""

    def __init__(self, hidden_size: int, ties: TieModel) -> None:
        """`tie` is the logarithm of Davidson's ``nu``, or what Rao and Kupper's threshold is the softplus of."""
        super().__init__()
        self.score = ScoreHead(hidden_size)
        self.ties, self.tie = ties, None if ties is TieModel.half else nn.Parameter(torch.zeros(()))

    def tie_value(self) -> Tensor | None:
        """Return ``nu`` or the threshold: what the model says of ties beside its scores."""
        if self.tie is None:
            return None
        return self.tie.exp() if self.ties is TieModel.davidson else softplus(self.tie)


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
    return likelihoods(difference, confidence, batch["tie"], batch["has_tie"], config.ties, tie)


def likelihoods(
    difference: Tensor, confidence: Tensor, tie: Tensor, has_tie: Tensor, ties: TieModel, raw_tie: Tensor | None
) -> Tensor:
    """Return ``[B]`` nats: negative log-likelihoods under the model of ties, of pairs that could not tie without one.

    Args:
        difference: ``[B]`` scores of chosen less those of rejected.
        confidence: ``[B]`` probabilities that chosen is better; half of ``tie`` is in it.
        tie: ``[B]`` probabilities that both are equally good, 0 where there is none.
        has_tie: ``[B]`` bool, whether a tie was a possible answer.
        ties: The model.
        raw_tie: `RewardHead.tie`.
    """
    plain = bradley_terry_loss(difference, confidence)
    if raw_tie is None:
        return plain
    with_ties = davidson_loss if ties is TieModel.davidson else rao_kupper_loss
    return torch.where(has_tie, with_ties(difference, confidence, tie, raw_tie), plain)


def make_trainer(
    model: PeftModel,
    rows: PairRows,
    config: RewardConfig,
    arguments: dict[str, Any],
    meter: StepMeter,
    lower: LowerLayers | None = None,
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
    with weights_as_they_are(model):
        trainer = RewardTrainer(
            model=model,
            args=trl.RewardConfig(**arguments, max_length=None),
            data_collator=collator(rows.train, rows.chat.pad_id),
            train_dataset=order_dataset(order),
            processing_class=rows.chat.tokenizer,
        )
    trainer.model_accepts_loss_kwargs = True  # so that it counts the pairs of a step, whatever the model's signature
    trainer.meter, trainer.settings, trainer.lower = meter, config, lower
    trainer.mean_weight = max(sum(2 * pair.confidence - 1 for pair in rows.train) / len(rows.train), 1e-6)
    return trainer


@torch.no_grad()
def validation_loss(model: PeftModel, pairs: Sequence[Pair], batch_size: int, lower: LowerLayers | None) -> float:
    """Mean negative log-likelihood of the soft labels of the validation pairs under the trained model, in nats."""
    head = cast("RewardHead", model.reward_head)
    chosen, rejected = pair_scores(model, pairs, batch_size, lower)
    confidence = torch.tensor([pair.confidence for pair in pairs], dtype=torch.float64)
    tie = torch.tensor([pair.tie or 0.0 for pair in pairs], dtype=torch.float64)
    has_tie = torch.tensor([pair.tie is not None for pair in pairs])
    raw_tie = None if head.tie is None else head.tie.cpu().double()
    return float(likelihoods(chosen - rejected, confidence, tie, has_tie, head.ties, raw_tie).mean())


@torch.no_grad()
def pair_scores(model: PeftModel, pairs: Sequence[Pair], batch_size: int, lower: LowerLayers | None) -> Tensor:
    """Return the raw scores ``[2, N]`` of the chosen and the rejected sides, in fp64, with the adapter that acts."""
    head = cast("RewardHead", model.reward_head)
    collator = (PackedCollator if can_pack(model) else PairCollator)(pairs, pad_id=0)
    device = next(model.parameters()).device
    order = sorted(range(len(pairs)), key=lambda number: (-pairs[number].num_packed, number))
    scores = torch.empty((2, len(pairs)), dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = collator([{"row": number} for number in numbers])
        moved = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
        scores[:, numbers] = batch_scores(model, head.score, moved, lower).view(2, -1).cpu().double()
    return scores
