"""Where submitted jobs are: asked whether they are alive, and told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import cache
from typing import Protocol

from pipeline.config.launching import Launcher
from pipeline.sweeps.trial_job import STOP

QUERY_SECONDS = 2.0  # between two questions to a scheduler, for all jobs together
ANSWER_SECONDS = 60.0
# States of Slurm in which a job runs or may run again; every other is an end.
ALIVE = frozenset(
    {"COMPLETING", "CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD"}
    | {"RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED"}
)
UNKNOWN_JOB = "Invalid job id"
GONE = "no longer in its queue"
CONTROLLER = "submitit.local._local"  # of a local job; its last word is the job's folder


class Queue(Protocol):
    """What runs jobs."""

    name: str

    def ended(self, job: dict[str, str]) -> str | None:
        """Return how a job ended in the words of the queue; None while it waits or runs, or where nobody knows."""

    def stop(self, job: dict[str, str]) -> None:
        """Ask a job to end; may be said more than once."""

    def forget(self, job: dict[str, str]) -> None:
        """Ask about a job no more."""


class SlurmQueue:
    """Slurm, through its own commands: `squeue` works where no accounting is kept."""

    name = "Slurm"

    def __init__(self) -> None:
        """Know nothing."""
        self._states: dict[str, str] = {}
        self._asked, self._told = float("-inf"), False

    def find(self, name: str) -> str | None:
        """Return the id of the job of a name that is alive; None where there is none."""
        words = ["squeue", "--noheader", "--me", f"--name={name}", "--format=%A"]
        return next(iter(_answer(words).stdout.split()), None)

    def ended(self, job: dict[str, str]) -> str | None:
        """Return the state of a job that is over."""
        identity = job["id"]
        fresh = time.monotonic() - self._asked < QUERY_SECONDS
        if not fresh or identity not in self._states:
            self._states.setdefault(identity, "")
            self._ask()
        state = self._states[identity]
        return None if not state or state.split()[0] in ALIVE else state

    def _ask(self) -> None:
        self._asked = time.monotonic()
        words = ["squeue", "--noheader", "--states=all", "--format=%A|%T|%r", f"--jobs={','.join(self._states)}"]
        try:
            answer = _answer(words)
        except (OSError, subprocess.TimeoutExpired) as error:
            self._tell(str(error))
            return
        if answer.returncode and UNKNOWN_JOB not in answer.stderr:
            self._tell(answer.stderr)
            return
        found = {identity: GONE for identity in self._states}
        for line in answer.stdout.splitlines():
            identity, state, reason = line.split("|", 2)
            found[identity] = state if reason == "None" else f"{state} ({reason})"
        self._states = found

    def _tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            print(f"squeue does not answer, jobs are taken to run: {problem.strip()}", file=sys.stderr)

    def stop(self, job: dict[str, str]) -> None:
        """Cancel a job that waits; let the trial of one that runs save."""
        _answer(["scancel", "--quiet", "--state=PENDING", job["id"]])
        _answer(["scancel", "--quiet", "--state=RUNNING", f"--signal={STOP.name.removeprefix('SIG')}", job["id"]])

    def forget(self, job: dict[str, str]) -> None:
        """Ask about a job no more."""
        self._states.pop(job["id"], None)


class LocalQueue:
    """Processes of this machine that submitit started and that do not need their sweep."""

    name = "submitit"

    def __init__(self) -> None:
        """Know nothing."""
        self._asked = float("-inf")
        self._known: set[str] = set()  # folders of jobs
        self._alive: dict[str, int] = {}  # folder -> process id

    def ended(self, job: dict[str, str]) -> str | None:
        """Return that a job is over where its process is."""
        if time.monotonic() - self._asked >= QUERY_SECONDS or job["folder"] not in self._known:
            self._known.add(job["folder"])
            self._ask()
        return None if job["folder"] in self._alive else "its process is gone"

    def _ask(self) -> None:
        listed = _answer(["ps", "-ww", "-eo", "pid=,args="]).stdout
        self._alive = {}
        for line in listed.splitlines():
            before, found, folder = line.partition(f" {CONTROLLER} ")
            if found:
                self._alive[folder.strip()] = int(before.split()[0])
        self._asked = time.monotonic()

    def stop(self, job: dict[str, str]) -> None:
        """Let the trial save: the signal is handed down to it."""
        self._ask()
        if job["folder"] in self._alive:
            os.kill(self._alive[job["folder"]], signal.SIGTERM)

    def forget(self, job: dict[str, str]) -> None:
        """Ask about a job no more."""
        self._known.discard(job["folder"])


@cache
def queue_of(launcher: Launcher) -> SlurmQueue | LocalQueue:
    """Return the queue that a launcher's jobs are in, the same for all of them: it is asked once for all."""
    return SlurmQueue() if launcher is Launcher.submitit_slurm else LocalQueue()


def _answer(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
