"""Hyperparameters of the reward model and of its audit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.fields import option
from pipeline.config.stages import TrainingConfig

NUM_FOLDS = 5  # that `curate` divides prompts into


class ConfidenceUse(StrEnum):
    """What the confidence of a comparison does to the loss."""

    label = "label"  # it is the probability that the model is asked for
    weight = "weight"  # the label is certain, and the pair counts by 2 * confidence - 1
    ignore = "ignore"  # the label is certain; a tie counts half


class TieModel(StrEnum):
    """How a comparison enters that could end in a tie."""

    half = "half"  # a tie is half a win for either side
    davidson = "davidson"  # an outcome of its own, with one more trained number (Davidson 1970)
    rao_kupper = "rao_kupper"  # a side wins that is better by more than a trained threshold (Rao and Kupper 1967)


@dataclass(kw_only=True)
class AuditConfig:
    """What the audit card measures, and from when on it fails a reward model."""

    confidence: float = option(0.95, gt=0.5, lt=1)  # of the intervals
    max_pairs: int = option(1000, ge=2)  # held-out pairs that are scored, the first by id hash
    num_samples: int = option(64, ge=2)  # of the starting policy, which fix mean and spread of the scores
    max_new_tokens: int = option(128, ge=1)  # of those samples
    max_calibration_error: float = option(0.1, gt=0, lt=1)  # after the temperature is fitted on validation pairs
    length_matched: float = option(0.1, ge=0)  # difference of lengths, as part of the longer one, that is no difference


@dataclass(kw_only=True)
class RewardConfig(TrainingConfig):
    """A Bradley-Terry reward model on comparisons; a row is a pair."""

    num_epochs: int = option(1, ge=1)  # reward models overfit in the second (arXiv:2203.02155, C.2)
    # Of the comparisons; what nodes learn from is part of their identity, so changing one moves no other.
    # None named is all of them, or where a gold judge is asked for those that it does not learn from.
    folds: list[int] = option(factory=list, affects_results=False)
    gold_folds: list[int] = option(factory=lambda: [3, 4], affects_results=False)  # of the gold judge
    confidence: ConfidenceUse = ConfidenceUse.label
    ties: TieModel = TieModel.half
    use_margin: bool = False  # the difference of scores must exceed the strength of the preference (arXiv:2307.09288)
    label_smoothing: float = option(0.0, ge=0, lt=0.5)  # share of labels that is taken for wrong
    centring_coef: float = option(0.01, ge=0)  # pulls the scores of a pair to opposite sides of zero
    # Only the adapters of so many last layers learn; what lies below them is computed once per pair and kept in memory.
    upper_layers: int | None = option(None, ge=1)
    num_members: int = option(1, ge=1, le=16)  # an ensemble: adapters with seeds of their own
    bootstrap: bool = True  # each member of an ensemble draws train pairs of its own; else they differ by seed alone
    audit: AuditConfig = option(factory=AuditConfig)


def reward_problems(reward: RewardConfig, *, gold: bool) -> Iterator[str]:
    """Yield what is wrong with the values, one line each that begins with the key.

    Args:
        reward: The section.
        gold: Whether a gold judge is trained as well.
    """
    for key in ("folds", "gold_folds") if gold else ("folds",):
        folds = getattr(reward, key)
        if not folds or len(set(folds)) < len(folds) or not set(folds) <= set(range(NUM_FOLDS)):
            yield f"reward.{key}={folds}: name some of the folds 0 to {NUM_FOLDS - 1}, each once."
    if gold and set(reward.folds) & set(reward.gold_folds):
        yield "reward.gold_folds: a gold judge must learn from other folds than `reward.folds`."
    if reward.lora.dropout:
        yield "reward.lora.dropout: a reward model is trained without dropout, so that it scores as it was trained."
    if reward.use_margin and reward.ties is not TieModel.half:
        yield f"reward.use_margin: a margin has no meaning in a model of ties; set reward.ties={TieModel.half.value}."
    if reward.confidence is not ConfidenceUse.label and reward.ties is not TieModel.half:
        yield f"reward.confidence={reward.confidence.value}: a model of ties reads it as the label."
