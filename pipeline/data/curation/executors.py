"""Where the parallel passes run: in this process, or in processes of their own on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pipeline.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")
SMALL_BYTES = 20 << 20  # of all sources; starting processes takes longer than reading these


class Executor(Protocol):
    """Runs one function over many tasks. Functions are those of modules; tasks and results are plain data."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        ...


class Inline:
    """Runs tasks one after the other in this process."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        return map(function, tasks)


class Processes:
    """Runs tasks in processes of this machine, which import what they need and share nothing with this one."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        """Take over a pool."""
        self._pool = pool

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks.

        Raises:
            DataError: A process died.
        """
        try:
            yield from self._pool.map(function, tasks)
        except BrokenProcessPool as error:
            raise DataError(
                "A worker process of `curate` was killed, most often because memory ran out. "
                "Lower curate.num_workers, then run the same command again."
            ) from error


@contextmanager
def local_executor(num_workers: int | None, num_bytes: int) -> Iterator[Executor]:
    """Choose where the passes run.

    Args:
        num_workers: Processes; None is one per core that this process may use.
        num_bytes: Of all sources together.
    """
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers == 1 or num_bytes < SMALL_BYTES:
        yield Inline()
        return
    # Not forked: threads of libraries that this process has loaded would be copied in the middle of their work.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield Processes(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
