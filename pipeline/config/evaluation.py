"""What is measured at the end of every run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.config.costs import CostsConfig
from pipeline.config.data import SourceConfig, SourceSplit, TableName
from pipeline.config.fields import MISSING, option
from pipeline.config.gates import GateConfig, WaiverConfig
from pipeline.config.judges import QualificationConfig


class SuiteKind(StrEnum):
    """What a policy is asked to do with an item."""

    generation = "generation"  # write a completion, which checks then judge
    likelihood = "likelihood"  # give the log-probability of a reference completion
    lm_eval = "lm_eval"  # a task of lm-evaluation-harness (extra `lm-eval`), which also says how it is scored


@dataclass(kw_only=True)
class CheckConfig:
    """One rule that a completion follows or breaks, or, among `rewards`, one number for it."""

    name: str = MISSING  # a registered check, or a reward
    params: dict[str, Any] = option(factory=dict)


@dataclass(kw_only=True)
class CriterionConfig:
    """One thing that a judge rates from 1 to 5."""

    name: str = MISSING  # in reports: a word or a few joined by underscores
    description: str = MISSING  # what the judge is told to look at
    levels: dict[int, str] = option(factory=dict)  # what a rating means, for as many of 1 to 5 as need saying


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
    table: TableName = TableName.prompts
    split: str = "test"
    limit: int | None = option(None, ge=1)  # items, the first by id hash
    # A file of one's own instead of the data set's rows: read strictly as rows of `table`, with `columns` as a source
    # has them. The suite then needs no data set, and `curate` keeps its prompts out of what is trained on.
    prompts: str | None = None
    columns: dict[str, str] = option(factory=dict)
    # Of the kind lm_eval: a task or group by its name, and the folder of its YAML files, whose contents count; without
    # a folder it is one of lm-eval's own, whose data must be in the cache of `datasets` where there is no network.
    task: str | None = None
    task_folder: str | None = None
    num_fewshot: int | None = option(None, ge=0)  # null is what the task says
    chat_template: bool = False  # whether the task's prompts are put into the model's chat template
    checks: list[CheckConfig] = option(factory=list)  # each is a metric, and all_checks is passing every one
    rewards: list[CheckConfig] = option(factory=list)  # numbers for completions, as `ppo.rewards` names them
    judges: list[str] = option(factory=list)  # files of `configs/judge/`, beside those of `evaluate.judges`
    rubric: list[CriterionConfig] = option(factory=list)  # what judges rate a single completion by
    sampling: SamplingConfig = option(factory=SamplingConfig)
    batch_size: int = option(32, ge=1)  # fixed, because it moves rounding and with it greedy completions


def own_source(suite: SuiteConfig) -> SourceConfig | None:
    """Return the suite's own prompts as a source, of which nothing may be trained on; None where it has none."""
    if suite.prompts is None:
        return None
    return SourceConfig(table=suite.table, path=suite.prompts, columns=dict(suite.columns), split=SourceSplit.guard)


@dataclass(kw_only=True)
class EvaluateConfig:
    """Which suites, and how they are summarised."""

    suites: list[str] = option(factory=list)  # names of files in `configs/suite/`
    judges: list[str] = option(factory=list)  # of every generation suite, beside its own; files in `configs/judge/`
    votes: str | None = option(None, affects_results=False)  # export with people's verdicts, for judges of kind `human`
    qualification: QualificationConfig = option(factory=QualificationConfig)
    costs: CostsConfig = option(factory=CostsConfig)
    # The policy that the others are compared with; null is `base`, and where that is not evaluated the first policy.
    baseline: str | None = None
    confidence: float = option(0.95, gt=0.5, lt=1)  # of the intervals
    limit: int | None = option(None, ge=1)  # items per suite, for a quick look
    gates: dict[str, GateConfig] = option(factory=dict)  # by name; claims that the newest policy must bear out
    waivers: dict[str, WaiverConfig] = option(factory=dict)  # by name; gates that need not pass, why, and by whose word
    num_regressions: int = option(20, ge=0)  # items per suite shown side by side on which a policy does worst
    num_examples: int = option(12, ge=0)  # improved and unchanged items shown side by side per suite
