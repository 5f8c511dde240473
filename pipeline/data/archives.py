"""What a file holds: itself, what it is compressed from, or the members of a zip archive, all within bounds.

Nothing is ever unpacked to disk, so no name in an archive becomes a path. Names that could become one elsewhere
(absolute, with `..`, links) still mark an archive that somebody built to do harm, and it is refused as a whole.
"""

from __future__ import annotations

import errno
import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.errors import DataError

MAX_FILE_BYTES = 4 << 30  # after decompression, so that a small archive cannot keep a machine busy for days
MAX_RATIO = 250  # bytes out for each byte in; text of people comes to 3 to 20, and log lines to 100
RATIO_FROM = 64 << 20  # decompressed bytes below which the ratio is no danger
MAX_MEMBERS = 1000  # of a zip archive
MAX_DIRECTORY_BYTES = 1 << 20  # of a zip archive's list of members, which is read into memory
BUFFER_BYTES = 1 << 17  # that are read at a time
COMPRESSIONS = (".gz", ".zst")
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
BOM = b"\xef\xbb\xbf"
_DIRECTORY_END, _LARGE_DIRECTORY = b"PK\x05\x06", b"PK\x06\x07"


@dataclass(frozen=True, slots=True)
class Content:
    """One stream of rows: a file, decompressed where its name says so, or one member of a zip archive.

    A plain file of lines may be read in parts: from `begin`, where a line begins, to `end`, where another one does.
    """

    path: Path
    member: str | None = None
    begin: int = 0  # in bytes
    end: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}[{self.member!r}]"

    @property
    def name(self) -> PurePosixPath:
        """The name whose ending says how the rows are written."""
        return PurePosixPath(self.path.name if self.member is None else self.member)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the stream after a look at its first bytes.

        Raises:
            DataError: It cannot be opened, is damaged, is not what its name says, or holds too much.
        """
        try:
            plain = self.path.open("rb", BUFFER_BYTES)
        except OSError as error:
            raise DataError(f"E_FORMAT: {self.path} cannot be opened: {error.strerror}.") from error
        with plain:
            if self.member is not None:
                with _buffered(_member(plain, self), plain, self) as stream:
                    yield stream
                return
            suffix = self.path.suffix.lower()
            _refuse_other(self, plain.read(512), suffix)
            plain.seek(self.begin)
            if suffix not in COMPRESSIONS:
                yield plain
                return
            with _buffered(_decompressed(plain, suffix), plain, self) as stream:
                yield stream


def contents(path: Path) -> list[Content]:
    """Return the streams of a file: one, or the members of a zip archive in the order of their names.

    Raises:
        DataError: The archive is damaged, or its members are not plain files within bounds.
    """
    if path.suffix.lower() != ".zip":
        return [Content(path)]
    names = sorted(info.filename for info in check_archive(path) if not _is_passed_over(info))
    if not names:
        raise DataError(f"E_ARCHIVE: {path} holds no files.")
    return [Content(path, name) for name in names]


def check_archive(path: Path) -> list[zipfile.ZipInfo]:
    """Return what a zip archive says of its members.

    Raises:
        DataError: The archive is damaged, or its members are not plain files within bounds.
    """
    _check_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (OSError, *ZIP_ERRORS) as error:
        raise _damaged(Content(path), error) from error
    _check_members(path, infos)
    return infos


class _Bounded(io.RawIOBase):
    """A decompressed stream that stops where there is too much of it, and says what is wrong with it in our words."""

    def __init__(self, stream: IO[bytes], compressed: IO[bytes], content: Content) -> None:
        self._stream, self._compressed, self._content = stream, compressed, content
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            chunk = self._stream.read(len(buffer))
        except (OSError, *ZIP_ERRORS) as error:
            raise _damaged(self._content, error) from error
        self._num_bytes += len(chunk)
        if self._num_bytes > MAX_FILE_BYTES:
            raise _too_much(self._content)
        if self._num_bytes > RATIO_FROM and self._num_bytes > MAX_RATIO * self._compressed.tell():
            raise _too_dense(self._content)
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def _buffered(stream: IO[bytes], compressed: IO[bytes], content: Content) -> Iterator[IO[bytes]]:
    """Bound a decompressed stream, and look at what it really holds."""
    with stream, io.BufferedReader(_Bounded(stream, compressed, content), BUFFER_BYTES) as buffered:
        _refuse_other(content, buffered.peek(512)[:512], "")
        yield buffered


def _member(plain: IO[bytes], content: Content) -> IO[bytes]:
    """Open a member of a zip archive."""
    try:
        return zipfile.ZipFile(plain).open(str(content.member))
    except (OSError, *ZIP_ERRORS) as error:
        raise _damaged(content, error) from error


def _decompressed(plain: IO[bytes], suffix: str) -> IO[bytes]:
    """Decompress all members or frames of a stream; whatever else follows them is an error of the archive."""
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=plain)  # type: ignore[return-value]
    import pyarrow as pa

    return pa.CompressedInputStream(plain, "zstd")  # type: ignore[no-any-return]


def _check_zip(path: Path) -> None:
    """Refuse an archive whose list of members would not fit into memory, before it is read."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (22 + 0xFFFF)))  # the end record and the longest comment behind it
        tail = file.read()
    at = tail.rfind(_DIRECTORY_END)
    if at < 0 or len(tail) < at + 22:
        raise DataError(f"E_ARCHIVE: {path} is not a zip archive, as {path.suffix} files are, or it is cut off.")
    num_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if num_bytes > MAX_DIRECTORY_BYTES or tail[max(0, at - 20) :].startswith(_LARGE_DIRECTORY):
        raise DataError(f"E_ARCHIVE: {path} has more than {MAX_MEMBERS:,} members. Put their rows into one file.")


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive with any member that is not a plain file of a plain name, or with too much in it."""
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"E_ARCHIVE: {path} has more than {MAX_MEMBERS:,} members. Put their rows into one file.")
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        problems = [
            (not name, "without a name"),
            (name.startswith(("/", "\\")) or name[1:2] == ":", "an absolute path"),
            (".." in name.replace("\\", "/").split("/"), "a path that leads out of the archive"),
            (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "not a plain file"),
            (bool(info.flag_bits & 0x1), "encrypted"),
            (name in seen, "there twice"),
        ]
        for found, what in problems:
            if found:
                raise DataError(f"E_ARCHIVE: {path}: its member {name[:80]!r} is {what}. Pack the files anew.")
        seen.add(name)
    # A member never gives more than its declared size, so the declared sizes bound the whole.
    total = sum(info.file_size for info in infos)
    if total > MAX_FILE_BYTES:
        raise _too_much(Content(path))
    if total > RATIO_FROM and total > MAX_RATIO * path.stat().st_size:
        raise _too_dense(Content(path))


def _is_passed_over(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a folder, or what macOS adds to every archive."""
    return info.is_dir() or info.filename.startswith("__MACOSX/") or info.filename.endswith(".DS_Store")


def _damaged(content: Content, error: Exception) -> DataError:
    """Say what is wrong with an archive; what is wrong with the disk is raised again."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a place before the file's beginning
        raise error
    return DataError(f"E_ARCHIVE: {content} is damaged ({error}). Fetch it again.")


def _too_much(content: Content) -> DataError:
    return DataError(
        f"E_ARCHIVE: {content} holds more than {MAX_FILE_BYTES:,} bytes. Unpack it, split it, or store it as Parquet."
    )


def _too_dense(content: Content) -> DataError:
    return DataError(
        f"E_ARCHIVE: {content} grows more than {MAX_RATIO}-fold when decompressed, as archives do that are made to "
        f"fill a machine. If it is meant to be so, unpack it first."
    )


def _refuse_other(content: Content, head: bytes, suffix: str) -> None:
    """Recognise files that are not what their name says, before thousands of rows are called bad."""
    start = head.removeprefix(BOM).lstrip().lower()
    if not head:
        raise DataError(f"E_FORMAT: {content} is empty.")
    magic = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
    if suffix in magic:
        if not head.startswith(magic[suffix]):
            raise DataError(f"E_ARCHIVE: {content} is not what its name ends with ({suffix}). Rename it.")
        return
    signs = [
        (head.startswith(magic[".gz"]), "E_ARCHIVE", "is compressed with gzip. Add .gz to its name, or unpack it"),
        (head.startswith(magic[".zst"]), "E_ARCHIVE", "is compressed with zstd. Add .zst to its name, or unpack it"),
        (head.startswith(b"PK\x03\x04"), "E_ARCHIVE", "is a zip archive. Add .zip to its name, or unpack it"),
        (head.startswith((b"BZh", b"\xfd7zXZ\x00")), "E_ARCHIVE", "is compressed. Unpack it, or use gzip, zstd or zip"),
        (head.startswith(b"PAR1"), "E_FORMAT", "is Parquet. Set the source's `format: parquet`"),
        (head.startswith((b"\xff\xfe", b"\xfe\xff")), "E_ENCODING", "is UTF-16 or UTF-32. Convert it to UTF-8"),
        (start.startswith((b"<!doctype", b"<html")), "E_FORMAT", "is an HTML page. Download the file itself"),
        (start.startswith(b"version https://git-lfs"), "E_FORMAT", "is a Git LFS pointer. Run `git lfs pull`"),
    ]
    for found, code, what in signs:
        if found:
            raise DataError(f"{code}: {content} {what}.")
