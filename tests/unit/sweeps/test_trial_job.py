"""What runs inside a job, with the signals that schedulers send: to every process of the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# A trial that notes every signal that it hears, and ends at once or a while after the first.
TRIAL = """
import signal, sys, time
heard = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: (heard.append(number), print("heard", number, flush=True)))
print("up", flush=True)
while not heard:
    time.sleep(0.02)
time.sleep(float(sys.argv[1]))
print("RuntimeError: it is over", file=sys.stderr)
sys.exit(128 + heard[0])
"""
# In place of submitit's handler for a job out of time: puts it back into the queue, or says why it may not.
JOB = """
import json, signal, sys
from pathlib import Path
from pipeline.sweeps.trial_job import TrialJob

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
def requeue(number, frame):
    if settings["times"] == 0:
        raise RuntimeError("Job not requeued because: timed-out too many times.")
    (folder / "requeued").touch()
    sys.exit(1)
signal.signal(signal.SIGUSR2, requeue)
words = settings.get("command") or [sys.executable, "-c", settings["trial"], settings["pause"]]
TrialJob(
    words, {"PIPELINE_SWEEP": "s", "GONE": None}, log=folder / "log", ended=folder / "ended.json",
    seconds_to_save=settings["seconds_to_save"], scheduled=settings["scheduled"],
)()
"""


class Job:
    """A job that runs a trial, in a process group of its own as a scheduler starts it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        defaults = {"times": 0, "pause": "0", "seconds_to_save": 60, "scheduled": True, "trial": TRIAL}
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(folder), json.dumps({**defaults, **settings})], start_new_session=True
        )

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.log:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def signal_all(self, number: int) -> None:
        """Signal every process of the job, as Slurm does."""
        self.until("up")
        os.killpg(self.process.pid, number)

    def ended(self) -> dict[str, Any]:
        self.process.wait(30)
        found: dict[str, Any] = json.loads((self.folder / "ended.json").read_text())
        return found


def test_the_sweeps_word_reaches_the_trial_once_however_often_it_is_said(tmp_path: Path) -> None:
    job = Job(tmp_path, pause="0.3")
    job.signal_all(signal.SIGUSR1)
    job.until("heard")
    os.killpg(job.process.pid, signal.SIGUSR1)
    assert job.ended() == {"exit_status": 143, "reason": "RuntimeError: it is over"}
    assert job.log.count("heard") == 1


def test_a_job_that_is_cancelled_tells_its_trial_once(tmp_path: Path) -> None:
    """Every process gets the signal, so that it is not handed on: a second one would end the trial unsaved."""
    job = Job(tmp_path, pause="1")
    job.signal_all(signal.SIGTERM)
    assert job.ended()["exit_status"] == 143
    assert job.log.count("heard 15") == 1


def test_without_a_scheduler_the_signal_is_handed_down_and_the_terminals_is_not(tmp_path: Path) -> None:
    job = Job(tmp_path, scheduled=False)
    job.signal_all(signal.SIGINT)
    time.sleep(0.2)
    assert job.log == "up\n"
    job.process.send_signal(signal.SIGTERM)
    assert job.ended()["exit_status"] == 143
    assert job.log.count("heard 15") == 1


def test_out_of_time_the_trial_saves_and_the_job_waits_for_its_turn(tmp_path: Path) -> None:
    job = Job(tmp_path, times=1, pause="0.2")
    job.signal_all(signal.SIGUSR2)
    assert job.process.wait(30) == 1
    assert (tmp_path / "requeued").exists()
    assert "RuntimeError: it is over" in job.log  # it had the time to save
    assert not (tmp_path / "ended.json").exists()


def test_out_of_time_for_the_last_time_it_ends_and_says_why(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.signal_all(signal.SIGUSR2)
    ended = job.ended()
    assert ended["exit_status"] == 143
    assert ended["reason"].startswith("The time of the job was up: Job not requeued because: timed-out too many times")


def test_a_trial_that_does_not_save_in_time_is_killed_before_its_job_is(tmp_path: Path) -> None:
    job = Job(tmp_path, pause="60", seconds_to_save=0.2)
    job.signal_all(signal.SIGUSR2)
    assert job.ended()["exit_status"] == 137


def test_a_job_that_the_sweep_stops_is_not_queued_again(tmp_path: Path) -> None:
    job = Job(tmp_path, times=1, pause="0.3")
    job.signal_all(signal.SIGUSR2)
    os.killpg(job.process.pid, signal.SIGUSR1)
    assert job.ended()["exit_status"] == 143


def test_a_command_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    ended = Job(tmp_path, command=["/nowhere/to/be/found"]).ended()
    assert ended["exit_status"] == 127
    assert "/nowhere/to/be/found" in ended["reason"]


def test_a_job_that_a_scheduler_starts_anew_after_its_end_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text('{"exit_status": 143, "reason": ""}')
    assert Job(tmp_path).ended() == {"exit_status": 143, "reason": ""}
    assert not (tmp_path / "log").exists()
