"""What a judge is: what it is asked, what it answers, and what it needs to be opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.config.evaluation import CheckConfig, CriterionConfig, SuiteConfig
from pipeline.config.judges import JudgeConfig
from pipeline.config.shared import DType
from pipeline.data.rows import Message
from pipeline.tracking.job import StageJob

Messages = list[dict[str, str]]


class Status(StrEnum):
    """What became of a question. Only `ok` is scored; everything is counted."""

    ok = "ok"
    parse_fail = "parse_fail"  # something was answered that is no verdict
    refused = "refused"  # the judge, or the service it runs on, declined
    timeout = "timeout"
    error = "error"
    no_vote = "no_vote"  # nobody has judged this pair yet
    not_applicable = "not_applicable"  # the judge goes by something that this item does not have


class Order(StrEnum):
    """Which completion was shown first: that of the first named policy, or that of the second."""

    ab = "ab"
    ba = "ba"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One thing that a judge is asked: how good a completion is, or which of two is better."""

    id: str  # of the item
    prompt: Messages
    shown: tuple[str, ...]  # one completion, or two in the order in which they are shown
    order: Order | None  # None for a single completion
    reference: str | None = None
    criterion: CriterionConfig | None = None  # of a single completion: what it is rated by, from 1 to 5

    @property
    def messages(self) -> list[Message]:
        """Return the prompt as typed turns."""
        return [Message(role=turn["role"], content=turn["content"]) for turn in self.prompt]

    @property
    def key(self) -> str:
        """Return what tells the questions of one node apart."""
        return f"{self.id}\n{self.criterion.name if self.criterion else self.order or ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a judge says. Of two completions the score lies in [0, 1], and 1 is the FIRST SHOWN; a rating in [1, 5]."""

    score: float | None
    status: Status = Status.ok
    detail: str | None = None
    tokens: int = 0  # read and written for it; 0 where nothing counts them
    cost: float = 0.0  # in the currency of the endpoint's prices

    def __post_init__(self) -> None:
        """Refuse an answer that contradicts itself, because it would be counted twice or never.

        Raises:
            ValueError: There is a score without `ok`, `ok` without a score, or a score that is not finite.
        """
        if (self.score is None) is (self.status is Status.ok):
            raise ValueError(f"an answer with the status {self.status} has the score {self.score}")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"a judge gave the score {self.score}")


Ask = Callable[[Sequence[Question]], Sequence[Answer]]  # one answer per question, in order
Scores = Mapping[str, float | None]  # id of a pair -> score of the first NAMED over both orders; None without one


@dataclass(frozen=True, kw_only=True)
class JudgeContext:
    """What a judge may use once it is opened."""

    config: JudgeConfig
    job: StageJob  # the base model, the reward model, the runtime
    suite: SuiteConfig | None  # None where it is measured against human votes
    dtype: DType | None = None  # of the model that it loads
    members: Mapping[str, Scores] = field(default_factory=dict)  # of a panel: what each member says


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One judge as configured. Nothing is loaded before it is opened."""

    open: Callable[[JudgeContext], AbstractContextManager[Ask]]
    # Called once with all questions of a node before any is asked; it may write files into the staging folder.
    announce: Callable[[JudgeContext, Sequence[Question]], None] | None = None
    completions: int = 2  # that it sees at a time: 1 scores each for itself, 2 compares
    order_sensitive: bool = True  # whether two completions are shown both ways round
    is_people: bool = False  # what other judges are measured against
    answers_anything: bool = True  # False for votes that were cast before, which say nothing about other completions
    states_probabilities: bool = False  # whether a score between 0 and 1 is a probability
    rates: bool = False  # whether it rates a single completion by a criterion
    loads_model: bool = False  # the base of the run, or `model` of the judge
    reward_model: str | None = None  # the artifact that it needs: a stage of the chain, `gold`, an id or a path
    checks: tuple[CheckConfig, ...] | None = ()  # that it goes by; None is those of the suite

    @property
    def orders(self) -> tuple[Order | None, ...]:
        """Return the orders in which an item is shown."""
        if self.completions == 1:
            return (None,)
        return (Order.ab, Order.ba) if self.order_sensitive else (Order.ab,)
