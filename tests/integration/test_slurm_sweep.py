"""Sweeps on a real Slurm, written as Hydra's users write them: jobs that end, are cancelled, pruned, found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_server import SlurmServer, missing_need, running_slurm
from sweeping import make_project, sweep_command, sweep_environment
from tracked_runs import files_below

pytestmark = pytest.mark.integration

FAKE = Path(__file__).resolve().parents[1] / "fake_trial.py"
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30")
OBJECTIVE = "objective=[{metric: validation_loss}]"
SECRETS = {"DATABASE_PASSWORD": "correct-horse-battery-staple-4711", "HF_TOKEN": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"}
SECONDS = 300


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmServer]:
    if (need := missing_need()) is not None:
        pytest.skip(need)
    with running_slurm() as server:
        yield server


class Project:
    """A folder in which sweeps are run on a cluster."""

    def __init__(self, folder: Path, slurm: SlurmServer) -> None:
        self.folder, self.slurm = make_project(folder), slurm
        self.environment = {**sweep_environment(folder), **slurm.environment}

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            sweep_command(self.folder, *SLURM, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder, env={**self.environment, **environment},
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str], status: int) -> tuple[str, str]:
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == status, out + err
        return out, err

    def run(self, *words: str, status: int = 0, **environment: str) -> tuple[str, str]:
        return self.end(self.start(*words, **environment), status)

    def trials(self) -> list[dict[str, Any]]:
        """The trials of the only sweep, as they are recorded at the moment."""
        found = list((self.folder / "outputs" / "runs").glob("*/sweep.json"))
        assert len(found) <= 1
        recorded: list[dict[str, Any]] = json.loads(found[0].read_text())["trials"] if found else []
        return recorded

    def job(self, number: int) -> str:
        return str(self.trials()[number]["job"]["id"])

    def log(self, number: int) -> str:
        return (self.folder / "outputs" / "runs" / self.trials()[number]["folder"] / "run.log").read_text()

    def until(self, process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, self.slurm.jobs()
            time.sleep(0.1)

    def is_training(self, number: int) -> bool:
        return len(self.trials()) > number and len(self.trials()[number]["intermediate"]) >= 2

    def jobs_of_its_trials(self) -> dict[str, list[str]]:
        """The folder of a trial -> the states of all jobs that it had."""
        names = {trial["folder"] for trial in self.trials()}
        found: dict[str, list[str]] = {}
        for name, state in self.slurm.jobs().values():
            if name in names:
                found.setdefault(name, []).append(state)
        return found


@pytest.fixture
def project(tmp_path: Path, slurm: SlurmServer) -> Project:
    return Project(tmp_path, slurm)


def kill_job(folder: str) -> None:
    """Kill what runs in a job, with no chance to write anything."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split() for line in listed.splitlines() if line.endswith(f" -m submitit.core._submit {folder}")]
    (own,) = [words[0] for words in found if "srun" not in words[1]]
    os.kill(int(own), signal.SIGKILL)


def leaks(content: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret.encode() in content]


def test_a_grid_runs_as_jobs_with_no_secret_in_what_they_leave(project: Project) -> None:
    words = ("sft.optimizer.learning_rate=1e-3,1e-2", "sft.max_steps=2", OBJECTIVE)
    out, err = project.run(*words, "hydra.launcher.array_parallelism=2", **SECRETS)
    assert "trials        jobs of Slurm, by submitit; 2 at a time" in out
    trials = project.trials()
    assert [(trial["status"], trial["exit_status"]) for trial in trials] == [("finished", 0)] * 2
    assert trials[1]["objectives"] < trials[0]["objectives"]  # the higher rate, in the trials' own words
    assert set(project.jobs_of_its_trials()) == {trial["folder"] for trial in trials}
    left = files_below(project.folder)
    kinds = {Path(name).name.split("_", 1)[-1] for name in left}
    assert {"submitted.pkl", "submission.sh", "0_log.out", "0_result.pkl", "ended.json", "0.log"} <= kinds
    assert {name: found for name, content in left.items() if (found := leaks(content))} == {}
    assert not leaks((out + err).encode())


def test_a_cancelled_job_saves_a_killed_one_is_told_and_both_go_on(project: Project, slurm: SlurmServer) -> None:
    words = ("sft.optimizer.learning_rate=1e-3,1e-2", "sft.num_epochs=12", "sweep.parallel=2", OBJECTIVE)
    process = project.start(*words)
    project.until(process, lambda: project.is_training(0) and project.is_training(1))
    slurm.say("scancel", project.job(0))
    kill_job(project.trials()[1]["job"]["folder"])
    project.end(process, 143)
    cancelled, killed = project.trials()
    assert (cancelled["status"], cancelled["exit_status"]) == ("failed", 143)
    assert cancelled["reason"].startswith("Interrupted: ")
    assert (killed["status"], killed["exit_status"]) == ("failed", 137)
    assert killed["reason"].startswith(f"Slurm ended the job {project.job(1)}: FAILED")
    project.run(*words)
    assert [trial["status"] for trial in project.trials()] == ["finished"] * 2
    assert "from the checkpoint of step" in project.log(0)


def test_a_stopped_sweep_leaves_no_job_and_goes_on_from_the_checkpoints(project: Project) -> None:
    words = ("sft.optimizer.learning_rate=1e-3,1e-2", "sft.num_epochs=12", OBJECTIVE)
    process = project.start(*words)  # one at a time
    project.until(process, lambda: project.is_training(0))
    process.send_signal(signal.SIGINT)
    _, err = project.end(process, 130)
    assert "2 of its trials wait" in err
    assert [(trial["status"], trial["exit_status"]) for trial in project.trials()] == [
        ("stopped", 143),
        ("waiting", None),
    ]
    alive = {"PENDING", "RUNNING"}
    assert not [states for states in project.jobs_of_its_trials().values() if alive & set(states)]
    project.run(*words)
    assert [trial["status"] for trial in project.trials()] == ["finished"] * 2
    assert "from the checkpoint of step" in project.log(0)


def test_a_killed_sweep_finds_its_job_again_and_runs_it_once(project: Project) -> None:
    words = ("sft.optimizer.learning_rate=1e-3,1e-2", "sft.num_epochs=12", OBJECTIVE)
    process = project.start(*words)
    project.until(process, lambda: project.is_training(0))
    process.kill()
    process.communicate()
    job = project.job(0)
    assert project.slurm.jobs()[job][1] == "RUNNING"
    out, _ = project.run(*words)
    assert f"#0 goes on in its job {job}" in out
    assert [trial["status"] for trial in project.trials()] == ["finished"] * 2
    assert {len(states) for states in project.jobs_of_its_trials().values()} == {1}
    assert "from the checkpoint of step" not in project.log(0)  # it never stopped


def test_a_search_prunes_jobs(project: Project, slurm: SlurmServer) -> None:
    """With trials of seconds, whose order is known."""
    process = project.start(
        "sft.lora.rank=range(1,1000)", "sweep.method=random", "sweep.trials=6", "sweep.pruner=median",
        "sweep.startup_trials=2", "sweep.pruner_warmup=0", "sweep.parallel=2", OBJECTIVE, "runtime.outputs=outputs",
        f"sweep.launch=[{sys.executable},{FAKE}]", FAKE_PAUSE="2",
    )  # fmt: skip
    project.end(process, 0)
    statuses = [trial["status"] for trial in project.trials()]
    assert set(statuses) == {"finished", "pruned"}
    assert all(trial["exit_status"] == 143 for trial in project.trials() if trial["status"] == "pruned")
    assert not [state for _, state in slurm.jobs().values() if state in {"PENDING", "RUNNING"}]


def test_a_sweep_that_is_a_job_itself_submits_its_trials(project: Project, slurm: SlurmServer) -> None:
    """What a job says of itself would be taken for what its jobs ask for."""
    words = sweep_command(
        project.folder, *SLURM, "seed=0,1", "runtime.outputs=outputs", f"sweep.launch=[{sys.executable},{FAKE}]"
    )
    done = subprocess.run(
        ["srun", "--cpus-per-task=2", *words], capture_output=True, text=True, check=False, cwd=project.folder,
        env={**project.environment, "FAKE_PAUSE": "0"}, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [trial["status"] for trial in project.trials()] == ["finished"] * 2


def test_a_job_that_slurm_refuses_ends_the_sweep_with_its_words(project: Project) -> None:
    _, err = project.run("seed=0,1", "hydra.launcher.partition=nowhere", status=2)
    assert "ConfigError: sweep.submitit: Slurm refuses the job of trial 0: " in err
    assert "invalid partition specified: nowhere" in err
    assert os.listdir(project.folder / "outputs" / "runs") != []
