"""Direct preference optimisation: what it learns from, by which loss, and when its course looks wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.fields import option
from pipeline.config.preference import LOSSES, loss_problems, loss_terms
from pipeline.config.shared import OptimizerConfig
from pipeline.config.stages import TrainingConfig

NUM_FOLDS = 5  # of the comparisons, by prompt; `curate` sets them
SETTINGS = ("label_smoothing", "tie_threshold", "target_margin")  # keys that some losses read and others do not


@dataclass(kw_only=True)
class WatchConfig:
    """From when on the course of a run looks wrong. A warning names the likely cause and ends nothing; null is off."""

    # Optimizer steps whose mean is looked at, a quarter of the run at most.
    window: int = option(20, ge=1, affects_results=False)
    # Nats per token by which the chosen completions become less likely than under the reference, or than before
    # training where the loss has none.
    chosen_drop: float | None = option(0.25, gt=0, affects_results=False)
    max_margin: float | None = option(10.0, gt=0, affects_results=False)  # of implicit rewards, in units of the loss
    # Share of the run after which a loss that is still at log 2 is stuck there, and how near to it counts as at it (for
    # weights that add up to 1).
    stuck_after: float | None = option(0.5, gt=0, lt=1, affects_results=False)
    stuck_tolerance: float = option(0.01, gt=0, affects_results=False)
    # Length of what the policy itself writes, over that before training, or the inverse where it gets shorter.
    length_ratio: float | None = option(1.5, gt=1, affects_results=False)
    num_prompts: int = option(8, ge=1, affects_results=False)  # validation prompts that are answered for it
    max_new_tokens: int = option(128, ge=1, affects_results=False)


def preference_optimizer() -> OptimizerConfig:
    """Return what preference losses are trained with: a smaller step than demonstrations take."""
    return OptimizerConfig(learning_rate=5e-5, warmup_fraction=0.1)


@dataclass(kw_only=True)
class DPOConfig(TrainingConfig):
    """Direct preference optimisation (arXiv:2305.18290) and the losses that followed it; a row is a pair."""

    optimizer: OptimizerConfig = option(factory=preference_optimizer)
    num_epochs: int = option(2, ge=1)
    loss: Any = "sigmoid"  # a loss by name, or a mix with weights such as {sigmoid: 1, sft: 0.2}
    beta: float | None = option(None, gt=0)  # its meaning differs by loss, and so does the default: docs/preference.md
    label_smoothing: float | None = option(None, gt=0, lt=0.5)  # cdpo, robust, exo_pair: share of wrong labels
    tie_threshold: float | None = option(None, gt=0)  # rao_kupper: half the width of a tie, in implicit reward
    target_margin: float | None = option(None, ge=0)  # simpo: gamma
    soft_labels: bool = True  # a preference with confidence p costs p times the loss and 1 - p times that of the swap
    folds: list[int] = option(factory=list)  # of the comparisons; none named is what `reward.folds` comes to
    watch: WatchConfig = option(factory=WatchConfig)


def loss_settings(dpo: DPOConfig) -> dict[str, float]:
    """Return the keys beside `beta` that were set."""
    values: Mapping[str, float | None] = {key: getattr(dpo, key) for key in SETTINGS}
    return {key: value for key, value in values.items() if value is not None}


def dpo_problems(dpo: DPOConfig) -> Iterator[str]:
    """Yield what is wrong with the values, one line each that begins with the key."""
    problems = loss_problems(dpo.loss, "dpo.loss")
    yield from problems
    if problems:
        return
    terms = loss_terms(dpo.loss)
    for key in loss_settings(dpo):
        if not any(key in LOSSES[name].settings for name in terms):
            readers = ", ".join(name for name, facts in LOSSES.items() if key in facts.settings)
            yield f"dpo.{key}: no term of dpo.loss={dpo.loss} reads it; {readers} would."
    if len({LOSSES[name].per_token for name in terms if LOSSES[name].beta is not None}) > 1 and dpo.beta is not None:
        yield (
            f"dpo.beta={dpo.beta}: dpo.loss={dpo.loss} mixes losses of whole completions with losses per token, whose "
            "betas have different scales. Leave `dpo.beta` out: each term then has its own default."
        )
    yield from fold_problems("dpo", dpo.folds)
    if dpo.lora.dropout:
        yield "dpo.lora.dropout: trained without dropout, so that policy and reference begin as the same."


def fold_problems(section: str, folds: Sequence[int]) -> Iterator[str]:
    """Yield a line if these are no folds of the comparisons."""
    if len(set(folds)) < len(folds) or not set(folds) <= set(range(NUM_FOLDS)):
        yield f"{section}.folds={list(folds)}: name some of the folds 0 to {NUM_FOLDS - 1}, each once."
