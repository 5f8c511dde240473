"""Writing so that a crash at any moment leaves the old state or the new one, and never a mixture.

The order is always the same: write under a temporary name, fsync the bytes, rename, fsync the folder. Between the
steps stand named kill points, at which a test ends the process as a power cut would.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifacts.temporary import temporary_path
from pipeline.errors import StorageError

KILL_VARIABLE = "PIPELINE_KILL_AT"

KILL_POINTS: tuple[str, ...] = (
    "file.written",  # any small file: bytes are under the temporary name
    "file.synced",
    "file.renamed",
    "checkpoint.hashed",  # nothing of the checkpoint's own is written yet
    "checkpoint.manifest",
    "checkpoint.synced",
    "checkpoint.set_aside",  # a checkpoint of the same step gave up its name to the new one
    "checkpoint.renamed",
    "checkpoint.committed",
    "rotation.renamed",  # an old checkpoint lost its name
    "rotation.removed",
    "seal.metrics",  # the record of metrics lies beside the results
    "seal.manifest",
    "seal.synced",
    "seal.renamed",  # the artifact exists and is not yet the current one
    "seal.current",
    "seal.cleaned",  # the work folder is gone
)

_STORAGE_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this process may write",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.EIO: "the disk reported an input/output error",
}
_passages: Counter[str] = Counter()


def kill_point(name: str) -> None:
    """End this process here, without any clean-up, if the environment asks for it.

    ``PIPELINE_KILL_AT=name`` ends it at the first passage, ``name:3`` at the third.
    """
    if name not in KILL_POINTS:
        raise ValueError(f"unknown kill point {name!r}")
    wanted = os.environ.get(KILL_VARIABLE)
    if wanted is None:
        return
    _passages[name] += 1
    target, _, count = wanted.partition(":")
    if target == name and _passages[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def storage_error(error: OSError, path: Path, num_bytes: int | None = None) -> StorageError | None:
    """Translate an operating system error that means "cannot be written", or return None for any other."""
    reason = _STORAGE_REASONS.get(error.errno or 0)
    if reason is None:
        return None
    where = error.filename or path
    needed = "" if num_bytes is None else f" ({num_bytes:,} bytes are needed)"
    return StorageError(
        f"Cannot write {where}{needed}: {reason}. What was sealed before is intact. Make room or choose another "
        "folder with `runtime.outputs=DIR`, then run the same command again: it goes on from the last checkpoint."
    )


@contextmanager
def storage_errors(path: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Raise :class:`StorageError` for a full, read-only or failing disk; let every other error through."""
    try:
        yield
    except OSError as error:
        translated = storage_error(error, path, num_bytes)
        if translated is None:
            raise
        raise translated from error


def fsync_file(path: Path) -> None:
    """Return only when a file's bytes are on the disk."""
    _fsync(path)


def fsync_folder(path: Path) -> None:
    """Return only when a folder's list of names is on the disk."""
    _fsync(path)


def fsync_tree(folder: Path) -> None:
    """Return only when every file below a folder, and every list of names, is on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _fsync(Path(parent, name))
        _fsync(Path(parent))


def write_durably(path: Path, content: str | bytes) -> None:
    """Replace a file by new content; a reader and a crash see the old content or the new one."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = temporary_path(path.parent)
    with storage_errors(path, len(data)):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                kill_point("file.written")
                file.flush()
                os.fsync(file.fileno())
            kill_point("file.synced")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        kill_point("file.renamed")
        fsync_folder(path.parent)


def publish_folder(temporary: Path, final: Path, *, synced: str | None = None, renamed: str | None = None) -> None:
    """Give a finished folder its final name, with all of it on the disk before and after.

    Args:
        temporary: The folder, on the same file system as ``final``.
        final: Its new path, which must not exist.
        synced: Kill point between the fsync and the rename.
        renamed: Kill point between the rename and the fsync of the parent.
    """
    with storage_errors(final):
        fsync_tree(temporary)
        if synced is not None:
            kill_point(synced)
        temporary.rename(final)
        if renamed is not None:
            kill_point(renamed)
        fsync_folder(final.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
