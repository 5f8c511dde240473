"""Ending a training run between two optimizer steps instead of in the middle of one."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from pipeline.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, SIGTERM and SIGINT ask the loop to stop; a second one ends the process at once.

    Example::

        with StopRequest() as stop:
            for batch in batches:
                step(batch)
                if stop.signal_number is not None:
                    save_checkpoint()
                    raise stop.interrupted("stopped after step 12; the same command goes on from there")
    """

    def __init__(self) -> None:
        """Start with no signal seen."""
        self.signal_number: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Install the handlers; Python allows this in the main thread only."""
        self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what was installed before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def interrupted(self, message: str) -> Interrupted:
        """Return the error to raise once everything is saved; it carries the exit status ``128 + signal``."""
        if self.signal_number is None:
            raise ValueError("no signal has arrived, so there is nothing to report")
        return Interrupted(message, signal_number=self.signal_number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            # The default action ends the process without Python's clean-up, and tells the parent which signal it was.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.signal_number = number
