"""How far a stage is: a bar with an estimate on a terminal, plain lines elsewhere and in the log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 5.0

# Shown when a row has them, in this order; (name in the row, label, unit).
SHOWN = (
    ("loss", "loss", ""),
    ("validation_loss", "validation", ""),
    ("score", "score", ""),
    ("kl", "KL", ""),
    ("learning_rate", "lr", ""),
    ("grad_norm", "grad", ""),
    ("tokens_per_second", "tok/s", ""),
    ("supervised_fraction", "supervised", "%"),
    ("memory_gb", "mem", " GB"),
)


def short(value: float, unit: str = "") -> str:
    """Return a number in at most six characters, and its unit."""
    if not math.isfinite(value):
        return str(value)
    if unit == "%":
        return f"{100 * value:.0f}%"
    size = abs(value)
    if size >= 9_999.5:
        for suffix, scale in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
            if size < 999.5 * scale or suffix == "T":
                return f"{value / scale:.3g}{suffix}{unit}"
    if value == int(value):
        return f"{int(value)}{unit}"
    if size < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}{unit}"
    return (f"{value:.0f}" if size >= 999.5 else f"{value:.4g}" if size >= 1 else f"{value:.3g}") + unit


def newest(row: Mapping[str, float | int]) -> str:
    """Return what is shown of a row of metrics."""
    return "  ".join(f"{label} {short(float(row[name]), unit)}" for name, label, unit in SHOWN if name in row)


def duration(seconds: float) -> str:
    """Return a duration as `42 s`, `3:07` or `2:05:09`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Progress:
    """The progress of one run."""

    def __init__(
        self,
        title: str,
        log_line: Callable[[str], None],
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show nothing before the first update.

        Args:
            title: The name of the node.
            log_line: Takes the plain lines for the log file.
            stream: Where to show it; standard output if None.
            clock: Seconds.
        """
        self._title, self._log_line, self._clock = title, log_line, clock
        self._stream = stream
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._metrics: dict[str, float | int] = {}
        self._total = self._done = self._first_done = 0
        self._started = self._last_line = -math.inf
        self._line_shows = -1

    def metrics(self, row: Mapping[str, float | int]) -> None:
        """Take over the newest values; a value that a row lacks stays as it was."""
        self._metrics.update(row)

    def update(self, total: int, done: int) -> None:
        """Show that `done` of `total` steps are made."""
        now = self._clock()
        if self._started == -math.inf:
            self._started, self._first_done = now, done
            self._begin(total, done)
        self._total, self._done = total, done
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=total, completed=done, newest=newest(self._metrics))
        if done >= total or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._line(now)

    def say(self, text: str) -> None:
        """Print a line of text beside the bar."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream or sys.stdout, flush=True)

    def close(self) -> None:
        """Take the bar away; the last line stays."""
        if self._done != self._line_shows and self._total:
            self._line(self._clock())
        if self._bar:
            self._bar.stop()
            self._bar = None
            self.say(self._text(self._clock()))

    def _begin(self, total: int, done: int) -> None:
        console = Console(file=self._stream or sys.stdout)
        if not console.is_terminal:
            return
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[newest]}"),
            console=console, transient=True, refresh_per_second=4,
        )  # fmt: skip
        self._task = self._bar.add_task(self._title, total=total, completed=done, newest=newest(self._metrics))
        self._bar.start()

    def _line(self, now: float) -> None:
        self._last_line, self._line_shows = now, self._done
        text = self._text(now)
        self._log_line(text)
        if not self._bar:
            self.say(text)

    def _text(self, now: float) -> str:
        elapsed, made = now - self._started, self._done - self._first_done
        left = self._total - self._done
        if left <= 0:
            when = f"in {duration(elapsed)}"
        elif made > 0:
            when = f"{duration(elapsed)}, {duration(elapsed / made * left)} left"
        else:
            when = duration(elapsed)
        return f"{self._title}  {self._done}/{self._total}  {when}  {newest(self._metrics)}".rstrip()
