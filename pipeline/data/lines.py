"""Lines of a text file with their places, within bounds, and files that are not what their name says."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import DataError

MAX_ROW_BYTES = 8 << 20  # of one line; the rest of a longer one is passed over
MAX_FILE_BYTES = 4 << 30  # after decompression, so that a small archive cannot fill memory or disk
BOM = b"\xef\xbb\xbf"


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, byte offset and bytes of every line; of one over ``MAX_ROW_BYTES`` the first bytes beyond that.

    Lines end at a line feed and nowhere else. The byte order mark, if there is one, is part of the first line's place
    but not of its bytes.

    Raises:
        DataError: The bytes are not text, the archive is damaged, or there is too much of it.
    """
    offset = number = 0
    with _opened(path) as stream:
        while raw := stream.readline(MAX_ROW_BYTES + 2):
            size, end = len(raw), raw
            while size > MAX_ROW_BYTES and end and not end.endswith(b"\n"):
                end = stream.readline(MAX_ROW_BYTES)
                size += len(end)
            number += 1
            yield number, offset, raw.removeprefix(BOM) if number == 1 else raw
            offset += size
            if offset > MAX_FILE_BYTES:
                raise _too_much(path)


def read_text(path: Path) -> str:
    """Read a whole file as UTF-8; a byte order mark stays.

    Raises:
        DataError: As for ``lines``, or it is not UTF-8.
    """
    with _opened(path) as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _too_much(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"E_ENCODING: {path} is not UTF-8 at byte {error.start}. Convert it to UTF-8.") from error


def refuse_array(path: Path) -> None:
    """Recognise a JSON array that is spread over the lines of a file named as JSON Lines.

    Raises:
        DataError: It is one.
    """
    with _opened(path) as stream:
        first = stream.readline(MAX_ROW_BYTES).removeprefix(BOM).strip()
    if not first.startswith(b"["):
        return
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        raise DataError(
            f"E_FORMAT: {path} begins with a JSON array, not with one object per line. Set the source's `format: json`."
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressed if its name ends with ``.gz``, after a look at its first bytes."""
    is_gzip = path.suffix.lower() == ".gz"
    with path.open("rb") as plain:
        head = plain.read(512)
        plain.seek(0)
        _sniff(path, head, is_gzip)
        if not is_gzip:
            yield plain
            return
        try:
            with io.BufferedReader(gzip.GzipFile(fileobj=plain)) as stream:
                _sniff(path, stream.peek(512)[:512], is_gzip=False)
                yield stream
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"E_ARCHIVE: {path} is a damaged gzip file ({error}). Fetch it again.") from error


def _too_much(path: Path) -> DataError:
    return DataError(f"E_ARCHIVE: {path} holds more than {MAX_FILE_BYTES:,} bytes. Split it, or store it as Parquet.")


def _sniff(path: Path, head: bytes, is_gzip: bool) -> None:
    """Recognise files that are not what their name says, before thousands of rows are called bad."""
    start = head.removeprefix(BOM).lstrip().lower()
    if not head:
        raise DataError(f"E_FORMAT: {path} is empty.")
    if is_gzip:
        if head[:2] != b"\x1f\x8b":
            raise DataError(f"E_ARCHIVE: {path} is not gzip, although its name ends with .gz. Rename it.")
        return
    signs = [
        (head[:2] == b"\x1f\x8b", "E_ARCHIVE", "is compressed with gzip. Add .gz to its name"),
        (head[:4] == b"PK\x03\x04", "E_ARCHIVE", "is a zip archive. Unpack it"),
        (head[:4] == b"PAR1", "E_FORMAT", "is Parquet. Set the source's `format: parquet`"),
        (head[:2] in (b"\xff\xfe", b"\xfe\xff"), "E_ENCODING", "is UTF-16 or UTF-32. Convert it to UTF-8"),
        (start.startswith((b"<!doctype", b"<html")), "E_FORMAT", "is an HTML page. Download the file itself"),
        (start.startswith(b"version https://git-lfs"), "E_FORMAT", "is a Git LFS pointer. Run `git lfs pull`"),
    ]
    for found, code, what in signs:
        if found:
            raise DataError(f"{code}: {path} {what}.")
