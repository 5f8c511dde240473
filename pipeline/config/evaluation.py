"""What is measured at the end of every run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from pipeline.config.data import TableName
from pipeline.config.fields import option
from pipeline.config.judges import QualificationConfig


class SuiteKind(StrEnum):
    """What a policy is asked to do with an item."""

    generation = "generation"  # write a completion, which checks then judge
    likelihood = "likelihood"  # give the log-probability of a reference completion


@dataclass(kw_only=True)
class CheckConfig:
    """One rule that a completion follows or breaks."""

    name: str = MISSING  # a registered check
    params: dict[str, Any] = option(factory=dict)


@dataclass(kw_only=True)
class SamplingConfig:
    """How completions are drawn. Every parameter is explicit: none comes from the model's own defaults."""

    max_new_tokens: int = option(128, ge=1)
    temperature: float = option(0.0, ge=0)  # 0 is greedy
    top_p: float = option(1.0, gt=0, le=1)
    top_k: int = option(0, ge=0)  # 0 keeps the whole vocabulary
    seed: int = option(0, ge=0)


@dataclass(kw_only=True)
class SuiteConfig:
    """A set of items and what is measured on them; one file of `configs/suite/`."""

    name: str = MISSING
    description: str = ""
    kind: SuiteKind = MISSING
    table: TableName = MISSING
    split: str = "test"
    limit: int | None = option(None, ge=1)  # items, the first by id hash
    checks: list[CheckConfig] = option(factory=list)  # each is a metric, and all_checks is passing every one
    sampling: SamplingConfig = option(factory=SamplingConfig)
    judges: list[str] = option(factory=list)  # who compares every two policies; files in `configs/judge/`
    batch_size: int = option(32, ge=1)  # fixed, because it moves rounding and with it greedy completions


@dataclass(kw_only=True)
class EvaluateConfig:
    """Which suites, and how they are summarised."""

    suites: list[str] = option(factory=list)  # names of files in `configs/suite/`
    judges: list[str] = option(factory=list)  # of every generation suite, beside its own; files in `configs/judge/`
    votes: str | None = option(None, affects_results=False)  # export with people's verdicts, for judges of kind `human`
    qualification: QualificationConfig = option(factory=QualificationConfig)
    baseline: str = "base"  # the policy that the others are compared with
    confidence: float = option(0.95, gt=0.5, lt=1)  # of the intervals
    limit: int | None = option(None, ge=1)  # items per suite, for a quick look
    num_examples: int = option(12, ge=0)  # completions shown side by side per suite
