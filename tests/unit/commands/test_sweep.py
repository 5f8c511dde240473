"""Sweeps on the command line, with trials that take milliseconds."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import run
from pipeline.artifacts.locks import exclusive_lock
from pipeline.commands.sweep import LOCK, unfinished
from pipeline.config.paths import configs_folder
from pipeline.config.sweep import SweepConfig, SweepMethod
from pipeline.sweeps.record import SweepRecord, Trial, TrialStatus, read_sweep

FAKE = Path(__file__).resolve().parents[2] / "fake_trial.py"
OBJECTIVE = "objective=[{metric: validation_loss}]"


def words(outputs: Path, *arguments: str) -> list[str]:
    return [
        "train", "-m", "+experiment=sft", f"runtime.outputs={outputs}", "tracking=disabled",
        f"sweep.launch=[{sys.executable},{FAKE}]", *arguments,
    ]  # fmt: skip


def start(outputs: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words(outputs, *arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def sweeps(outputs: Path) -> list[SweepRecord]:
    return [read_sweep(path.parent) for path in sorted((outputs / "runs").glob("*/sweep.json"))]


def epochs(outputs: Path) -> list[tuple[str, int]]:
    lines = (outputs / "epochs.log").read_text().splitlines() if (outputs / "epochs.log").exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


@pytest.mark.slow
def test_a_failed_trial_fails_the_sweep_which_prints_all_of_them_best_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words(tmp_path, OBJECTIVE, "sft.lora.rank=3,1", "seed=0,2")) == 2
    out, err = capfd.readouterr()
    header, *rows = out[out.index("TRIAL") :].splitlines()
    assert header.split() == [
        "TRIAL", "sft.lora.rank", "seed", "sft/validation_loss", "STATUS", "EXIT", "TIME", "FOLDER",
    ]  # fmt: skip
    assert [row.split()[:6] for row in rows[:4]] == [
        ["2", "1", "0", "1.25", "finished", "0"],
        ["0", "3", "0", "3.25", "finished", "0"],
        ["1", "3", "2", "-", "failed", "2"],
        ["3", "1", "2", "-", "failed", "2"],
    ]
    assert "2 of 4 trials failed:\n  trial 1: exit status 2: ConfigError: 1 problem(s) in the configuration: " in err
    assert "configuration: seed=2: is not to be had\n" in err
    record = sweeps(tmp_path)[0]
    assert (record.status, record.experiment, record.method) == ("failed", "sft", "grid")
    assert record.space == {"sft.lora.rank": {"choices": [3, 1]}, "seed": {"choices": [0, 2]}}
    assert shlex.split(record.command)[:5] == ["python", "-m", "pipeline", "train", "-m"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_same_command_in_any_order(tmp_path: Path) -> None:
    values = ("sft.lora.rank=1,2,3", OBJECTIVE)
    process = start(tmp_path, *values, FAKE_PAUSE="0.2")
    while len(epochs(tmp_path)) < 6:
        assert process.poll() is None
        time.sleep(0.01)
    orphan = int((tmp_path / "epochs.log").read_text().split()[-1])
    os.kill(orphan, signal.SIGKILL)
    process.kill()  # with no chance to write anything
    process.communicate()
    assert [str(trial.status) for trial in sweeps(tmp_path)[0].trials] == ["finished", "running", "waiting"]
    again = start(tmp_path, *reversed(values), "sweep.parallel=2")
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert "1 of 3 trials are over" in out
    assert "#0:" not in out
    assert len(sweeps(tmp_path)) == 1
    assert [str(trial.status) for trial in sweeps(tmp_path)[0].trials] == ["finished"] * 3
    assert sorted((name[-1], epoch) for name, epoch in epochs(tmp_path)) == [(n, e) for n in "012" for e in range(1, 5)]


@pytest.mark.slow
def test_a_stopped_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "sft.lora.rank=1,2", FAKE_PAUSE="0.2")
    while not epochs(tmp_path):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143
    assert "stopped" in out
    assert "2 of its trials wait" in err
    assert "Go on with: python -m pipeline train -m +experiment=sft" in err


@pytest.mark.slow
def test_another_sweep_is_not_taken_for_this_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (("sft.lora.rank=1,2",), ("sft.lora.rank=1,2",), ("sft.lora.rank=1,3",)):
        assert run(words(tmp_path, *arguments)) == 0
    # One that is over is made anew, from what its trials have sealed; one of other values is another.
    assert len(sweeps(tmp_path)) == 3
    capfd.readouterr()


@pytest.mark.slow
def test_a_space_of_its_own_and_keys_that_are_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(words(tmp_path, "+sweep=sft", "sweep.trials=2", "sft.lora.rank=8")) == 0
    record = sweeps(tmp_path)[0]
    assert record.method == "tpe"
    assert list(record.space) == ["sft.optimizer.learning_rate"]
    assert len({trial.params["sft.optimizer.learning_rate"] for trial in record.trials}) == 2
    assert "study.db" in {path.name for path in record.path.iterdir()}
    capfd.readouterr()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["hydra/launcher=ray", "seed=1,2"], "There are: basic, joblib, submitit_local, submitit_slurm"),
        (["hydra/sweeper=optuna", "seed=1,2"], "sweep.method=tpe searches with Optuna"),
        (["sft.lora.rnak=1,2"], "Did you mean `sft.lora.rank`"),
        (["sft.optimizer.learning_rate=interval(0.1,0.2)"], "an interval has no grid"),
        (["sweep.method=tpe", "seed=1,2"], "a search needs an objective"),
        (["seed=1,2", "objective=[{metric: hose_style/all_checks}]"], "Did you mean `house_style`"),
        (["seed=1,2", "sweep.pruner=median", OBJECTIVE], "a grid runs every combination"),
        (["+sweep.space={sft.lora.rnk: '1,2'}"], "sweep.space.sft.lora.rnk: There is no key"),
        (["seed=1,2", "sweep.storage=postgresql://me:pass@host/db"], "PGPASSWORD"),
        (["seed=1,2", "sft.lora.rank=0"], "sft.lora.rank=0: "),
        (["seed=1,2,3", "data=jsonl", "data.path=nowhere.jsonl"], "nowhere.jsonl"),
        (["sft.lora.rank=-1,0", "sft.num_epochs=0"], "sft.num_epochs=0: "),
        (["+sweep=dpo", "dpo.loss={ipo_mean:1,sigmoid:1}"], "mixes what has different values"),
        (["+sweep=sfd"], "sweep has no choice `sfd`. Did you mean `sft`"),
        (["sweep=sft"], "a space to sweep over is added, so write `+sweep=sft`"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(words(tmp_path, *arguments)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in (configs_folder() / "sweep").glob("*.yaml")))
def test_every_space_composes_with_its_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / "wandb.yaml"
    arguments = [
        "train",
        "-m",
        f"+experiment={name}",
        f"+sweep={name}",
        "sweep.pruner=none",
        f"sweep.wandb_file={file}",
    ]
    if name == "ppo":
        assert run(arguments) == 2
        assert "W&B searches for one objective" in capsys.readouterr().err
        return
    assert run(arguments) == 0
    written = yaml.safe_load(file.read_text())
    assert written["method"] == "bayes"
    assert f"{name}.optimizer.learning_rate" in written["parameters"]
    rate = written["parameters"][f"{name}.optimizer.learning_rate"]
    assert rate["distribution"] == "log_uniform_values"
    assert rate["min"] < rate["max"]
    assert written["command"][:5] == ["${env}", "${interpreter}", "-m", "pipeline", "train"]
    assert written["command"][-1] == "${args_no_hyphens}"
    assert json.dumps(written["metric"]).count("objective") == 1


@pytest.mark.slow
def test_beta_is_on_the_scale_of_its_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for number, loss in enumerate(("sigmoid", "ipo_mean", "{ipo_mean:1,sft:0.2}")):
        file = tmp_path / f"{number}.yaml"
        arguments = ["train", "-m", "+experiment=dpo", "+sweep=dpo", f"dpo.loss={loss}", "sweep.pruner=none"]
        assert run([*arguments, f"sweep.wandb_file={file}"]) == 0
        found[loss] = yaml.safe_load(file.read_text())["parameters"]["dpo.beta"]
    assert found["sigmoid"]["max"] <= found["ipo_mean"]["min"]  # 0.1 and 2.5 are their defaults
    assert found["{ipo_mean:1,sft:0.2}"] == found["ipo_mean"]  # a likelihood has no beta
    capsys.readouterr()


def test_of_records_that_share_a_storage_each_living_process_has_one_and_unfinished_trials_come_first(
    tmp_path: Path,
) -> None:
    def folder(name: str, *statuses: TrialStatus) -> Path:
        trials = [Trial(number=n, params={}, overrides=[], folder="f", status=one) for n, one in enumerate(statuses)]
        path = tmp_path / "runs" / f"{name}_sft_sweep"
        common = {"identity": "i", "command": "c", "experiment": "sft", "method": "random", "objectives": []}
        SweepRecord(path=path, space={}, trials=trials, **common).save()  # type: ignore[arg-type]
        return path

    def chosen(wanted: int, storage: str | None) -> Path | None:
        config = SweepConfig(method=SweepMethod.random, storage=storage)
        record = unfinished(tmp_path, "i", config, wanted)
        return record and record.path

    shared = "postgresql+psycopg://host/database"
    stopped = folder("1", TrialStatus.finished, TrialStatus.stopped)
    over = folder("2", TrialStatus.finished, TrialStatus.pruned)
    assert (chosen(2, None), chosen(4, None)) == (None, over)  # alone, only the newest counts, and is made anew
    assert chosen(4, shared) == stopped
    with exclusive_lock(stopped / LOCK, wait=False, notice=print):
        assert chosen(2, shared) == over
        with exclusive_lock(over / LOCK, wait=False, notice=print):
            assert chosen(4, shared) is None
    assert unfinished(tmp_path, "another", SweepConfig(storage=shared), 4) is None
