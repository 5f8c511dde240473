"""Digests of files and of JSON values, and a memory of the digests of large files."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.temporary import sweep
from pipeline.errors import StorageError

BLOCK_BYTES = 1 << 20
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
# A file that was written this recently may be written again within one tick of the file system's clock, with the
# same size and time stamp. Its digest is not remembered.
SETTLED_SECONDS = 2.0


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def canonical_json(value: Any) -> str:
    """Write a JSON value in the one way that digests are taken of: sorted keys, no spaces, no NaN."""
    return _CANONICAL.encode(value)


def sha256_json(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON value's canonical text."""
    return sha256_text(canonical_json(value))


class FileHashes:
    """Digests of files, remembered by path, size and modification time.

    The cache file only saves time: where it is missing or unreadable, files are hashed again.
    """

    def __init__(self, cache_file: Path) -> None:
        """Remember where the cache lies; nothing is read before the first question."""
        self._cache_file = cache_file
        self._known: dict[str, list[Any]] | None = None

    def sha256(self, path: Path) -> str:
        """Return the digest of a file, reading it only if its size or time stamp is new."""
        path = path.resolve()
        known = self._load()
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = known.get(str(path))
        if entry is not None and entry[:2] == stamp:
            return str(entry[2])
        digest = sha256_file(path)
        if time.time() - status.st_mtime > SETTLED_SECONDS:
            known[str(path)] = [*stamp, digest]
            with suppress(OSError, StorageError):  # a folder that cannot be written costs time, not the run
                self._cache_file.parent.mkdir(parents=True, exist_ok=True)
                sweep(self._cache_file.parent)
                write_durably(self._cache_file, json.dumps(known, indent=1, sort_keys=True))
        return digest

    def _load(self) -> dict[str, list[Any]]:
        if self._known is None:
            try:
                loaded = json.loads(self._cache_file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                loaded = {}
            entries = loaded.items() if isinstance(loaded, dict) else []
            self._known = {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 3}
        return self._known
