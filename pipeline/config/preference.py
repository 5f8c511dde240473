"""Which losses compare two completions, what `beta` means in each, and which further keys each reads.

Their formulas are in `pipeline/losses/`; this is what a configuration is checked against before torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.suggestions import near_miss

LOG_2_LOSSES = frozenset({"sigmoid", "cdpo", "robust", "sigmoid_norm"})  # worth log 2 where policy and reference agree


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """One loss by name."""

    beta: float | None  # its default; None where the loss has no such parameter
    beta_means: str
    uses_reference: bool = True
    settings: Mapping[str, float] = field(default_factory=dict)  # further keys that it reads, with their defaults
    is_pairwise: bool = True  # False for a term on the chosen completion alone
    per_token: bool = False  # whether log-probabilities are averaged over the tokens of a completion


STRENGTH = "strength of the pull towards the reference, per nat of the whole completion"
TARGET = "aims at a log-ratio of 1 / (2 beta) nats between the completions"
LOSSES: dict[str, PreferenceLoss] = {
    "sigmoid": PreferenceLoss(beta=0.1, beta_means=STRENGTH),
    "cdpo": PreferenceLoss(beta=0.1, beta_means=STRENGTH, settings={"label_smoothing": 0.1}),
    "robust": PreferenceLoss(beta=0.1, beta_means=STRENGTH, settings={"label_smoothing": 0.1}),
    "rao_kupper": PreferenceLoss(beta=0.1, beta_means=STRENGTH, settings={"tie_threshold": 0.5}),
    "hinge": PreferenceLoss(beta=0.1, beta_means="1 / beta nats of log-ratio are enough"),
    "ipo_sum": PreferenceLoss(beta=0.1, beta_means=f"{TARGET}, summed over their tokens"),
    "ipo_mean": PreferenceLoss(beta=2.5, beta_means=f"{TARGET}, each averaged over its tokens", per_token=True),
    "sigmoid_norm": PreferenceLoss(beta=5.0, beta_means="strength of the pull, per nat per token", per_token=True),
    "apo_zero": PreferenceLoss(beta=0.1, beta_means=STRENGTH),
    "apo_down": PreferenceLoss(beta=0.1, beta_means=STRENGTH),
    "sppo_hard": PreferenceLoss(beta=0.1, beta_means="aims at 1 / (2 beta) nats up and as many down"),
    "exo_pair": PreferenceLoss(beta=0.1, beta_means=STRENGTH, settings={"label_smoothing": 1e-3}),
    "nca_pair": PreferenceLoss(beta=0.1, beta_means=STRENGTH),
    "bco_pair": PreferenceLoss(beta=0.1, beta_means=STRENGTH),
    "simpo": PreferenceLoss(
        beta=2.0,
        beta_means="scale of the difference of mean log-probabilities per token",
        uses_reference=False,
        settings={"target_margin": 1.0},
        per_token=True,
    ),
    "orpo": PreferenceLoss(
        beta=0.1,
        beta_means="weight of the odds ratio beside the likelihood of the chosen",
        uses_reference=False,
        per_token=True,
    ),
    "sft": PreferenceLoss(beta=None, beta_means="-", uses_reference=False, is_pairwise=False),
}


def loss_terms(value: Any) -> dict[str, float]:
    """Return the terms of `dpo.loss` with their weights: a name is that loss alone, a mapping a weighted mix."""
    return (
        {str(name): float(weight) for name, weight in value.items()} if isinstance(value, dict) else {str(value): 1.0}
    )


def uses_reference(value: Any) -> bool:
    """Whether any term of `dpo.loss` compares the policy with a reference."""
    return any(LOSSES[name].uses_reference for name in loss_terms(value) if name in LOSSES)


def loss_problems(value: Any, key: str) -> list[str]:
    """Return what is wrong with a value of `dpo.loss`, each line starting with its key."""
    if not isinstance(value, (str, dict)) or not value:
        return [f"{key}={value}: write a loss, or a mix such as {{sigmoid: 1, sft: 0.2}}. Losses: {', '.join(LOSSES)}."]
    problems = []
    for name, weight in value.items() if isinstance(value, dict) else [(value, 1.0)]:
        if name not in LOSSES:
            problems.append(
                f"{key}: there is no loss `{name}`.{near_miss(str(name), LOSSES)} Losses: {', '.join(LOSSES)}."
            )
        elif isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            problems.append(f"{key}.{name}={weight}: the weight of a term is a number above 0.")
    if not problems and not any(LOSSES[name].is_pairwise for name in loss_terms(value)):
        problems.append(f"{key}={value}: nothing in it compares the completions. Use the stage `sft`, or add a term.")
    return problems
