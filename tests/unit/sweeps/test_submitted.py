"""Trials in jobs: submitit really starts them on this machine; what Slurm answers is played."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_sweep import by_status, epochs, make_sweep

from pipeline.config.launching import Launcher, SubmititConfig
from pipeline.config.space import Axis
from pipeline.config.sweep import Pruner, SweepConfig, SweepMethod
from pipeline.errors import ConfigError
from pipeline.sweeps import queues, running, submitted
from pipeline.sweeps.launching import slurm_parameters
from pipeline.sweeps.queues import GONE, LocalQueue, SlurmQueue
from pipeline.sweeps.record import Trial, TrialStatus, read_sweep
from pipeline.sweeps.submitted import SubmittedTrial, earlier_job

LOCAL = Launcher.submitit_local
RANKS = Axis(key="sft.lora.rank", choices=("1", "2", "3"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(queues, "QUERY_SECONDS", 0.1)
    monkeypatch.setattr(submitted, "GRACE_SECONDS", 0.5)
    queues.queue_of.cache_clear()
    yield
    queues.queue_of.cache_clear()


def submit(folder: Path, number: int = 0, **job: str) -> Trial:
    """A trial as the record has it once its job is submitted."""
    (folder / "jobs" / str(number)).mkdir(parents=True, exist_ok=True)
    described = {
        "launcher": "submitit_slurm", "host": socket.gethostname(), "folder": str(folder / "jobs" / str(number)),
        "id": "17", "ended": "e.json", **job,
    }  # fmt: skip
    return Trial(
        number=number, params={}, overrides=[], folder=f"now_sft_sweep_{number}", status=TrialStatus.running,
        started="2026-01-01T00:00:00+00:00", job=described,
    )  # fmt: skip


def end(trial: Trial, status: int, reason: str = "") -> None:
    assert trial.job
    path = Path(trial.job["folder"]) / trial.job["ended"]
    path.write_text(json.dumps({"exit_status": status, "reason": reason}))


class PlayedQueue:
    """A queue that says what it is told to say."""

    name = "Slurm"

    def __init__(self) -> None:
        self.how: str | None = None
        self.stopped = 0

    def ended(self, job: dict[str, str]) -> str | None:
        return self.how

    def stop(self, job: dict[str, str]) -> None:
        self.stopped += 1

    def forget(self, job: dict[str, str]) -> None:
        self.how = "forgotten"


@pytest.mark.slow
def test_jobs_of_this_machine_have_the_results_of_processes(tmp_path: Path) -> None:
    """Status, reason, objective, course, log: whatever a sweep knows of a trial."""
    axes = [Axis(key="sft.lora.rank", choices=("1",)), Axis(key="seed", choices=("0", "2", "30", "98"))]
    found: dict[str, list[tuple[Any, ...]]] = {}
    for launcher in (Launcher.process, LOCAL):
        sweep = make_sweep(tmp_path / launcher, axes, launcher=launcher, parallel=4)
        sweep.run()
        trials = read_sweep(sweep.record.path).trials
        found[launcher] = [(t.status, t.exit_status, t.reason, t.objectives, t.intermediate) for t in trials]
        logs = [(sweep.record.path / f"{number}.log").read_text() for number in range(4)]
        assert "ConfigError: 1 problem(s) in the configuration" in logs[1]
    assert found[LOCAL] == found[Launcher.process]
    assert {entry[0] for entry in found[LOCAL]} == {"finished", "failed"}


@pytest.mark.slow
def test_a_stopped_sweep_lets_its_jobs_save_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "1")

    def interrupt() -> None:
        while len(epochs(tmp_path)) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    sweep = make_sweep(tmp_path, [RANKS], launcher=LOCAL, parallel=2)
    assert sweep.run().signal_number == signal.SIGINT
    thread.join()
    assert by_status(sweep.record.trials) == {"stopped": [0, 1], "waiting": [2]}
    assert [trial.exit_status for trial in sweep.record.trials[:2]] == [143, 143]
    again = make_sweep(tmp_path, [RANKS], read_sweep(sweep.record.path), launcher=LOCAL, parallel=3)
    again.run()
    assert by_status(again.record.trials) == {"finished": [0, 1, 2]}
    counts = [(name[-1], epoch) for name, epoch, _ in epochs(tmp_path)]
    assert sorted(counts) == [(number, epoch) for number in "012" for epoch in range(1, 5)]  # none was made twice


@pytest.mark.slow
def test_a_search_prunes_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "0.3")
    axes = [Axis(key="sft.lora.rank", low=1, high=1000, integer=True)]
    sweep = make_sweep(
        tmp_path, axes, method=SweepMethod.random, trials=5, pruner=Pruner.median, startup_trials=2, pruner_warmup=0,
        parallel=2, launcher=LOCAL,
    )  # fmt: skip
    sweep.run()
    pruned = [trial for trial in sweep.record.trials if trial.status is TrialStatus.pruned]
    assert pruned
    assert all(trial.exit_status == 143 and trial.objectives is None for trial in pruned)
    assert sweep.record.status == "complete"


@pytest.mark.slow
def test_a_sweep_that_was_killed_finds_its_jobs_and_runs_none_twice(tmp_path: Path) -> None:
    """One job runs on, one ended meanwhile, and one was killed with the sweep."""
    script = (
        "from pathlib import Path; from made_sweep import make_sweep; from pipeline.config.space import Axis\n"
        "from pipeline.config.launching import Launcher\n"
        f"make_sweep(Path({str(tmp_path)!r}), [Axis(key='sft.lora.rank', choices=('1', '2', '3'))], "
        "launcher=Launcher.submitit_local, parallel=3).run()"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    first = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path, "FAKE_PAUSE": "2"})
    while len({name for name, _, _ in epochs(tmp_path)}) < 3:
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    lines = (tmp_path / "epochs.log").read_text().splitlines()
    victim = next(line for line in lines if line.split()[0].endswith("_2"))
    os.kill(int(victim.split()[-1]), signal.SIGKILL)
    record = read_sweep(tmp_path / "runs" / "now_sft_sweep")
    assert by_status(record.trials) == {"running": [0, 1, 2]}
    jobs = [trial.job and trial.job["id"] for trial in record.trials]
    said: list[str] = []
    again = make_sweep(tmp_path, [RANKS], record, launcher=LOCAL, parallel=3)
    again.say = said.append
    while not list((record.path / "jobs" / "2").glob("*_ended.json")):  # the job of the victim tells its end
        time.sleep(0.02)
    again.run()
    assert by_status(again.record.trials) == {"finished": [0, 1, 2]}
    assert [line for line in said if "goes on" in line] == [f"#{n} goes on in its job {jobs[n]}" for n in (0, 1)]
    counts = [(name[-1], epoch) for name, epoch, _ in epochs(tmp_path)]
    assert sorted(counts) == [(number, epoch) for number in "012" for epoch in range(1, 5)]


@pytest.mark.slow
def test_nothing_of_the_environment_is_in_the_files_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_API_KEY", "canary-" + "7" * 30)
    axes = [Axis(key="sft.lora.rank", choices=("1",)), Axis(key="seed", choices=("99",))]
    sweep = make_sweep(tmp_path, axes, launcher=LOCAL)
    sweep.run()
    assert sweep.record.trials[0].reason == "RuntimeError: the key is [redacted]"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kinds = {path.name.split("_", 1)[-1] for path in files}
    assert {"submitted.pkl", "0_log.out", "0_result.pkl", "ended.json", "0.log"} <= kinds  # looked through
    assert not any(b"canary-" in path.read_bytes() for path in files)


@pytest.mark.slow
def test_a_job_of_this_machine_sees_the_gpus_of_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit hides all of them where none is asked for."""
    shown = tmp_path / "show.py"
    shown.write_text("import os, sys; print(os.environ.get('CUDA_VISIBLE_DEVICES')); sys.exit(0)")
    for devices, parallel, told in (("4,5", 1, "4,5"), ("4,5", 2, "4"), (None, 2, "None")):
        if devices:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        else:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        axes = [Axis(key="seed", choices=("1",))]
        sweep = make_sweep(tmp_path / told / str(parallel), axes, launcher=LOCAL, parallel=parallel)
        sweep.config.launch = [sys.executable, str(shown)]
        sweep.run()
        assert (sweep.record.path / "0.log").read_text() == f"{told}\n"


def test_a_job_that_the_scheduler_killed_fails_with_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitted, "GRACE_SECONDS", 0.05)
    queue, trial = PlayedQueue(), submit(tmp_path)
    running_trial = SubmittedTrial(trial, queue, slot=0)
    assert running_trial.poll() is None
    queue.how = "PREEMPTED"
    assert running_trial.poll() is None
    queue.how = None  # it waits for its turn again
    assert running_trial.poll() is None
    queue.how = "OUT_OF_MEMORY"
    assert running_trial.poll() is None  # what it wrote may be under way
    time.sleep(0.06)
    assert running_trial.poll() == 137
    assert running_trial.close().startswith("Slurm ended the job 17: OUT_OF_MEMORY. Its files: ")


def test_what_a_job_wrote_counts_more_than_what_its_queue_says(tmp_path: Path) -> None:
    queue, trial = PlayedQueue(), submit(tmp_path)
    queue.how = "TIMEOUT"
    running_trial = SubmittedTrial(trial, queue, slot=0)
    assert running_trial.poll() is None
    end(trial, 2, "ConfigError: no")
    assert (running_trial.poll(), running_trial.close()) == (2, "ConfigError: no")


def test_a_job_that_had_not_begun_is_stopped_at_once_and_one_that_did_not_hear_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = PlayedQueue()
    running_trial = SubmittedTrial(submit(tmp_path), queue, slot=0)
    running_trial.stop(signal.SIGINT)
    assert (running_trial.poll(), queue.stopped) == (None, 1)
    monkeypatch.setattr(submitted, "REPEAT_SECONDS", 0)
    assert (running_trial.poll(), queue.stopped) == (None, 2)
    queue.how = "CANCELLED"
    assert running_trial.poll() == 143


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put programs first on the search path."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\necho "$0 $*" >> {folder}/calls\n{script}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_squeue_says_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queues, "QUERY_SECONDS", 0)
    queue, jobs = SlurmQueue(), [{"id": str(number)} for number in (1, 2, 3, 4)]
    answer = r"printf '1|RUNNING|None\n2|TIMEOUT|TimeLimit\n3|PENDING|BeginTime\n'"
    programs(tmp_path / "bin", monkeypatch, squeue=answer)
    assert [queue.ended(job) for job in jobs] == [None, "TIMEOUT (TimeLimit)", None, GONE]
    assert (tmp_path / "bin" / "calls").read_text().splitlines()[-1].endswith("--jobs=1,2,3,4")
    programs(tmp_path / "bin", monkeypatch, squeue="echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    assert [queue.ended(job) for job in jobs] == [None, "TIMEOUT (TimeLimit)", None, GONE]  # what is known stays
    assert queue.ended({"id": "5"}) is None
    assert capsys.readouterr().err.count("jobs are taken to run: slurm_load_jobs error: Unable to contact") == 1
    programs(tmp_path / "bin", monkeypatch, squeue="echo 'error: Invalid job id specified' >&2; exit 1")
    assert SlurmQueue().ended({"id": "6"}) == GONE


def test_a_job_of_an_earlier_sweep_is_found_or_asked_for_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, squeue='case "$*" in *--name=*) echo 23;; *) echo "23|RUNNING|None";; esac')
    unnamed = submit(tmp_path, id="")  # its sweep was killed before it heard the number
    found = earlier_job(unnamed, 0)
    assert found is not None
    assert found.job["id"] == "23"
    queues.queue_of.cache_clear()
    programs(tmp_path / "bin", monkeypatch, squeue="exit 0")
    assert earlier_job(submit(tmp_path, id=""), 0) is None
    ended = submit(tmp_path)
    assert earlier_job(ended, 0) is None  # killed: it runs again
    end(ended, 143, "Interrupted: by somebody")
    assert earlier_job(ended, 0) is None  # stopped: likewise
    end(ended, 0)
    found = earlier_job(ended, 0)
    assert found is not None
    assert found.poll() == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="Go on with the sweep where Slurm's commands are"):
        earlier_job(submit(tmp_path), 0)
    with pytest.raises(ConfigError, match="on elsewhere and may run there"):
        earlier_job(submit(tmp_path, launcher="submitit_local", host="elsewhere"), 0)
    assert earlier_job(Trial(number=0, params={}, overrides=[], folder="f"), 0) is None


def test_a_process_is_a_job_only_if_it_is_that_of_the_folder(tmp_path: Path) -> None:
    queue = LocalQueue()
    words = [sys.executable, "-c", "import time; time.sleep(60)", "-m", queues.CONTROLLER, str(tmp_path / "jobs" / "1")]
    with subprocess.Popen(words) as process:
        assert queue.ended({"folder": str(tmp_path / "jobs" / "1")}) is None
        assert queue.ended({"folder": str(tmp_path / "jobs" / "10")}) is not None
        queue.stop({"folder": str(tmp_path / "jobs" / "10")})
        assert process.poll() is None
        queue.stop({"folder": str(tmp_path / "jobs" / "1")})
        assert process.wait(10) == -signal.SIGTERM


def test_resources_are_what_sbatch_is_asked_for() -> None:
    asked = SubmititConfig(timeout_min=90, cpus_per_task=8, gpus_per_node=1, mem_gb=1.5, partition="gpu")
    parameters = slurm_parameters(SweepConfig(launcher=Launcher.submitit_slurm, submitit=asked))
    assert parameters == {
        "time": 90, "cpus_per_task": 8, "gpus_per_node": 1, "mem": "1536MB", "partition": "gpu", "signal_delay_s": 120,
        "nodes": 1, "ntasks_per_node": 1, "srun_args": ["--cpus-per-task=8"],
    }  # fmt: skip
