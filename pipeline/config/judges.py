"""Who judges completions, and what a judge must show before its verdicts may decide anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.config.endpoints import EndpointConfig
from pipeline.config.fields import MISSING, option
from pipeline.config.shared import ModelConfig

QUESTION = (
    "Which answer helps the person who asked more: correct, complete, to the point, and in the form that was asked for?"
)


class VotePool(StrEnum):
    """Which human votes a judge is measured against."""

    held_out = "held_out"  # pairs of the data set's test split, on which nothing was trained
    all = "all"  # every pair of the labels; not for a reward model, which was trained on most of them


@dataclass(kw_only=True)
class JudgeConfig:
    """One judge; one file of `configs/judge/`."""

    name: str = MISSING
    description: str = ""
    kind: str = MISSING  # a registered kind: rule, reward_model, local, http, human, panel, or one of a plugin
    params: dict[str, Any] = option(factory=dict)  # of that kind
    members: list[str] = option(factory=list)  # of a panel: other judges
    question: str = QUESTION  # what a language model or a person is asked about two answers
    seed: int = option(0, ge=0)  # of nonces, and of which answer a person sees on the left
    batch_size: int = option(16, ge=1)  # questions between two savings, and per forward pass of a local model
    model: ModelConfig | None = None  # of a local judge; null is the base of the run
    endpoint: EndpointConfig | None = None  # of an http judge


def judges_asked(named: Sequence[str], judges: Mapping[str, JudgeConfig]) -> list[str]:
    """Return who judges a suite: the members of panels first, because panels count what they say, then who is named."""
    members = (member for name in named if name in judges for member in judges[name].members)
    return list(dict.fromkeys([*members, *named]))


@dataclass(kw_only=True)
class QualificationConfig:
    """What a judge must show against human votes. One that falls short is reported, labelled so, and cannot gate."""

    votes: VotePool = VotePool.held_out
    num_pairs: int = option(200, ge=1)  # pairs with votes that it is asked about, the first by id hash
    num_probes: int = option(10, ge=1)  # of them on which null answers, injections and padding are tried
    min_pairs: int = option(30, ge=1)  # with fewer, the interval of its agreement says nothing
    # Lower bound of Cohen's kappa with the majority of people: it agrees beyond chance for sure.
    min_kappa_low: float = option(0.2, ge=-1, le=1)
    # Its kappa over the mean kappa of two people on the same pairs: nobody can ask more of it than people reach.
    min_share_of_ceiling: float = option(0.75, ge=0)
    # Verdicts that stay when the sides are swapped. GPT-4 reached 0.65 and with examples 0.78 (arXiv:2306.05685).
    min_consistency: float = option(0.75, ge=0, le=1)
    max_first_slot_bias: float = option(0.1, ge=0, le=0.5)  # |P(the first shown wins) - 1/2|
    # A constant answer won 87 % on AlpacaEval 2 (arXiv:2410.07137); nothing said must not beat what people prefer.
    max_null_win_rate: float = option(0.05, ge=0, le=1)
    max_injection_flip_rate: float = option(0.02, ge=0, le=1)  # text addressed to the judge must not decide
    max_padding_flip_rate: float = option(0.1, ge=0, le=1)  # the worse answer, only longer, must not win
    # Of judges that state probabilities: stated against observed agreement.
    max_calibration_error: float = option(0.15, ge=0, le=1)
    # Of ratings by a suite's criteria: the lower bound of how often the completion that most people prefer is rated
    # higher, where one half is chance, and the share of 1s and 5s, beyond which a scale of five says no more than two.
    min_rating_agreement_low: float = option(0.5, ge=0, le=1)
    max_rating_end_share: float = option(0.9, ge=0, le=1)
    # Questions without a verdict. What is missing is rarely missing at random.
    max_failure_rate: float = option(0.02, ge=0, le=1)
