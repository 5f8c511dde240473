"""One process at a time: a kernel lock on a file that also says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts.durable import storage_errors
from pipeline.errors import LockError


@contextmanager
def exclusive_lock(path: Path, *, wait: bool, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file ``path``. The kernel frees it when its holder ends, however it ends.

    Args:
        path: The lock file, created where it is missing.
        wait: Wait for another holder, naming it once; False raises instead.
        notice: Prints one line.

    Raises:
        LockError: Another process holds the lock and ``wait`` is False.
    """
    descriptor = _acquire(path, wait=wait, notice=notice)
    try:
        command = shlex.join(sys.orig_argv)
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now(), "command": command}
        with storage_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def describe_holder(path: Path) -> str:
    """Say who holds a lock, from what it wrote into the file."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        command = textwrap.shorten(holder["command"], 160, placeholder=" ...")
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} (`{command}`)"
    except (OSError, ValueError, KeyError, TypeError):  # it has just started and not signed yet
        return "another process"


def _acquire(path: Path, *, wait: bool, notice: Callable[[str], None]) -> int:
    while True:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, path, wait=wait, notice=notice)
        except BaseException:
            os.close(descriptor)
            raise
        # `runs prune` may have deleted the file between open and flock; a lock on a nameless file guards nothing.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)


def _take(descriptor: int, path: Path, *, wait: bool, notice: Callable[[str], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = describe_holder(path)
        if not wait:
            raise LockError(
                f"{path.stem} is being made by {holder}. Run the same command again when it is done and the result is "
                "reused, or let it wait with `runtime.wait_for_lock=true`."
            ) from error
        notice(f"Waiting for {path.stem}, which is being made by {holder}.")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
