"""One trial as a process of its own: started, watched, stopped; nothing of one reaches the next."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import IO, Protocol

from pipeline.graph.objectives import training_series
from pipeline.graph.run_folder import record_of
from pipeline.tracking.record import Record
from pipeline.tracking.redaction import Redactor

SWEEP = "PIPELINE_SWEEP"  # name of the sweep, which is the group in W&B
RUN_FOLDER = "PIPELINE_RUN_FOLDER"  # name of the trial's run folder
DEVICES = "CUDA_VISIBLE_DEVICES"
KEPT_LINES = 40  # of what a child wrote to standard error
MOST_CHARACTERS = 300  # of the reason that a trial failed for


class RunningTrial(Protocol):
    """What the loop of a sweep needs of a trial that runs, wherever it does."""

    @property
    def slot(self) -> int:
        """Which of the places for trials that run at the same time it takes."""

    @property
    def job(self) -> dict[str, str] | None:
        """The job that it runs in, as the record of the sweep keeps it; None for a child of the sweep."""

    @property
    def seconds(self) -> float:
        """Since the start."""

    def poll(self) -> int | None:
        """Return the exit status, as a shell would, or None while it runs."""

    def stop(self, number: int) -> None:
        """Ask it to save and end."""

    def close(self) -> str:
        """Clean up after its end; return why it failed, where that is known."""


class Child:
    """A running trial, a child of this process."""

    job: dict[str, str] | None = None

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, quiet: bool, slot: int = 0,
        own_session: bool = True,
    ) -> None:  # fmt: skip
        """Start the process.

        Args:
            command: Its words.
            environment: Whole.
            log: Gets what the child prints, without secrets: everything where it is quiet, else its errors.
            quiet: Keep its lines off the terminal, where several children would write at once.
            slot: Which of the places for trials that run at the same time it takes.
            own_session: Out of reach of signals for the process group of this process.
        """
        self.started, self.slot = time.monotonic(), slot
        self._redactor, self._errors = Redactor(), deque[str](maxlen=KEPT_LINES)
        self._log = log.open("ab")
        # In a session of its own the terminal's Ctrl-C does not reach it: the sweep tells its children once.
        self.process = subprocess.Popen(
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=own_session,
            stdout=subprocess.PIPE if quiet else None, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._threads = [
            threading.Thread(target=self._relay, args=(stream, shown), daemon=True)
            for stream, shown in ((self.process.stdout, False), (self.process.stderr, not quiet))
            if stream is not None
        ]
        for thread in self._threads:
            thread.start()

    def _relay(self, stream: IO[bytes], shown: bool) -> None:
        for line in stream:
            text = self._redactor.text(line.decode("utf-8", "replace"))
            self._log.write(text.encode())
            self._log.flush()
            if stream is self.process.stderr:
                self._errors.append(text.rstrip())
            if shown:
                print(text, end="", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def poll(self) -> int | None:
        """Return the exit status, as a shell would, or None while it runs."""
        status = self.process.poll()
        return 128 - status if status is not None and status < 0 else status

    def stop(self, number: int) -> None:
        """Send a signal; a process that has ended hears nothing."""
        self.process.send_signal(number)

    def close(self) -> str:
        """Take in the rest of what it printed; return the line that says why it failed, if one does."""
        for thread in self._threads:
            thread.join(5.0)
        self._log.close()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        lines = [line for line in self._errors if line.strip()]
        named = [n for n, line in enumerate(lines) if line.split(":")[0].endswith(("Error", "Interrupted"))]
        if not named:
            return (lines[-1:] or [""])[0][:MOST_CHARACTERS]
        line, rest = lines[named[-1]], lines[named[-1] + 1 :]
        listed = [entry.strip() for entry in takewhile(lambda entry: entry.startswith(" "), rest)]
        return (f"{line} {'; '.join(listed)}" if line.endswith(":") else line)[:MOST_CHARACTERS]


def child_command(launch: Sequence[str], command: str, flags: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return the words that run one trial."""
    return [*launch, sys.executable, "-m", "pipeline", command, *flags, *overrides]


def child_variables(
    sweep: str, run_folder: str, decided: Mapping[str, str], *, slot: int = 0, slots: int = 1
) -> dict[str, str]:
    """Return what a trial's environment has beyond the sweep's: who it is, and its GPU of those given by number."""
    variables = {**decided, SWEEP: sweep, RUN_FOLDER: run_folder}
    devices = [device for device in os.environ.get(DEVICES, "").split(",") if device]
    if slots > 1 and devices:
        variables[DEVICES] = devices[slot % len(devices)]  # a stage trains on one
    return variables


def intermediate_values(run_folder: Path, stage: str, metric: str) -> list[tuple[int, float]] | None:
    """Return the steps and values of a metric that a trial has recorded until now; None where no record is to be had.

    There is none before the stage begins, and for a moment when it seals and the record moves.
    """
    path = record_of(run_folder, stage)
    try:
        return None if path is None else training_series(list(Record(path).rows()), metric)
    except FileNotFoundError:
        return None
