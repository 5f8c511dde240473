"""What a run is judged by, read from sealed folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import run
from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.evaluation import CheckConfig, CriterionConfig, SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig
from pipeline.config.root import Config
from pipeline.config.sweep import Direction, ObjectiveConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.summary import FORMAT_VERSION
from pipeline.graph.objectives import objective_values
from pipeline.graph.run_folder import RunFolder, read_objective, record_of
from pipeline.graph.wiring import nodes_for
from pipeline.tracking.record import Record

ROWS = [
    (0, {"validation_loss": 3.0}),
    (10, {"loss": 2.0, "validation_loss": 1.0}),
    (20, {"loss": 1.0, "validation_loss": 1.5}),
]


def seal(outputs: Path, stage: str, kind: ArtifactKind, metrics: dict[str, Any], report: Any = None) -> Artifact:
    store = Store(outputs)
    work = store.work(stage, stage.encode().hex().ljust(64, "0"))
    if report is not None:
        (work.staging / "report.json").write_text(json.dumps(report))
    else:
        (work.staging / "adapter.txt").write_text(stage)
        for step, row in ROWS:
            Record(work.metrics).append(row, step) if step == 0 else _append(work.metrics, step, row)
    return store.seal(
        work, kind=kind, stage=stage, version=1, fingerprint=stage.encode().hex().ljust(64, "0"), parents=[],
        config={}, outcome=StageOutcome(parts={}, metrics=metrics, resolved={}, gates=[]),
    )  # fmt: skip


def _append(path: Path, step: int, row: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"step": step, **row}) + "\n")


def entry(metric: str, policy: str, estimate: float | None, baseline: str | None = None) -> dict[str, Any]:
    return {"suite": "style", "metric": metric, "policy": policy, "baseline": baseline, "estimate": estimate}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Artifact]:
    metrics = [entry("all", "base", 0.1), entry("all", "dpo", 0.7), entry("all", "dpo", 0.6, "base"),
               entry("win_rate/rules", "dpo", 0.55, "base"), entry("helpful/judge", "dpo", 0.5, "base"),
               entry("helpful/judge", "base", 3.0), entry("helpful/judge", "dpo", 3.5),
               entry("win_rate/base", "dpo", None, "base")]  # fmt: skip
    report = {"format_version": FORMAT_VERSION, "policies": ["base", "dpo"], "metrics": metrics}
    return {
        "sft": seal(tmp_path, "sft", ArtifactKind.policy, {"policy_step": 10, "steps": 20}),
        "dpo": seal(tmp_path, "dpo", ArtifactKind.policy, {"accuracy": 0.8, "validation_loss": 9.0}),
        "report": seal(tmp_path, "report", ArtifactKind.report, {}, report),
    }


def value_of(metric: str, made: dict[str, Artifact], direction: Direction = Direction.minimize) -> dict[str, Any]:
    config = Config(stages=["curate", "sft", "dpo", "evaluate"])
    config.objective = [ObjectiveConfig(metric=metric, direction=direction)]
    return objective_values(config, made)[0]


def test_a_training_metric_is_that_of_the_step_that_was_kept(made: dict[str, Artifact]) -> None:
    assert value_of("sft/validation_loss", made) == {
        "name": "sft/validation_loss", "direction": "minimize", "value": 1.0,  # at step 10, not the last
    }  # fmt: skip
    assert value_of("sft/loss", made)["value"] == 2.0


def test_what_the_manifest_states_comes_first_and_the_last_stage_is_the_default(made: dict[str, Artifact]) -> None:
    found = value_of("accuracy", made, Direction.maximize)
    assert found == {"name": "dpo/accuracy", "direction": "maximize", "value": 0.8}
    assert value_of("validation_loss", made)["value"] == 9.0


def test_a_metric_of_the_report_is_the_newest_policys_or_that_of_a_named_one(made: dict[str, Artifact]) -> None:
    assert value_of("style/all", made) == {"name": "style/all/dpo", "direction": "minimize", "value": 0.7}
    assert value_of("style/all/base", made)["value"] == 0.1


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        ("win_rate/rules", "win_rate/rules/dpo", 0.55),  # known against a baseline only
        ("win_rate/rules/dpo", "win_rate/rules/dpo", 0.55),
        ("helpful/judge", "helpful/judge/dpo", 3.5),
        ("helpful/judge/base", "helpful/judge/base", 3.0),
    ],
)
def test_a_metric_that_judges_make_is_found_by_its_name_with_a_slash(
    made: dict[str, Artifact], metric: str, name: str, value: float
) -> None:
    expected = {"name": f"style/{name}", "direction": "maximize", "value": value}
    assert value_of(f"style/{metric}", made, Direction.maximize) == expected


def test_a_metric_without_an_estimate_has_no_value_and_is_not_offered(made: dict[str, Artifact]) -> None:
    with pytest.raises(ConfigError, match=r"no value of `style/win_rate/base/dpo`\. It has: style/all/base") as caught:
        value_of("style/win_rate/base", made)
    assert str(caught.value).count("win_rate/base") == 1


@pytest.mark.parametrize(
    ("metric", "known"),
    [("sft/validation_los", "loss, policy_step, steps, validation_loss"), ("style/al", "style/all/base"),
     ("reward/accuracy", "no value of `reward/accuracy")],
)  # fmt: skip
def test_an_unknown_metric_lists_those_that_exist(made: dict[str, Artifact], metric: str, known: str) -> None:
    with pytest.raises(ConfigError, match=known):
        value_of(metric, made)


def test_a_stage_that_did_not_run_is_named(made: dict[str, Artifact]) -> None:
    del made["dpo"]
    with pytest.raises(ConfigError, match=r"`dpo` did not run. These did: sft, report"):
        value_of("accuracy", made)


def problems(*metrics: str) -> list[str]:
    """Ask for objectives of a run with one suite that two judges judge, of which one is a panel."""
    checks = [*(CheckConfig(name="max_words", params={"limit": n}) for n in (5, 9)), CheckConfig(name="instructions")]
    suite = SuiteConfig(
        name="style", kind=SuiteKind.generation, judges=["panel"],
        checks=checks,
        rewards=[CheckConfig(name="tone")],
        rubric=[CriterionConfig(name="helpful", description="Does it help?")],
    )  # fmt: skip
    suites = {"style": suite, "fit": SuiteConfig(name="fit", kind=SuiteKind.likelihood),
              "task": SuiteConfig(name="task", kind=SuiteKind.lm_eval, task="arc"),
              "bare": SuiteConfig(name="bare", kind=SuiteKind.generation)}  # fmt: skip
    panel = JudgeConfig(name="panel", kind="panel", members=["short"])
    others = [JudgeConfig(name="short", kind="rule"), JudgeConfig(name="base", kind="local")]
    judges = {judge.name: judge for judge in (panel, *others)}
    config = Config(stages=["curate", "sft", "evaluate"])
    config.evaluate.judges, config.evaluate.suites = ["base"], list(suites)
    config.objective = [ObjectiveConfig(metric=metric) for metric in metrics]
    found = nodes_for(config, suites, {}, judges=judges)[1]
    assert all(problem.startswith("objective[") for problem in found), found
    return found


def test_every_metric_of_a_suite_may_be_an_objective() -> None:
    named = [
        "all_checks", "max_words_1", "max_words_2", "instructions", "instructions_parts", "tone", "finished",
        "completion_tokens", "win_rate/panel", "win_rate/short", "win_rate/base", "helpful/base",
    ]  # fmt: skip
    asked = [f"style/{name}{policy}" for name in named for policy in ("", "/sft")]
    assert problems(*asked, "style/all_checks/base", "style/helpful/base/base") == []
    assert problems("fit/bits_per_byte", "fit/nats_per_token/base", "task/acc_norm", "task/whatever") == []
    assert problems("validation_loss", "sft/validation_loss") == []


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("style/all_chekcs", "objective[0].metric=style/all_chekcs: the suite has no such metric. Did you mean `all"),
        ("style/win_rate/shrot/sft", "Did you mean `win_rate/short`"),
        ("style/max_words", "Did you mean `max_words_2` or `max_words_1`"),
        ("style/all_checks/dpo", "METRIC/POLICY is that of one policy (base, sft)"),
        ("style/win_rate/short/base", "no such metric"),  # it is what the others are compared with
        ("style/win_rate", "no such metric"),
        ("style/max_words_1_parts", "no such metric"),  # a check that asks one thing has no parts
        ("style/helpful/short", "no such metric"),  # a rule compares, and rates by no criterion
        ("style/helpful/panel/sft", "no such metric"),
        ("bare/win_rate/short", "no such metric"),  # it counts a suite's checks, and this one has none
        ("style", "no such metric"),
        ("fit/completion_tokens", "Metrics: bits_per_byte, nats_per_token; METRIC"),
    ],
)
def test_a_misspelled_metric_of_a_suite_is_refused_before_anything_runs(metric: str, told: str) -> None:
    (problem,) = problems(metric)
    assert told in problem


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-m", "seed=1,2"]])
def test_on_the_command_line_a_run_and_a_sweep_are_refused_alike(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for begins in ("pipeline.commands.train.train", "pipeline.commands.sweep.train_each"):
        monkeypatch.setattr(begins, lambda *given: pytest.fail("it begins"))
    objective = "objective=[{metric: house_style/written_utilty/sft, direction: maximize}]"
    words = ["train", "+experiment=sft", "tracking=disabled", f"runtime.outputs={tmp_path / 'outputs'}", objective]
    assert run([*words, *flags]) == 2
    assert "Did you mean `written_utility`" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_the_record_of_a_node_is_found_while_it_runs_and_afterwards(tmp_path: Path) -> None:
    folder = RunFolder.named(tmp_path, "now_sft_sweep_0")
    assert record_of(folder.path, "sft") is None
    work = Store(tmp_path).work("sft", "0" * 64)
    folder.point_to_work("sft", work.path)
    Record(work.metrics).append({"loss": 1.0}, 1)
    running = record_of(folder.path, "sft")
    assert running is not None
    assert list(Record(running).rows()) == [{"step": 1, "loss": 1.0}]
    sealed = Store(tmp_path).seal(
        work, kind=ArtifactKind.policy, stage="sft", version=1, fingerprint="0" * 64, parents=[], config={},
        outcome=StageOutcome(parts={}, metrics={}, resolved={}, gates=[]),
    )  # fmt: skip
    folder.link("sft", sealed)
    found = record_of(folder.path, "sft")
    assert found is not None
    assert list(Record(found).rows()) == [{"step": 1, "loss": 1.0}]


def test_a_trial_that_is_begun_again_has_no_result_yet(tmp_path: Path) -> None:
    folder = RunFolder.named(tmp_path, "x")
    folder.write_objective([{"name": "a", "direction": "minimize", "value": 1.0}])
    assert read_objective(folder.path) == [{"name": "a", "direction": "minimize", "value": 1.0}]
    assert read_objective(RunFolder.named(tmp_path, "x").path) is None
