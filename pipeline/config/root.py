"""The whole tree: what a command is configured by."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipeline.config.data import CurateConfig, DataConfig
from pipeline.config.dpo import DPOConfig
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.fields import option
from pipeline.config.grpo import GRPOConfig
from pipeline.config.ingest import IngestConfig
from pipeline.config.kto import KTOConfig
from pipeline.config.ppo import PPOConfig
from pipeline.config.reward import NUM_FOLDS, RewardConfig
from pipeline.config.shared import ModelConfig, RuntimeConfig, TrackingConfig
from pipeline.config.stages import SFTConfig
from pipeline.config.sweep import ObjectiveConfig, SweepConfig


@dataclass(kw_only=True)
class IngestInputs:
    """Nothing: `ingest` reads the exports of `data`."""


@dataclass(kw_only=True)
class CurateInputs:
    """The sources of `data`, and what the votes say."""

    labels: str | None = None  # a stage name of the chain, an artifact id or an artifact's path


@dataclass(kw_only=True)
class SFTInputs:
    """A stage name of the chain, an artifact id or an artifact's path; null is wired by kind."""

    dataset: str | None = None
    policy: str | None = None  # null is the base


@dataclass(kw_only=True)
class RewardInputs:
    """A stage name of the chain, an artifact id or an artifact's path; null is wired by kind."""

    dataset: str | None = None
    policy: str | None = None  # null is `sft` if it is in the chain, else the base


@dataclass(kw_only=True)
class DPOInputs:
    """A stage name of the chain, an artifact id or an artifact's path; null is wired by kind."""

    dataset: str | None = None
    policy: str | None = None  # `base` is the base although the chain has a policy
    reference: str | None = None  # log-probabilities; null is those of the policy, computed where nobody has yet


@dataclass(kw_only=True)
class KTOInputs(DPOInputs):
    """As `dpo` has them; the log-probabilities are those of completions by themselves."""


@dataclass(kw_only=True)
class PPOInputs:
    """A stage name of the chain, an artifact id or an artifact's path; null is wired by kind."""

    dataset: str | None = None
    policy: str | None = None  # null is `sft` where it runs, else the base
    reward_model: str | None = None
    gold: str | None = None  # a reward model of other folds, which watches and is not learned from


@dataclass(kw_only=True)
class GRPOInputs:
    """A stage name of the chain, an artifact id or an artifact's path; null is wired by kind."""

    dataset: str | None = None
    policy: str | None = None  # null is `sft` where it runs, else the base
    reward_model: str | None = None


@dataclass(kw_only=True)
class EvaluateInputs:
    """What is evaluated; an empty list of policies is every policy of the chain and the base.

    A policy is `base`, a stage, an artifact's id or path, the path of a plain adapter or of a whole model
    (`folder:PATH`, or the path alone), `hub:ID` or `hub:ID@REVISION`, or `http:NAME`, a file of `configs/endpoint/`.
    """

    dataset: str | None = None
    policy: list[str] = option(factory=list)
    labels: str | None = None  # human votes that judges are measured against
    gold: str | None = None  # `gold` trains a second reward model on folds that the first has never seen


@dataclass(kw_only=True)
class InputsConfig:
    """What each stage consumes, where it is not what the wiring by kind would choose."""

    ingest: IngestInputs = option(factory=IngestInputs)
    curate: CurateInputs = option(factory=CurateInputs)
    sft: SFTInputs = option(factory=SFTInputs)
    reward: RewardInputs = option(factory=RewardInputs)
    gold: RewardInputs = option(factory=RewardInputs)
    dpo: DPOInputs = option(factory=DPOInputs)
    kto: KTOInputs = option(factory=KTOInputs)
    ppo: PPOInputs = option(factory=PPOInputs)
    grpo: GRPOInputs = option(factory=GRPOInputs)
    evaluate: EvaluateInputs = option(factory=EvaluateInputs)


INGEST, CURATE, EVALUATE = "ingest", "curate", "evaluate"
REWARD, GOLD = "reward", "gold"
DATA_STAGES = frozenset({INGEST, CURATE})  # an experiment of these alone has no policy to evaluate


def with_evaluation(stages: list[str]) -> list[str]:
    """Return the stages, ending with `evaluate` where any of them makes something that can be evaluated."""
    trains = any(stage not in DATA_STAGES for stage in stages)
    return [*stages, EVALUATE] if trains and EVALUATE not in stages else list(stages)


def with_gold(stages: list[str], inputs: InputsConfig) -> list[str]:
    """Return the stages, with a gold judge after the last stage that it needs where an input asks for one."""
    asked = any(getattr(getattr(inputs, entry.name), "gold", None) == GOLD for entry in fields(inputs))
    if not asked or GOLD in stages:
        return list(stages)
    needed = [place for place, stage in enumerate(stages) if stage in {CURATE, "sft", REWARD}]
    place = needed[-1] + 1 if needed else 0
    return [*stages[:place], GOLD, *stages[place:]]


def settle_folds(config: Config) -> None:
    """Name the folds of comparisons where none are named: all, so that no vote lies idle.

    Where a gold judge is asked for, its own are left to it: what learns and what judges must not share votes.
    """
    gold = GOLD in config.stages or any(
        getattr(getattr(config.inputs, f.name), GOLD, None) for f in fields(InputsConfig)
    )
    taken = config.reward.gold_folds if gold else []
    for entry in fields(config):
        section = getattr(config, entry.name)
        if getattr(section, "folds", None) == []:
            section.folds = [fold for fold in range(NUM_FOLDS) if fold not in taken]


@dataclass(kw_only=True)
class Config:
    """Root of the configuration of `train` and `plan`."""

    name: str = option("custom", affects_results=False)  # the experiment's name; part of the run folder's
    stages: list[str] = option(factory=list)  # in order; an experiment file names them
    inputs: InputsConfig = option(factory=InputsConfig)
    force: list[str] = option(factory=list, affects_results=False)  # stages to run again although nothing changed
    seed: int = option(17, ge=0)  # of every training stage that has no seed of its own
    plugins: list[str] = option(factory=list)  # Python files that register checks
    model: ModelConfig = option(factory=ModelConfig)
    data: DataConfig = option(factory=DataConfig)
    ingest: IngestConfig = option(factory=IngestConfig)
    curate: CurateConfig = option(factory=CurateConfig)
    sft: SFTConfig = option(factory=SFTConfig)
    reward: RewardConfig = option(factory=RewardConfig)
    dpo: DPOConfig = option(factory=DPOConfig)
    kto: KTOConfig = option(factory=KTOConfig)
    ppo: PPOConfig = option(factory=PPOConfig)
    grpo: GRPOConfig = option(factory=GRPOConfig)
    evaluate: EvaluateConfig = option(factory=EvaluateConfig)
    objective: list[ObjectiveConfig] = option(factory=list, affects_results=False)  # what a run is judged by
    sweep: SweepConfig = option(factory=SweepConfig, affects_results=False)
    tracking: TrackingConfig = option(factory=TrackingConfig)
    runtime: RuntimeConfig = option(factory=RuntimeConfig)
