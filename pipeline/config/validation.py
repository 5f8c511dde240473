"""Everything that can be wrong with values, found before anything heavy is imported and told at once."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from pipeline.config.data import DataConfig, SourceFormat, SourceSplit, TableName
from pipeline.config.dpo import dpo_problems
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.grpo import grpo_problems
from pipeline.config.ingest import ingest_problems
from pipeline.config.judges import JudgeConfig
from pipeline.config.kto import kto_problems
from pipeline.config.paths import find_file
from pipeline.config.ppo import ppo_problems
from pipeline.config.reward import reward_problems
from pipeline.config.root import DATA_STAGES, GOLD, REWARD, Config
from pipeline.config.stages import TrainingConfig
from pipeline.config.sweep import sweep_problems

SYMBOLS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
HOLDS = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}
PANEL, LOCAL = "panel", "local"  # kinds of judges that take more than parameters
RATINGS = range(1, 6)  # of a rubric
SUITE_TABLES = {
    SuiteKind.generation: (TableName.prompts, TableName.demonstrations),
    SuiteKind.likelihood: (TableName.demonstrations,),
}
SHARED_SECTIONS = ("inputs", "model", "data", "sweep", "tracking", "runtime")


def problems_in(config: Config | SuiteConfig | JudgeConfig | EndpointConfig) -> list[str]:
    """Return one line per problem, each starting with the key; empty if there is none.

    Only the sections of listed stages are looked at. The stages themselves are checked when they are wired.
    """
    if isinstance(config, SuiteConfig):
        return [*out_of_bounds(config, ""), *_suite_problems(config)]
    if isinstance(config, JudgeConfig):
        return [*out_of_bounds(config, ""), *_judge_problems(config)]
    if isinstance(config, EndpointConfig):
        return list(out_of_bounds(config, ""))
    problems = [f"plugins: there is no file {file}." for file in config.plugins if not find_file(file).is_file()]
    for entry in fields(config):
        value = getattr(config, entry.name)
        if entry.name in config.stages or entry.name in SHARED_SECTIONS:
            problems.extend(out_of_bounds(value, f"{entry.name}."))
    problems.extend(_source_problems(config))
    if "curate" in config.stages and config.curate.validation_fraction + config.curate.test_fraction >= 1:
        problems.append("curate.validation_fraction and curate.test_fraction: together they leave nothing to train on.")
    problems.extend(_stage_problems(config))
    if "evaluate" in config.stages and not config.evaluate.suites:
        problems.append("evaluate.suites: no suite is named, and `data.suites` is empty as well.")
    problems.extend(sweep_problems(config))
    return problems


def out_of_bounds(section: Any, prefix: str) -> Iterator[str]:
    """Yield a line for every value outside the bounds that its field declares, in sections below too."""
    if not is_dataclass(section):
        return
    for entry in fields(section):
        value, key = getattr(section, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            yield from out_of_bounds(value, f"{key}.")
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from out_of_bounds(item, f"{key}[{number}].")
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from out_of_bounds(item, f"{key}.{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if value != value:  # noqa: PLR0124 - only NaN differs from itself
                yield f"{key}={value}: must be a number."
                continue
            for name, bound in entry.metadata.get("bounds", {}).items():
                if not HOLDS[name](value, bound):
                    yield f"{key}={value}: must be {SYMBOLS[name]} {bound:g}."


def _source_problems(config: Config) -> Iterator[str]:
    if not DATA_STAGES & set(config.stages):
        return
    if not config.data.sources:
        yield "data.sources: the data set names no source."
    yield from _unused_problems(config.data)
    for number, source in enumerate(config.data.sources):
        if source.table is TableName.unpaired:
            yield f"data.sources[{number}].table=unpaired: thumbs are votes. Write `table: exports`."
        if source.table is TableName.exports and source.split is SourceSplit.guard:
            yield f"data.sources[{number}].split=guard: exports are votes to learn from; write `split: test`."
        interface = source.labeling_config
        if interface is not None and not find_file(interface).is_file():
            yield f"data.sources[{number}].labeling_config: there is no file {interface}. Export it from the project."
        if source.format is SourceFormat.hub:
            continue
        if (path := find_file(source.path)).is_dir():
            yield f"data.sources[{number}].path: {path} is a folder. Name a file in it."
        elif not path.exists():
            hint = " Set `data.path`." if config.data.path == source.path else ""
            yield f"data.sources[{number}].path: there is no file {source.path}.{hint}"


def _unused_problems(data: DataConfig) -> Iterator[str]:
    """Yield a line for what of `data` no source takes: what was asked for would not happen."""
    if data.path and not any(data.path in source.path for source in data.sources):
        yield (
            f"data.path={data.path}: data={data.name} has files of its own and does not read it. For a file of yours "
            "write `data=jsonl` (demonstrations) or `data=exports` (votes)."
        )
    if data.limit is not None and not any(source.limit == data.limit for source in data.sources):
        yield (
            f"data.limit={data.limit}: no source of data={data.name} takes it. Write `limit: ${{data.limit}}` at its "
            f"sources in data/{data.name}.yaml, or `limit` in each."
        )
    if data.revision is not None and not any(source.revision == data.revision for source in data.sources):
        yield f"data.revision={data.revision}: no source of data={data.name} takes it. It is of data sets of the hub."


def _stage_problems(config: Config) -> Iterator[str]:
    for name in config.stages:
        section = getattr(config, name, None)
        if isinstance(section, TrainingConfig):
            yield from _training_problems(name, section, config)
    if "dpo" in config.stages:
        yield from dpo_problems(config.dpo)
    if "kto" in config.stages:
        yield from kto_problems(config.kto)
    if "ingest" in config.stages:
        yield from ingest_problems(config.ingest)
    if {REWARD, GOLD} & set(config.stages):
        yield from reward_problems(config.reward, gold=GOLD in config.stages)
    if "ppo" in config.stages:
        yield from ppo_problems(config.ppo, config.model)
    if "grpo" in config.stages:
        yield from grpo_problems(config.grpo, config.model.context_length)


def _training_problems(name: str, section: TrainingConfig, config: Config) -> Iterator[str]:
    context = config.model.context_length
    if section.batch_size % section.microbatch_size:
        yield (
            f"{name}.batch_size={section.batch_size} is not a multiple of {name}.microbatch_size="
            f"{section.microbatch_size}: an optimizer step is a whole number of backward passes."
        )
    if context is not None and section.max_length > context:
        yield f"{name}.max_length={section.max_length} exceeds model.context_length={context} tokens."
    if section.early_stopping_patience is not None and not section.keep_best:
        yield f"{name}.early_stopping_patience: stopping early makes sense only with {name}.keep_best=true."
    if section.lora.targets == []:
        yield f"{name}.lora.targets: no module is named, so nothing would be trained."
    if (section.keep_best or section.early_stopping_patience) and config.curate.validation_fraction == 0:
        yield f"{name}.keep_best=true needs validation rows, but curate.validation_fraction=0."


def _suite_problems(suite: SuiteConfig) -> Iterator[str]:
    if suite.kind is not SuiteKind.generation:
        for key in ("checks", "judges", "rubric"):
            if getattr(suite, key):
                yield f"{key}: a {suite.kind} suite has no completion to look at."
    yield from _task_problems(suite)
    if suite.prompts is not None and not find_file(suite.prompts).is_file():
        yield f"prompts: there is no file {suite.prompts}, neither in the working directory nor in the project."
    if suite.columns and suite.prompts is None:
        yield "columns: they are of the file that `prompts` names, and none is named."
    if suite.table not in SUITE_TABLES.get(suite.kind, TableName):
        yield f"table={suite.table}: a {suite.kind} suite reads {' or '.join(SUITE_TABLES[suite.kind])}."
    yield from _rubric_problems(suite)
    if suite.split not in {"train", "validation", "test"}:
        yield f"split={suite.split}: must be train, validation or test."


def _judge_problems(judge: JudgeConfig) -> Iterator[str]:
    if (judge.kind == PANEL) is not bool(judge.members):
        yield f"members: a panel has members, and no judge of another kind (this one is `{judge.kind}`)."
    if len(judge.members) == 2:
        yield "members: two judges have no majority. Name three or more."
    if judge.model is not None and judge.kind != LOCAL:
        yield f"model: only a judge of the kind `{LOCAL}` loads a model of its own (this one is `{judge.kind}`)."


def _task_problems(suite: SuiteConfig) -> Iterator[str]:
    """Find what a suite says of a task without being one, and the other way round."""
    if suite.kind is not SuiteKind.lm_eval:
        for key in ("task", "task_folder", "num_fewshot"):
            if getattr(suite, key) is not None:
                yield f"{key}: only a suite of the kind lm_eval has one, and this one's kind is {suite.kind}."
        return
    if not suite.task:
        yield "task: a suite of the kind lm_eval names the task that it runs."
    if suite.prompts is not None:
        yield "prompts: a task of lm-eval brings its own; name the folder of its files in `task_folder`."
    if suite.task_folder is not None and not find_file(suite.task_folder).is_dir():
        yield f"task_folder: there is no folder {suite.task_folder}, in the working directory or in the project."
    if importlib.util.find_spec("lm_eval") is None:
        yield "kind=lm_eval: it needs lm-eval: pip install finetune-pipeline[lm-eval]"


def _rubric_problems(suite: SuiteConfig) -> Iterator[str]:
    seen: set[str] = set()
    for number, criterion in enumerate(suite.rubric):
        key = f"rubric[{number}]"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", criterion.name):
            yield f"{key}.name={criterion.name!r}: must be lower-case words joined by underscores."
        if criterion.name in seen:
            yield f"{key}.name: two criteria are called {criterion.name!r}."
        seen.add(criterion.name)
        if not criterion.description.strip():
            yield f"{key}.description: says nothing, so a judge would rate nothing."
        for level in sorted(set(criterion.levels) - set(RATINGS)):
            yield f"{key}.levels.{level}: ratings go from {RATINGS[0]} to {RATINGS[-1]}."
