"""Temporary names that say which process made them, so that only what a dead process left is ever swept."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

PREFIX = "tmp-"
_numbers = itertools.count()


class Maker(NamedTuple):
    """The process that made a temporary name: digests of its host and of that host's boot, and its number."""

    host: str
    boot: str
    pid: int


def temporary_path(parent: Path) -> Path:
    """Return an unused path in ``parent`` that names this process as its maker. Nothing is created."""
    host, boot = this_machine()
    return parent / f"{PREFIX}{host}-{boot}-{os.getpid()}-{next(_numbers)}"


def maker_of(name: str) -> Maker | None:
    """Return who made a temporary name, or None if the name is not one of ours."""
    fields = name.removeprefix(PREFIX).split("-")
    if not name.startswith(PREFIX) or len(fields) != 4 or not (fields[2].isdigit() and fields[3].isdigit()):
        return None
    return Maker(fields[0], fields[1], int(fields[2]))


def is_left_behind(name: str) -> bool:
    """Whether a temporary name belongs to a process that is certainly dead.

    A process of another host cannot be asked, so its files are never swept from here.
    """
    maker = maker_of(name)
    if maker is None or maker.host != this_machine()[0]:
        return False
    return maker.boot != this_machine()[1] or not _is_alive(maker.pid)


def discard(path: Path) -> None:
    """Remove a file or a folder in two steps, so that a crash never leaves half of it under its own name."""
    doomed = temporary_path(path.parent)
    path.rename(doomed)
    remove(doomed)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; an error is raised, never ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes left directly in a folder, and return the paths that were removed."""
    if not folder.is_dir():
        return []
    swept = [path for path in sorted(folder.iterdir()) if is_left_behind(path.name)]
    for path in swept:
        with suppress(FileNotFoundError):  # another process sweeps the same folder
            remove(path)
    return swept


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to somebody else
        return True
    return True


@cache
def this_machine() -> tuple[str, str]:
    """Digests of the host (with its process number space, which differs per container) and of the boot."""
    space, boot = "", ""
    try:
        space = os.readlink("/proc/self/ns/pid")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux: numbers of processes are then compared within one host name alone
        pass
    return _short_digest(f"{socket.gethostname()} {space}"), _short_digest(boot)


def machine_since_its_start() -> str:
    """Name this host and its boot: within one such name the number of a process says which process it is."""
    return "-".join(this_machine())


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
