"""Learning from completions that are good or bad by themselves: which rows, by which loss, and how they are weighed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.dpo import WatchConfig, fold_problems, preference_optimizer
from pipeline.config.fields import option
from pipeline.config.shared import OptimizerConfig
from pipeline.config.stages import TrainingConfig


class ThumbRows(StrEnum):
    """Which rows are learned from."""

    auto = "auto"  # completions with a label of their own where the data set has any, else the sides of comparisons
    unpaired = "unpaired"
    comparisons = "comparisons"  # chosen is good and rejected is bad, each with the comparison's confidence
    both = "both"


class ThumbLoss(StrEnum):
    """What a labelled completion costs; formulas in `pipeline/losses/unpaired.py`."""

    kto = "kto"  # against the mean log-ratio of unrelated completions
    apo_zero_unpaired = "apo_zero_unpaired"  # against zero: a good completion becomes likelier whatever others do


@dataclass(kw_only=True)
class KTOConfig(TrainingConfig):
    """Kahneman-Tversky optimisation (arXiv:2402.01306); a row is one completion."""

    optimizer: OptimizerConfig = option(factory=preference_optimizer)
    num_epochs: int = option(2, ge=1)
    batch_size: int = option(16, ge=2)  # completions per optimizer step; from one alone no mean can be estimated
    group_by_length: bool = False  # length often goes with the label, and every step shall see both labels
    rows: ThumbRows = ThumbRows.auto
    loss: ThumbLoss = ThumbLoss.kto
    beta: float = option(0.1, gt=0)  # strength of the pull towards the reference, per nat of the whole completion
    # Weights of good and bad completions. Null is n / (2 n_good) and n / (2 n_bad) of the train rows: both labels then
    # weigh the same together, and the mean weight is 1 (the paper's ratio between 1 and 4/3 at its lower end).
    desirable_weight: float | None = option(None, gt=0)
    undesirable_weight: float | None = option(None, gt=0)
    soft_labels: bool = True  # a label of confidence p costs p times its loss and 1 - p times that of the other label
    folds: list[int] = option(factory=list)  # of the comparisons; none named is what `reward.folds` comes to
    watch: WatchConfig = option(factory=WatchConfig)


def kto_problems(kto: KTOConfig) -> Iterator[str]:
    """Yield what is wrong with the values, one line each that begins with the key."""
    yield from fold_problems("kto", kto.folds)
    if kto.lora.dropout:
        yield "kto.lora.dropout: trained without dropout, so that policy and reference begin as the same."
