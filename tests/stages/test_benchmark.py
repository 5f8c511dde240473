"""Tasks of lm-eval as suites: our scores are those that lm-eval gives by itself on the same folder, item by item.

Needs the extra `lm-eval`, which the tests install.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sft_jobs import Workshop, make_workshop, small_config, train_and_seal

from pipeline.artifacts.artifact import Artifact
from pipeline.config.composition import load_suite
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.shared import OptimizerConfig
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.samples import ScoredSample, read_samples
from pipeline.stages.benchmark import run_benchmark, scored_samples

CHOICE = """
task: desk_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{gold}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
WRITE = """
task: desk_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{word}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
filter_list:
  - {{name: first, filter: [{{function: regex, regex_pattern: "([a-z])"}}, {{function: take_first}}]}}
  - {{name: any, filter: [{{function: regex, regex_pattern: "(.)"}}, {{function: take_first}}]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""
WORDS = ["password", "delivery", "refund", "account", "settings", "order", "link", "card"]


def write_tasks(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        {"question": f"What about the {word}?", "word": "e", "gold": number % 2,
         "choices": [f"The {word} is ready.", f"The {word} was early."]}
        for number, word in enumerate(WORDS)
    ]  # fmt: skip
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "choice.yaml").write_text(CHOICE.format(file=file), encoding="utf-8")
    (folder / "write.yaml").write_text(WRITE.format(file=file), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("bench"), num_train=8, num_validation=2)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "desk")


def run(workshop: Workshop, suite: SuiteConfig, policy: Any = None) -> list[ScoredSample]:
    name = f"{suite.task}-{policy and policy.id}"
    with workshop.job(small_config(), name=name, policy=policy) as job:
        outcome = run_benchmark(replace(job, params={"suite": suite}))
        rows = read_samples(job.staging / "samples.jsonl", ScoredSample)
    assert outcome.metrics["items"] == len(rows)
    return rows


def suite_of(task: str, folder: Path, **more: Any) -> SuiteConfig:
    values = {"name": "desk", "kind": SuiteKind.lm_eval, "task": task, "task_folder": str(folder), "batch_size": 4}
    return SuiteConfig(**{**values, **more})


ALONE = """
import json, sys, lm_eval
from lm_eval.tasks import TaskManager
folder, model, adapter = sys.argv[1:]
tasks = TaskManager(include_path=folder, include_defaults=False)
found = {}
for name, peft in (("base", {}), ("policy", {"peft": adapter})):
    done = lm_eval.simple_evaluate(
        "hf", model_args={"pretrained": model, "dtype": "float32", **peft}, tasks=["desk_choice", "desk_write"],
        task_manager=tasks, batch_size=4, device="cpu", bootstrap_iters=0,
    )
    found[name] = done["results"]
print("RESULT", json.dumps(found))
"""


@pytest.fixture(scope="module")
def policy(workshop: Workshop) -> Artifact:
    config = small_config(num_epochs=4, optimizer=OptimizerConfig(learning_rate=0.05))
    return train_and_seal(workshop, config, "policy")


@pytest.fixture(scope="module")
def alone(workshop: Workshop, tasks: Path, policy: Artifact) -> dict[str, dict[str, dict[str, float]]]:
    """What lm-eval says by itself, in a process that knows nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tasks), workshop.model.id or "", str(policy.path / "adapter")],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return dict(json.loads(line.removeprefix("RESULT ")))


def mean(rows: list[ScoredSample], metric: str) -> float:
    return sum(row.scores[metric] for row in rows) / len(rows)


def test_the_scores_are_lm_evals_own_for_the_base_and_for_an_adapter(
    workshop: Workshop, tasks: Path, policy: Artifact, alone: Any
) -> None:
    found = {
        name: run(workshop, suite_of("desk_choice", tasks), used) for name, used in (("base", None), ("policy", policy))
    }
    for name, rows in found.items():
        assert len(rows) == len(WORDS)
        assert mean(rows, "acc") == alone[name]["desk_choice"]["acc,none"]
        assert mean(rows, "acc_norm") == alone[name]["desk_choice"]["acc_norm,none"]
    scores = {name: [row.scores for row in rows] for name, rows in found.items()}
    assert scores["base"] != scores["policy"], "the adapter changed nothing, so its scores prove nothing"
    first, second = found["base"][:2]
    assert first.id == "desk_choice/0000000"
    assert first.prompt == [{"role": "user", "content": "Q: What about the password?\nA:"}]
    assert (second.reference, second.topic, second.completion) == ("1", "desk_choice", "")


def test_what_is_written_is_scored_by_each_filter(workshop: Workshop, tasks: Path, alone: Any) -> None:
    rows = run(workshop, suite_of("desk_write", tasks))
    assert set(rows[0].scores) == {"exact_match/any", "exact_match/first"}
    for name in ("any", "first"):
        assert mean(rows, f"exact_match/{name}") == alone["base"]["desk_write"][f"exact_match,{name}"]
    assert any(row.completion for row in rows)
    limited = run(workshop, suite_of("desk_write", tasks, limit=3))
    assert [row.id for row in limited] == [row.id for row in rows[:3]]


@pytest.mark.integration
def test_a_suite_of_a_task_is_reported_like_any_other_and_its_files_count(
    workshop: Workshop, tasks: Path, alone: Any, tmp_path: Path
) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "desk.yaml").write_text(
        f"kind: lm_eval\ntask: desk_choice\ntask_folder: {tasks}\nbatch_size: 4\n"
    )
    arguments = [
        "train", "--config-dir", str(tmp_path), "stages=[evaluate]", "model=hub", f"model.id={workshop.model.id}",
        "model.dtype=float32", "evaluate.suites=[desk]", "tracking=disabled", "runtime.num_threads=1",
    ]  # fmt: skip
    environment = {**os.environ, "PIPELINE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def pipeline() -> str:
        done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    pipeline()
    newest = sorted((tmp_path / "outputs" / "runs").iterdir())[-1]
    report = json.loads((newest / "report.json").read_text())
    found = {entry["metric"]: entry for entry in report["metrics"]}
    for name in ("acc", "acc_norm"):
        assert found[name]["estimate"] == pytest.approx(alone["base"]["desk_choice"][f"{name},none"])
        assert found[name]["low"] < found[name]["high"]
    assert report["suites"][0]["primary"] == "acc"
    assert "desk_choice/" in (newest / "report.html").read_text()
    rows = tasks / "rows.jsonl"
    before = rows.read_text()
    try:
        rows.write_text(before.replace("refund", "cashback"))
        assert pipeline().count("sealed") == 2, "an edited file of the task's folder is another task"
    finally:
        rows.write_text(before)


def test_what_is_missing_is_said(workshop: Workshop, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"defines no task `desk_chioce`\. Did you mean `desk_choice`"):
        run(workshop, suite_of("desk_chioce", tasks))
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "choice.yaml").write_text(CHOICE.format(file=tasks / "rows.jsonl"))
    with pytest.raises(DataError, match=r"reads .*rows\.jsonl, outside of .*outside\. Put the file there"):
        run(workshop, suite_of("desk_choice", folder))
    (folder / "choice.yaml").write_text(CHOICE.format(file=folder / "nowhere.jsonl"))
    with pytest.raises(DataError, match=r"suite desk: lm-eval cannot run the task desk_choice: .*nowhere\.jsonl"):
        run(workshop, suite_of("desk_choice", folder))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("kind: lm_eval", "task: a suite of the kind lm_eval names the task"),
        ("kind: lm_eval\ntask: a\nchecks: [{name: quoted}]", "checks: a lm_eval suite has no completion to look at"),
        ("kind: lm_eval\ntask: a\ntask_folder: nowhere", "task_folder: there is no folder nowhere"),
        ("kind: generation\ntask: a", "task: only a suite of the kind lm_eval has one"),
        ("kind: lm-eval\ntask: a", "lm-eval"),
    ],
)
def test_a_wrong_suite_says_what_is_wrong(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_suite("mine", [tmp_path])
    assert problem in str(caught.value)


def test_without_lm_eval_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine.yaml").write_text("kind: lm_eval\ntask: a")
    load_suite("mine", [tmp_path])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs lm-eval: pip install finetune-pipeline\[lm-eval\]"):
        load_suite("mine", [tmp_path])


def entry(number: int, filter_name: str, **scores: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "filter": filter_name, "metrics": list(scores), "arguments": [["Q", " A"]], "target": "A",
        "filtered_resps": ["text"], "doc_hash": str(number), **scores,
    }  # fmt: skip


def test_metrics_without_a_number_per_item_are_left_out_and_nothing_left_is_an_error() -> None:
    suite = SuiteConfig(name="s", kind=SuiteKind.lm_eval, task="t")
    results: dict[str, Any] = {
        "samples": {"t": [entry(0, "none", acc=True, corpus=(1, 2), loss=0.5), entry(0, "strict", acc=0.0)]},
        "higher_is_better": {"t": {"acc": True, "corpus": True, "loss": False}},
    }
    (row,) = scored_samples(results, suite)
    assert row.scores == {"acc": 1.0, "acc/strict": 0.0, "loss": 0.5}
    assert row.lower_is_better == ["loss"]
    assert row.completion == "text"
    results["samples"] = {"t": [entry(0, "none", corpus=(1, 2))]}
    with pytest.raises(DataError, match=r"t scores no single item \(corpus exists only for all"):
        scored_samples(results, suite)
    results["samples"] = {}
    with pytest.raises(DataError, match="the task t has no items"):
        scored_samples(results, suite)
