"""The whole pipeline on a tiny model, through the command line: made once, reused, recomputed where it must be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sft_jobs import WORDS
from tiny import make_tiny_model

SMALL = [
    "+experiment=sft", "model=hub", "data=jsonl", "evaluate.suites=[heldout]", "tracking=disabled", "sft.num_epochs=2",
    "sft.batch_size=8", "sft.max_length=128", "sft.lora.rank=4", "sft.optimizer.learning_rate=1e-2",
    "model.dtype=float32",
    "runtime.num_threads=1", "curate.test_fraction=0.2",
    "curate.near_duplicates.enabled=false",  # the rows below are made by one template
]  # fmt: skip


def pipeline(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIPELINE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return pipeline(
        "train", *SMALL, f"model.id={folder / 'model'}", f"data.path={folder / 'rows.jsonl'}", *overrides, folder=folder
    )


def artifacts(folder: Path, stage: str) -> list[Path]:
    return sorted(path for path in (folder / "outputs" / "artifacts").glob(f"{stage}-*") if path.is_dir())


def last_report(folder: Path) -> bytes:
    return sorted((folder / "outputs" / "runs").iterdir())[-1].joinpath("report.json").read_bytes()


def write_rows(path: Path, count: int) -> None:
    lines = []
    for number in range(count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        question = f"What about the {word} and the {other} of order {number}?"
        reply = f"The {word} is ready. Open the {other} page."
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        lines.append(json.dumps({"id": f"row-{number:03d}", "messages": messages}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the experiment has run once; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("made")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", 60)
    done = train(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def test_the_run_leaves_a_policy_a_report_and_links(made: Path) -> None:
    run = next((made / "outputs" / "runs").iterdir())
    report = json.loads((run / "report.json").read_text())
    assert report["policies"] == ["base", "sft"]
    difference = next(
        m
        for m in report["metrics"]
        if m["policy"] == "sft" and m["baseline"] == "base" and m["metric"] == "bits_per_byte"
    )
    assert difference["high"] < 0  # the tiny model learns these sentences: held-out bits fall, interval below zero
    assert difference["n"] >= 6
    assert "<html" in (run / "report.html").read_text()[:300]
    assert (run / "artifacts" / "sft" / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "config.yaml").is_file()


def test_the_policy_loads_in_plain_peft(made: Path) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(made / "model", dtype=torch.float32)
    ids = torch.arange(10, 20)[None]
    before = base(ids).logits
    policy = peft.PeftModel.from_pretrained(base, str(artifacts(made, "sft")[0] / "adapter"))
    assert not torch.allclose(policy(ids).logits, before)


def test_an_unchanged_rerun_reuses_everything_without_torch(copy: Path) -> None:
    before = last_report(copy)
    arguments = ["train", *SMALL, f"model.id={copy / 'model'}", f"data.path={copy / 'rows.jsonl'}"]
    script = (
        "import sys\nfrom pipeline.__main__ import run\n"
        f"status = run({arguments!r})\n"
        "print('TORCH', 'torch' in sys.modules, 'STATUS', status)\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=copy,
        env={**os.environ, "PIPELINE_CACHE": str(copy / "cache")},
    )  # fmt: skip
    assert "TORCH False STATUS 0" in done.stdout, done.stdout + done.stderr
    assert time.monotonic() - started < 20  # a hang guard; how fast it is, is measured elsewhere
    assert done.stdout.count("reused") == 5  # curate, sft, two samples, report
    assert "nothing it reads has changed" in done.stdout
    assert last_report(copy) == before


def test_a_changed_hyperparameter_reruns_what_depends_on_it(copy: Path) -> None:
    done = train(copy, "sft.optimizer.learning_rate=5e-3")
    assert done.returncode == 0, done.stderr
    reused = [line.split()[0] for line in done.stdout.splitlines() if " reused " in line]
    assert reused == ["curate", "samples-heldout-base"]
    assert "sft.optimizer.learning_rate: 0.01 -> 0.005" in done.stdout


def test_a_result_that_comes_out_the_same_stops_the_recomputation(copy: Path) -> None:
    done = train(copy, "force=[curate]")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" reused ") == 4


def test_a_key_that_does_not_move_results_reruns_nothing(copy: Path) -> None:
    done = train(copy, "sft.keep_checkpoints=3", "tracking.tags=[x]")
    assert done.stdout.count(" reused ") == 5, done.stdout + done.stderr


def test_a_damaged_artifact_is_set_aside_and_made_again(copy: Path) -> None:
    policy = artifacts(copy, "sft")[0]
    weights = policy / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    assert pipeline("runs", "verify", folder=copy).returncode == 4
    done = train(copy)
    assert done.returncode == 0, done.stderr
    assert "adapter_model.safetensors" in done.stdout
    assert any(path.name.startswith("corrupt-") for path in (copy / "outputs" / "artifacts").iterdir())
    assert artifacts(copy, "sft")[0].name == policy.name  # trained again to the same weights
    assert pipeline("runs", "verify", folder=copy).returncode == 0


def test_the_report_is_byte_identical_when_made_again(copy: Path) -> None:
    before = last_report(copy)
    done = train(copy, "force=[evaluate]")
    assert done.returncode == 0, done.stderr
    assert "reused" in done.stdout
    assert done.stdout.count(" running ") == 3
    assert last_report(copy) == before


def test_artifacts_can_be_copied_to_another_machine(made: Path, tmp_path: Path) -> None:
    """Another outputs folder, the model elsewhere: everything is reused from the copied folders alone."""
    shutil.copytree(made / "model", tmp_path / "model")
    shutil.copy(made / "rows.jsonl", tmp_path / "rows.jsonl")
    for folder in (made / "outputs" / "artifacts").iterdir():
        if folder.is_dir():
            shutil.copytree(folder, tmp_path / "outputs" / "artifacts" / folder.name)
    done = train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" reused ") == 5, done.stdout


def test_two_processes_started_together_do_the_work_once(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    write_rows(tmp_path / "rows.jsonl", 40)
    command = [
        sys.executable, "-m", "pipeline", "train", *SMALL,
        f"model.id={tmp_path / 'model'}", f"data.path={tmp_path / 'rows.jsonl'}",
    ]  # fmt: skip
    environment = {**os.environ, "PIPELINE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    for stage in ("curate", "sft", "samples", "report"):
        made_by = [
            f"{stage}"
            for out, _ in outputs
            for line in out.splitlines()
            if line.startswith(stage) and " sealed " in line
        ]
        assert len(made_by) == (2 if stage == "samples" else 1)
    assert any("Waiting for" in out for out, _ in outputs)


def test_a_sweep_runs_each_job_in_its_own_process_and_curates_once(copy: Path) -> None:
    done = train(copy, "-m", "sft.lora.rank=4,8")
    assert done.returncode == 0, done.stderr
    runs = sorted(path.name for path in (copy / "outputs" / "runs").iterdir() if not path.name.endswith("_sweep"))
    assert [name.rsplit("_", 1)[1] for name in runs[-2:]] == ["0", "1"]
    assert len(artifacts(copy, "curate")) == 1
    assert len(artifacts(copy, "sft")) == 2


def test_plan_trains_nothing_and_counts_tokens(copy: Path) -> None:
    before = sorted(path.name for path in (copy / "outputs" / "artifacts").iterdir())
    done = pipeline(
        "plan", *SMALL, f"model.id={copy / 'model'}", f"data.path={copy / 'rows.jsonl'}", "sft.seed=3", folder=copy
    )
    assert done.returncode == 0, done.stderr
    assert "tokens" in done.stdout
    assert sorted(path.name for path in (copy / "outputs" / "artifacts").iterdir()) == before


def test_prune_keeps_what_runs_reach(copy: Path) -> None:
    train(copy, "sft.optimizer.learning_rate=5e-3")
    assert len(artifacts(copy, "sft")) == 2
    shutil.rmtree(sorted((copy / "outputs" / "runs").iterdir())[-1])
    assert pipeline("runs", "prune", folder=copy).returncode == 0
    assert len(artifacts(copy, "sft")) == 2  # a dry run
    assert pipeline("runs", "prune", "--apply", folder=copy).returncode == 0
    assert len(artifacts(copy, "sft")) == 1
    assert train(copy).stdout.count(" reused ") == 5
