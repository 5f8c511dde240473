"""`hydra/launcher=…` on the command line, as Hydra's users write it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.__main__ import run
from pipeline.commands.launchers import canonical
from pipeline.errors import ConfigError

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SLURM = "hydra/launcher=submitit_slurm"


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (["hydra/launcher=basic"], ["sweep.launcher=process"]),
        (["hydra/launcher=joblib"], ["sweep.launcher=process", f"sweep.parallel={CORES}"]),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], ["sweep.launcher=process", "sweep.parallel=3"]),
        (["hydra.launcher.n_jobs=-1", "hydra/launcher=joblib"], ["sweep.launcher=process", f"sweep.parallel={CORES}"]),
        (["+hydra/launcher=joblib", "++hydra.launcher.n_jobs=-99"], ["sweep.launcher=process", "sweep.parallel=1"]),
        (["hydra/launcher=submitit_local"], ["sweep.launcher=submitit_local"]),
        ([SLURM, "hydra.launcher.partition=gpu"], ["sweep.launcher=submitit_slurm", "sweep.submitit.partition=gpu"]),
        ([SLURM, "hydra.launcher.array_parallelism=8"], ["sweep.launcher=submitit_slurm", "sweep.parallel=8"]),
        ([SLURM, "hydra.launcher.nodes=1", "hydra.launcher.tasks_per_node=1"], ["sweep.launcher=submitit_slurm"]),
        (
            [SLURM, "+hydra.launcher.additional_parameters.nice=5", "hydra.launcher.setup=['module load a=b']"],
            [
                "sweep.launcher=submitit_slurm",
                "++sweep.submitit.additional_parameters.nice=5",
                "sweep.submitit.setup=['module load a=b']",
            ],
        ),
    ],
)
def test_hydras_words_become_keys_of_the_sweep(typed: list[str], keys: list[str]) -> None:
    others = ["-m", "--config-dir", "own", "+experiment=sft", "seed=1,2"]
    assert canonical([*others, *typed]) == [*others, *keys]
    assert canonical(others) == others


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            ["hydra/launcher=joblb"],
            "there is no launcher `joblb` here. Did you mean `joblib`? There are: basic, joblib",
        ),
        (["hydra/launcher=submitit"], "`submitit_local`"),
        (["hydra/launcher=joblib,basic"], "a launcher is for the whole sweep"),
        (["hydra/launcher=joblib", "hydra/launcher=basic"], "another launcher is named as well"),
        (["hydra.launcher.n_jobs=2"], "no launcher is named, whose key it is"),
        (["hydra/launcher=basic", "hydra.launcher.n_jobs=2"], "basic has no keys here"),
        (["hydra/launcher=joblib", "hydra.launcher.n_job=2"], "Did you mean `n_jobs`?"),
        (["hydra/launcher=joblib", "hydra.launcher.backend=loky"], "of joblib's keys only n_jobs has a meaning here"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "must be a whole number other than 0"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=two"], "must be a whole number"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2,3"], "Name one value"),
        (["hydra/launcher=joblib", "sweep.parallel=2"], "set sweep.parallel as well"),
        ([SLURM, "sweep.launcher=process"], "set sweep.launcher as well"),
        ([SLURM, "hydra.launcher.partitoin=gpu"], "Did you mean `partition`?"),
        ([SLURM, "hydra.launcher.name=mine"], "A job is named after its trial"),
        ([SLURM, "hydra.launcher.tasks_per_node=4"], "tasks_per_node is 1"),
        ([SLURM, "hydra.launcher.partition.x=4"], "has no key `partition.x`"),
        (["hydra/launcher=submitit_local", "hydra.launcher.array_parallelism=4"], "has no key `array_parallelism`"),
        (["hydra/sweeper=optuna"], "sweep.method=tpe searches with Optuna"),
        (["hydra.sweeper.n_trials=4"], "sweep.method=tpe searches with Optuna"),
    ],
)
def test_what_there_is_not_is_told_with_what_there_is(typed: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        canonical(["-m", "seed=1,2", *typed])
    assert told in str(caught.value)
    assert typed[-1] in str(caught.value) or typed[0] in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra/launcher=joblib"], "launchers start the trials of a sweep. Add -m"),
        (["hydra.launcher.n_jobs=2"], "Add -m"),
        (["-m", "seed=1,2", SLURM, "hydra.launcher.timeout_min=0"], "sweep.submitit.timeout_min=0: must be at least 1"),
        (["-m", "seed=1,2", SLURM, "hydra.launcher.mem_gb=lots"], "sweep.submitit.mem_gb=lots"),
        (["-m", "seed=1,2", "sweep.submitit.partitoin=gpu"], "Did you mean `sweep.submitit.partition`"),
        (["-m", "seed=1,2", "sweep.submitit.qos=long"], "sweep.launcher=process submits no job"),
        (["-m", "seed=1,2", "sweep.launcher=submitit_local", "sweep.wandb_file=s.yaml"], "the trials are W&B's"),
    ],
)
def test_the_command_line_tells_it_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert run(["train", "+experiment=sft", f"runtime.outputs={tmp_path}", "tracking=disabled", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("launcher", "missing"), [("submitit_local", "submitit"), ("submitit_slurm", "sbatch")])
def test_what_is_not_installed_is_told_before_there_is_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, launcher: str, missing: str
) -> None:
    import importlib.util

    if missing == "submitit":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["train", "-m", "+experiment=sft", f"runtime.outputs={tmp_path}", "tracking=disabled", "seed=1,2"]
    assert run([*words, f"hydra/launcher={launcher}"]) == 2
    told = {"submitit": "pip install -e .[submitit]", "sbatch": "sbatch, srun, squeue, scancel is not on the search"}
    assert told[missing] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
