"""What each stage is: its inputs by kind and part, its configuration, its function. One row per stage.

A stage's module is named here and imported only when the stage runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.data import CurateConfig, DataConfig, TableName
from pipeline.config.dpo import DPOConfig
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.grpo import GRPOConfig
from pipeline.config.ingest import IngestConfig
from pipeline.config.kto import KTOConfig
from pipeline.config.ppo import PPOConfig
from pipeline.config.reward import RewardConfig
from pipeline.config.stages import SFTConfig

BASE = "base"  # the base model as a policy: no adapter, no artifact


@dataclass(frozen=True, kw_only=True)
class Consumes:
    """One input of a stage."""

    role: str  # the key below `inputs.<stage>`, and below `job.inputs`
    kind: ArtifactKind
    parts: tuple[str, ...]  # globs over the parts that are read; nothing else of the input enters the fingerprint
    required: tuple[str, ...] = ()  # parts without which the stage cannot run
    default: tuple[str, ...] = ()  # stages whose output is taken where nothing is said; the first in the chain wins
    optional: bool = False  # without a default in the chain it is absent; an absent policy is the base


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage."""

    name: str
    version: int  # raised by hand whenever the same inputs give other results than before
    kind: ArtifactKind
    entry: str  # module:function
    sections: tuple[type, ...] = ()  # of the configuration; all that the stage sees of it
    consumes: tuple[Consumes, ...] = ()
    libraries: tuple[str, ...] = ()  # whose X.Y version can move results
    uses_base: bool = False  # reads the base model's weights, tokenizer or chat template
    runs_checks: bool = False  # of the suites: the files that they read count, and the plugins that define them
    reads_tables: tuple[TableName, ...] = ()  # reads the files of `data.sources` with such rows, and no other source
    runs_filters: bool = False  # of `curate.filters`: the files that they read count, and the plugins that define them
    runs_importers: bool = False  # of `data.sources`: the plugins that define them count
    runs_rewards: bool = False  # of its section: the files that they read count, and the plugins that define them
    runs_in_plan: bool = False  # needs no weights, and what comes after cannot be planned without it


TRAINING_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "tokenizers")
COMPARISONS = ("comparisons/train", "comparisons/validation")
UNPAIRED = ("unpaired/train", "unpaired/validation")
SAMPLING_LIBRARIES = ("torch", "transformers", "peft", "tokenizers")


def curated(parts: tuple[str, ...], required: tuple[str, ...] = ()) -> Consumes:
    """Consume tables of the data set that `curate` makes."""
    return Consumes(role="dataset", kind=ArtifactKind.dataset, parts=parts, required=required, default=("curate",))


# What several stages consume alike.
ANY_POLICY = Consumes(role="policy", kind=ArtifactKind.policy, parts=("policy",), optional=True)
POLICY_BEFORE = Consumes(role="policy", kind=ArtifactKind.policy, parts=("policy",), default=("sft",), optional=True)
REFERENCE = Consumes(role="reference", kind=ArtifactKind.reference_logprobs, parts=("logprobs",), optional=True)
REWARD_MODEL = Consumes(role="reward_model", kind=ArtifactKind.reward_model, parts=("reward",), optional=True)
PANEL_MEMBERS = Consumes(role="members", kind=ArtifactKind.verdicts, parts=("verdicts",), optional=True)

REWARD_SPEC = StageSpec(
    name="reward",
    version=4,
    kind=ArtifactKind.reward_model,
    entry="pipeline.stages.reward:train_reward",
    sections=(RewardConfig,),
    consumes=(curated(("comparisons/*",), required=("comparisons/train",)), POLICY_BEFORE),
    libraries=(*TRAINING_LIBRARIES, "scipy"),
    uses_base=True,
)

PPO_SPEC = StageSpec(
    name="ppo",
    version=4,
    kind=ArtifactKind.policy,
    entry="pipeline.stages.ppo:train_ppo",
    sections=(PPOConfig,),
    consumes=(
        curated(("prompts/train", "prompts/validation"), required=("prompts/train",)),
        POLICY_BEFORE,
        Consumes(
            role="reward_model", kind=ArtifactKind.reward_model, parts=("reward",), default=("reward",), optional=True
        ),
        Consumes(role="gold", kind=ArtifactKind.reward_model, parts=("reward",), optional=True),
    ),
    libraries=SAMPLING_LIBRARIES,
    uses_base=True,
    runs_rewards=True,
)

GRPO_SPEC = replace(
    PPO_SPEC,
    name="grpo",
    version=3,
    entry="pipeline.stages.grpo:train_grpo",
    sections=(GRPOConfig,),
    consumes=tuple(consumed for consumed in PPO_SPEC.consumes if consumed.role != "gold"),
    libraries=TRAINING_LIBRARIES,
)

STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec(
            name="ingest",
            version=3,
            kind=ArtifactKind.labels,
            entry="pipeline.stages.ingest:ingest",
            sections=(DataConfig, IngestConfig),
            libraries=("numpy", "scipy"),
            reads_tables=(TableName.exports,),
            runs_importers=True,
            runs_in_plan=True,
        ),
        StageSpec(
            name="curate",
            version=3,
            kind=ArtifactKind.dataset,
            entry="pipeline.stages.curate:curate",
            sections=(DataConfig, CurateConfig),
            consumes=(
                Consumes(
                    role="labels",
                    kind=ArtifactKind.labels,
                    parts=("comparisons/*", "unpaired/*", "demonstrations/*", "quality"),
                    default=("ingest",),
                    optional=True,
                ),
            ),
            libraries=("numpy", "pyarrow"),
            reads_tables=(TableName.demonstrations, TableName.comparisons, TableName.prompts),
            runs_filters=True,
            runs_in_plan=True,
        ),
        StageSpec(
            name="sft",
            version=2,
            kind=ArtifactKind.policy,
            entry="pipeline.stages.sft:train_sft",
            sections=(SFTConfig,),
            consumes=(
                curated(("demonstrations/train", "demonstrations/validation"), required=("demonstrations/train",)),
                ANY_POLICY,
            ),
            libraries=TRAINING_LIBRARIES,
            uses_base=True,
        ),
        REWARD_SPEC,
        replace(REWARD_SPEC, name="gold"),  # the same stage on other folds; wiring says which
        StageSpec(
            name="reference_logprobs",  # folds and the longest side are said by the stage that it belongs to
            version=1,
            kind=ArtifactKind.reference_logprobs,
            entry="pipeline.stages.reference:score_reference",
            consumes=(
                Consumes(role="dataset", kind=ArtifactKind.dataset, parts=COMPARISONS, required=COMPARISONS[:1]),
                ANY_POLICY,
            ),
            libraries=SAMPLING_LIBRARIES,
            uses_base=True,
        ),
        StageSpec(
            name="dpo",
            version=2,
            kind=ArtifactKind.policy,
            entry="pipeline.stages.dpo:train_dpo",
            sections=(DPOConfig,),
            consumes=(curated(COMPARISONS, required=COMPARISONS[:1]), POLICY_BEFORE, REFERENCE),
            libraries=TRAINING_LIBRARIES,
            uses_base=True,
        ),
        StageSpec(
            name="thumb_logprobs",  # what it scores is said by the stage that it belongs to
            version=1,
            kind=ArtifactKind.reference_logprobs,
            entry="pipeline.stages.thumb_reference:score_thumbs",
            consumes=(Consumes(role="dataset", kind=ArtifactKind.dataset, parts=(*UNPAIRED, *COMPARISONS)), ANY_POLICY),
            libraries=SAMPLING_LIBRARIES,
            uses_base=True,
        ),
        StageSpec(
            name="kto",
            version=2,
            kind=ArtifactKind.policy,
            entry="pipeline.stages.kto:train_kto",
            sections=(KTOConfig,),
            consumes=(
                # Wiring narrows the parts to what `kto.rows` names.
                curated((*UNPAIRED, *COMPARISONS)),
                POLICY_BEFORE,
                REFERENCE,
            ),
            libraries=TRAINING_LIBRARIES,
            uses_base=True,
        ),
        PPO_SPEC,
        GRPO_SPEC,
        StageSpec(
            name="benchmark",
            version=1,
            kind=ArtifactKind.samples,
            entry="pipeline.stages.benchmark:run_benchmark",
            consumes=(ANY_POLICY,),
            libraries=(*SAMPLING_LIBRARIES, "lm_eval", "datasets"),
            uses_base=True,
        ),
        StageSpec(
            name="samples",
            version=3,
            kind=ArtifactKind.samples,
            entry="pipeline.stages.samples:sample_policy",
            consumes=(
                # Wiring narrows the parts to the table and split of the suite.
                curated(()),
                ANY_POLICY,
            ),
            libraries=SAMPLING_LIBRARIES,
            uses_base=True,
        ),
        StageSpec(
            name="verdicts",  # what it uses beside samples depends on the judge, and wiring says it
            version=1,
            kind=ArtifactKind.verdicts,
            entry="pipeline.stages.verdicts:judge_samples",
            consumes=(
                Consumes(role="samples", kind=ArtifactKind.samples, parts=("samples",)),
                REWARD_MODEL,
                PANEL_MEMBERS,
            ),
        ),
        StageSpec(
            name="scorecard",
            version=2,
            kind=ArtifactKind.verdicts,
            entry="pipeline.stages.scorecard:measure_judge",
            consumes=(
                Consumes(
                    role="labels",
                    kind=ArtifactKind.labels,
                    parts=("items", "votes"),
                    default=("ingest",),
                    optional=True,
                ),
                curated(("comparisons/test",)),
                REWARD_MODEL,
                PANEL_MEMBERS,
            ),
            libraries=("numpy", "scipy"),
        ),
        StageSpec(
            name="costs",
            version=4,
            kind=ArtifactKind.samples,
            entry="pipeline.stages.costs:measure_costs",
            consumes=(curated(()), ANY_POLICY),
            libraries=(*SAMPLING_LIBRARIES, "numpy", "scipy"),
            uses_base=True,
            runs_checks=True,
        ),
        StageSpec(
            name="report",
            version=10,
            kind=ArtifactKind.report,
            entry="pipeline.stages.report:write_report",
            sections=(EvaluateConfig,),
            consumes=(
                Consumes(role="samples", kind=ArtifactKind.samples, parts=("*",)),
                # Two policies with the same weights share their samples, which therefore name only one of them.
                Consumes(role="policies", kind=ArtifactKind.policy, parts=("*",), optional=True),
                # Its train rows are searched for the suites' items.
                Consumes(role="dataset", kind=ArtifactKind.dataset, parts=("*/*",), default=("curate",), optional=True),
                Consumes(role="verdicts", kind=ArtifactKind.verdicts, parts=("verdicts",), optional=True),
                Consumes(role="scorecards", kind=ArtifactKind.verdicts, parts=("card",), optional=True),
                Consumes(role="ratings", kind=ArtifactKind.verdicts, parts=("verdicts",), optional=True),
                Consumes(role="reward_models", kind=ArtifactKind.reward_model, parts=("audit",), optional=True),
                Consumes(role="costs", kind=ArtifactKind.samples, parts=("costs",), optional=True),
            ),
            libraries=("numpy", "scipy"),
            runs_checks=True,
        ),
    )
}
