"""Every contradiction between values is one line that begins with its key, and what is next to it is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fake_stages import make_config

from pipeline.config.data import SourceConfig, TableName
from pipeline.config.evaluation import CriterionConfig, SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig
from pipeline.config.sweep import ObjectiveConfig, Pruner, SweepMethod
from pipeline.config.validation import problems_in

SEARCH = {"sweep.method": SweepMethod.tpe, "sweep.pruner": Pruner.median}


def objectives(*metrics: str) -> list[ObjectiveConfig]:
    return [ObjectiveConfig(metric=metric) for metric in metrics]


def changed(config: Config, changes: dict[str, Any]) -> Config:
    for key, value in changes.items():
        *sections, name = key.split(".")
        holder: Any = config
        for section in sections:
            holder = getattr(holder, section)
        setattr(holder, name, value)
    return config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rows.jsonl").touch()
    return changed(make_config(tmp_path, tmp_path / "rows.jsonl"), {"evaluate.suites": ["answers"]})


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        (
            {"sft.batch_size": 9, "sft.microbatch_size": 2},
            "sft.batch_size=9 is not a multiple of sft.microbatch_size=2",
        ),
        ({"model.context_length": 64, "sft.max_length": 65}, "sft.max_length=65 exceeds model.context_length=64"),
        ({"sft.keep_best": False, "sft.early_stopping_patience": 2}, "sft.early_stopping_patience: stopping early"),
        ({"sft.lora.targets": []}, "sft.lora.targets: no module is named"),
        ({"curate.validation_fraction": 0.0}, "sft.keep_best=true needs validation rows"),
        ({"curate.validation_fraction": 0.5, "curate.test_fraction": 0.5}, "curate.validation_fraction and"),
        ({"evaluate.suites": []}, "evaluate.suites: no suite is named"),
        ({"sft.optimizer.weight_decay": math.nan}, "sft.optimizer.weight_decay=nan: must be a number."),
        ({"sweep.parallel": 0}, "sweep.parallel=0: must be at least 1."),
        ({"plugins": ["nowhere.py"]}, "plugins: there is no file nowhere.py."),
        ({"data.sources": []}, "data.sources: the data set names no source."),
        ({"data.path": "other.jsonl"}, "data.path=other.jsonl: data=fake has files of its own"),
        ({"objective": objectives("anwsers/all_checks")}, "objective[0].metric=anwsers/all_checks: `anwsers` is no"),
        ({"objective": objectives("answers/x"), **SEARCH}, "sweep.pruner=median: answers/x is known at the end only"),
        ({"objective": objectives("sft/a", "sft/b"), **SEARCH}, "sweep.pruner=median: pruning follows one objective"),
        ({"sweep.pruner": Pruner.median}, "sweep.pruner=median: a grid runs every combination"),
        ({"sweep.storage": "postgresql://me:hunter22@host/study"}, "sweep.storage: holds a password"),
    ],
)
def test_a_contradiction_is_one_line(config: Config, changes: dict[str, Any], begins: str) -> None:
    (line,) = problems_in(changed(config, changes))
    assert line.startswith(begins)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.context_length": 64, "sft.max_length": 64},
        {"sft.keep_best": True, "sft.early_stopping_patience": 2},
        {"sft.keep_best": False, "curate.validation_fraction": 0.0},
        {"curate.validation_fraction": 0.5, "curate.test_fraction": 0.49},
        {"sft.lora.targets": ["q_proj"]},
        {"stages": ["curate"], "evaluate.suites": [], "sft.batch_size": 9},  # only what runs is looked at
        {"objective": objectives("validation_loss"), **SEARCH},
        {"objective": objectives("answers/all_checks", "sft/validation_loss")},
        {"sweep.storage": "postgresql://me@host/study"},
    ],
)
def test_what_fits_together_is_no_problem(config: Config, changes: dict[str, Any]) -> None:
    assert problems_in(changed(config, changes)) == []


def test_a_source_that_is_not_there_is_told_with_what_sets_it(config: Config) -> None:
    config.data.sources = [SourceConfig(table=TableName.demonstrations, path=path) for path in ("a.jsonl", "b.jsonl")]
    config.data.path = "b.jsonl"
    assert problems_in(config) == [
        "data.sources[0].path: there is no file a.jsonl.",
        "data.sources[1].path: there is no file b.jsonl. Set `data.path`.",
    ]


def test_an_objective_needs_a_stage_that_trains(config: Config) -> None:
    assert problems_in(changed(config, {"stages": ["curate", "evaluate"], "objective": objectives("loss")})) == [
        "objective[0].metric=loss: no stage of this experiment trains; name a suite's metric, as in SUITE/METRIC."
    ]


def test_what_is_wrong_with_a_suite_or_a_judge_is_told_by_its_key() -> None:
    suite = SuiteConfig(
        name="mine", kind=SuiteKind.generation, table=TableName.prompts, split="tset",
        rubric=[CriterionConfig(name="clear", description="Is it?") for _ in range(2)],
    )  # fmt: skip
    assert problems_in(suite) == [
        "rubric[1].name: two criteria are called 'clear'.",
        "split=tset: must be train, validation or test.",
    ]
    for kind, model, told in (("rule", ModelConfig(id="org/name"), True), ("rule", None, False)):
        found = problems_in(JudgeConfig(name="j", kind=kind, model=model))
        assert [line.split(":")[0] for line in found] == (["model"] if told else [])
