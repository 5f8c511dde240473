"""Trials that run in jobs, as the sweep sees them; also those of a sweep that was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.launching import Launcher
from pipeline.errors import ConfigError
from pipeline.sweeps.queues import Queue, SlurmQueue, queue_of
from pipeline.sweeps.record import Trial

if TYPE_CHECKING:
    import submitit

GRACE_SECONDS = 10.0  # until what a job wrote is seen by other machines
REAP_SECONDS = 30.0  # that a process of this machine may take to end once its trial has
REPEAT_SECONDS = 5.0  # between two requests to stop: a job that is about to start may not hear the first
KILLED = 128 + signal.SIGKILL


class SubmittedTrial:
    """A trial that runs in a job, or waits in its queue."""

    def __init__(self, trial: Trial, queue: Queue, *, slot: int, handle: submitit.Job[None] | None = None) -> None:
        """Follow the job of a trial; without submitit's handle it is one of a sweep that was killed."""
        if trial.job is None or trial.started is None:
            raise ValueError(f"trial {trial.number} was not submitted")
        self.job, self.slot = trial.job, slot
        self._queue, self._handle = queue, handle
        self._ended = Path(trial.job["folder"]) / trial.job["ended"]
        self._started = datetime.fromisoformat(trial.started)
        self._asked: float | None = None  # when it was last asked to stop
        self._gone: float | None = None  # when the queue was first seen without it
        self._status: int | None = None
        self._reason = ""

    @property
    def seconds(self) -> float:
        """Since it was submitted, the time in the queue included."""
        return (datetime.now(UTC) - self._started).total_seconds()

    def poll(self) -> int | None:
        """Return the exit status of the trial; of a job that ended without one, that of a process that was killed."""
        if self._status is None:
            self._look()
        return self._status

    def _look(self) -> None:
        if self._ended.exists():
            self._take()
            return
        if self._asked is not None and time.monotonic() - self._asked > REPEAT_SECONDS:
            self.stop(signal.SIGTERM)
        how = self._queue.ended(self.job)
        if how is None:
            self._gone = None
            return
        self._gone = time.monotonic() if self._gone is None else self._gone
        if self._asked is None and time.monotonic() - self._gone < GRACE_SECONDS:
            return
        if self._ended.name in os.listdir(self._ended.parent):  # which looks again where the folder is of a network
            self._take()
            return
        self._status = KILLED if self._asked is None else 128 + signal.SIGTERM  # it had not begun
        self._reason = f"{self._queue.name} ended the job {self.job['id']}: {how}. Its files: {self._ended.parent}"

    def _take(self) -> None:
        found = json.loads(self._ended.read_text(encoding="utf-8"))
        self._status, self._reason = int(found["exit_status"]), str(found["reason"])

    def stop(self, number: int) -> None:
        """Let the trial save and end; it hears SIGTERM, whichever signal was asked for."""
        self._asked = time.monotonic()
        self._queue.stop(self.job)

    def close(self) -> str:
        """Return why it failed."""
        self._queue.forget(self.job)
        deadline = time.monotonic() + REAP_SECONDS
        # A job of this machine is a child of this process, which is to leave no zombie.
        own = None if isinstance(self._queue, SlurmQueue) else self._handle
        while own is not None and not own.done() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._reason


def earlier_job(trial: Trial, slot: int) -> SubmittedTrial | None:
    """Return the job of a trial whose sweep was killed, if it runs, waits, or has ended by itself.

    Raises:
        ConfigError: Whether it runs cannot be known here.
    """
    if trial.job is None:
        return None
    launcher = Launcher(trial.job["launcher"])
    where = f"trial {trial.number} of this sweep was submitted with sweep.launcher={launcher}"
    if launcher is Launcher.submitit_local and trial.job["host"] != socket.gethostname():
        raise ConfigError(f"{where} on {trial.job['host']} and may run there. Go on with the sweep there.")
    queue = queue_of(launcher)
    if isinstance(queue, SlurmQueue):
        if shutil.which("squeue") is None:
            raise ConfigError(f"{where} and may run. Go on with the sweep where Slurm's commands are.")
        trial.job["id"] = trial.job["id"] or queue.find(trial.folder) or ""
        if not trial.job["id"]:
            return None
    running = SubmittedTrial(trial, queue, slot=slot)
    status = running.poll()
    if status is None:
        return running if queue.ended(running.job) is None else None
    # A trial that was stopped, by whomever, runs again, as it does where trials are processes.
    return running if status < 128 else None
