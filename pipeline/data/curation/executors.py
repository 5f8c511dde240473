"""Where the parallel passes run: in this process, in others of this machine, or on the machines of a Ray cluster."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from pipeline.config.data import Engine
from pipeline.errors import ConfigError, DataError

Task = TypeVar("Task")
Result = TypeVar("Result")
SMALL_BYTES = 20 << 20  # of all sources; starting processes takes longer than reading these
ANSWER_SECONDS = 10.0  # in which a cluster must take a connection


class Executor(Protocol):
    """Runs one function over many tasks. Functions are those of modules; tasks and results are plain data."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Return the results in the order of the tasks; where others than this process work, they begin at once."""
        ...


class Inline:
    """Runs tasks one after the other in this process."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Return the results in the order of the tasks, each of which runs when its result is asked for."""
        return map(function, tasks)


class Processes:
    """Runs tasks in processes of this machine, which import what they need and share nothing with this one."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        """Take over a pool."""
        self._pool = pool

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Begin with the tasks, and return the results in their order.

        Raises:
            DataError: A process died.
        """
        with _deaths_told():
            return self._yield(self._pool.map(function, tasks))

    def _yield(self, results: Iterator[Result]) -> Iterator[Result]:
        with _deaths_told():
            yield from results


class OnRay:
    """Runs tasks on a Ray cluster, whose machines share the folder of intermediate files."""

    def __init__(self, ray: Any) -> None:
        """Take over the library, which is connected."""
        self._ray = ray
        self._pending: set[Any] = set()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Begin with the tasks, and return the results in their order.

        Raises:
            DataError: A worker died. What a task itself raises is raised here as it is.
        """
        remote = self._ray.remote(function)
        references = [remote.remote(task) for task in tasks]
        self._pending.update(references)
        return self._yield(references)

    def stop(self) -> None:
        """Cancel what nobody waits for any more, and return when nothing runs."""
        pending = list(self._pending)
        for reference in pending:
            self._ray.cancel(reference)
        if pending:
            self._ray.wait(pending, num_returns=len(pending))

    def _yield(self, references: list[Any]) -> Iterator[Any]:
        try:
            for reference in references:
                result = self._ray.get(reference)
                self._pending.discard(reference)
                yield result
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self._ray.exceptions.RayError as error:
            raise DataError(f"Ray lost a task of `curate`: {error}. Run the same command again.") from error


@contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process of `curate` was killed, most often because memory ran out. "
            "Lower curate.num_workers, then run the same command again."
        ) from error


@contextmanager
def open_executor(engine: Engine, num_workers: int | None, num_bytes: int) -> Iterator[Executor]:
    """Choose where the passes run.

    Args:
        engine: Processes of this machine, or Ray.
        num_workers: Processes; None is one per core that this process may use, or all that a cluster has.
        num_bytes: Of all sources together; small ones are read here, whatever the engine of this machine.

    Raises:
        ConfigError: Ray is asked for and not installed.
    """
    if engine is Engine.ray:
        with _ray(num_workers) as executor:
            yield executor
        return
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers == 1 or num_bytes < SMALL_BYTES:
        yield Inline()
        return
    # Rows are many small objects without cycles, which are looked at for nothing at the usual threshold.
    # Not forked: threads of libraries that this process has loaded would be copied in the middle of their work.
    pool = ProcessPoolExecutor(
        num_workers, mp_context=multiprocessing.get_context("spawn"), initializer=gc.set_threshold, initargs=(100_000,)
    )  # fmt: skip
    try:
        yield Processes(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ray(num_workers: int | None) -> Iterator[OnRay]:
    """Connect to the cluster that RAY_ADDRESS names, or start one here.

    Raises:
        ConfigError: Ray is not installed, does not answer, or does not start.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("curate.engine=ray needs Ray: pip install finetune-pipeline[ray]") from error
    started_here = not ray.is_initialized()
    if started_here:
        address = os.environ.get("RAY_ADDRESS")
        if address:
            _require_answer(address)
        own = {} if address else {"num_cpus": num_workers, "include_dashboard": False}
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:  # Ray raises this very class where a node of its own does not come up in time
            where = "no cluster answers under RAY_ADDRESS" if not own else "it does not start on this machine"
            said = " ".join(str(error).split())
            raise ConfigError(
                f"curate.engine=ray: {where} ({said}). Mend that, or leave curate.engine at local."
            ) from error
    executor = OnRay(ray)
    try:
        yield executor
    finally:
        executor.stop()
        if started_here:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse the address of a cluster at which nothing listens: Ray itself goes on asking there for minutes.

    Raises:
        ConfigError: Nothing listens there.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        if place.hostname is None or place.port is None:  # `auto`, `local`: Ray finds those by itself
            return
        socket.create_connection((place.hostname, place.port), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:  # a ValueError is a port that is none
        raise ConfigError(
            f"curate.engine=ray: no cluster answers under RAY_ADDRESS={address} ({error}). Start it, correct the "
            "address, unset RAY_ADDRESS to start one here, or leave curate.engine at local."
        ) from error
