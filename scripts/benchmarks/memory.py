"""The memory of a process and of all processes that it started."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

INTERVAL = 0.2  # seconds between two looks


class PeakMemory:
    """While entered, looks at the memory in use: proportional set size, in which shared pages count once."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look a last time."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, _family(os.getpid()))))
            if self._done.wait(INTERVAL):
                return


def _family(process: int) -> list[int]:
    """Return a process and everything below it; one that ends meanwhile is left out."""
    found = [process]
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        for thread in threads:
            for child in (thread / "children").read_text().split():
                found += _family(int(child))
    except OSError:
        pass
    return found


def _proportional_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
