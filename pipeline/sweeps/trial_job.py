"""What runs inside a submitted job: one trial, and the word of how it ended.

A scheduler signals every process of a job, a trial hears of its end once, and a second signal would cost it what it is
saving. So the trial is deaf to the signals that are for this process, which hands one on.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.durable import write_durably
from pipeline.sweeps.children import Child

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

STOP = signal.SIGUSR1  # the sweep wants the trial to end
OUT_OF_TIME = signal.SIGUSR2  # so does the scheduler, in a while: submitit's own choice
NOT_FOUND = 127  # a shell's status of a command that cannot be started
POLL_SECONDS = 0.05


class TrialJob:
    """A trial as submitit's pickle holds it: words, the names that the sweep gave it, and where to write.

    Nothing of the environment is in it: the job has one of its own.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str | None], *, log: Path, ended: Path,
        seconds_to_save: float, scheduled: bool,
    ) -> None:  # fmt: skip
        """Keep what the job needs.

        Args:
            command: The trial's words.
            variables: Set in its environment beyond the job's; None removes one.
            log: Gets what the trial prints, without secrets.
            ended: Gets its exit status and why it failed.
            seconds_to_save: How long a trial whose job is out of time may take before it is killed.
            scheduled: A scheduler sends SIGTERM to every process of the job, the trial's own included.
        """
        self.command, self.variables, self.log, self.ended = list(command), dict(variables), log, ended
        self.seconds_to_save, self.scheduled = seconds_to_save, scheduled

    def __call__(self) -> None:
        """Run the trial to its end, or put the job back into its queue where its time is up before."""
        if self.ended.exists():  # the sweep knows it as over, and a scheduler started it anew by itself
            return
        requeue: Any = signal.getsignal(OUT_OF_TIME)  # submitit's
        asked: list[int] = []
        for number in (STOP, OUT_OF_TIME, signal.SIGTERM):
            signal.signal(number, lambda number, _: asked.append(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, which is for the sweep
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        environment = {name: value for name, value in {**os.environ, **self.variables}.items() if value is not None}
        # The mask is inherited: the trial never hears these two.
        signal.pthread_sigmask(signal.SIG_BLOCK, {STOP, OUT_OF_TIME})
        try:
            child = Child(self.command, environment, self.log, quiet=True, own_session=not self.scheduled)
        except OSError as error:
            self._write(NOT_FOUND, f"{type(error).__name__}: {error}")
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP, OUT_OF_TIME})
        status = self._wait(child, asked)
        reason = child.close()
        if OUT_OF_TIME in asked and STOP not in asked and status > 128:  # what it has made is kept
            try:
                requeue(OUT_OF_TIME, None)  # ends this process where the job may run again
            except Exception as error:
                reason = f"The time of the job was up: {error} The same command goes on from the trial's checkpoint."
        self._write(status, reason)

    def _wait(self, child: Child, asked: list[int]) -> int:
        told: float | None = None
        while (status := child.poll()) is None:
            heard = set(asked) - ({signal.SIGTERM} if self.scheduled else set())
            if heard and told is None:
                told = time.monotonic()
                child.stop(signal.SIGTERM)
            if OUT_OF_TIME in heard and told is not None and time.monotonic() - told > self.seconds_to_save:
                child.stop(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        return status

    def _write(self, status: int, reason: str) -> None:
        write_durably(self.ended, json.dumps({"exit_status": status, "reason": reason}))

    def checkpoint(self) -> DelayedSubmission:
        """Return what the job does when its turn comes again: the same, for the trial goes on from its checkpoint."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)
