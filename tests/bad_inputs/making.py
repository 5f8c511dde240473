"""Bad inputs that no repository should hold: too many bytes, special files, archives that are built to do harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

FILES = Path(__file__).with_name("files")
SKY = b'{"prompt": "Why is the sky blue?", "completion": "Air scatters blue light most."}\n'
GRASS = b'{"prompt": "Why is grass green?", "completion": "Chlorophyll reflects green light."}\n'
BOMB_PIECE, BOMB_PIECES = 16 << 20, 128  # 2 GiB

MAKERS: dict[str, Callable[[Path], None]] = {}


def place(name: str, folder: Path) -> Path:
    """Put the input of a case into a folder and return its path."""
    path = folder / name
    if name in MAKERS:
        MAKERS[name](path)
    else:
        path.write_bytes((FILES / name).read_bytes())
    if name == "device.jsonl":
        return Path("/dev/zero")  # making one takes a privilege, and every machine has this one
    return path


def makes(name: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register a function that returns the bytes of a file."""

    def register(function: Callable[[], bytes]) -> Callable[[], bytes]:
        MAKERS[name] = lambda path: _write(path, function())
        return function

    return register


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of a name used twice, which is the point
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


@makes("bomb.jsonl.gz")
def gzip_bomb() -> bytes:
    return gzip.compress(bytes(BOMB_PIECE)) * BOMB_PIECES


@makes("bomb.jsonl.zst")
def zstd_bomb() -> bytes:
    return bytes(pa.Codec("zstd").compress(bytes(BOMB_PIECE), asbytes=True)) * BOMB_PIECES


@makes("bomb.zip")
def zip_bomb() -> bytes:
    return zipped(*((f"{index}.jsonl", bytes(BOMB_PIECE)) for index in range(6)))


@makes("climbing.zip")
def climbing_zip() -> bytes:
    return zipped(("../escaped.jsonl", SKY))


@makes("absolute.zip")
def absolute_zip() -> bytes:
    return zipped(("/escaped.jsonl", SKY))


@makes("link.zip")
def link_zip() -> bytes:
    link = zipfile.ZipInfo("rows.jsonl")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((link, b"/etc/passwd"))


@makes("twice.zip")
def twice_zip() -> bytes:
    return zipped(("rows.jsonl", SKY), ("rows.jsonl", GRASS))


@makes("many.zip")
def many_zip() -> bytes:
    """The list of members alone, written by hand because the library takes seconds for it."""
    entry = b"PK\x01\x02" + bytes(24) + (9).to_bytes(2, "little") + bytes(16)
    listed = b"".join(entry + f"{index:09}".encode() for index in range(100_000))
    sizes = (0xFFFF).to_bytes(2, "little") * 2 + len(listed).to_bytes(4, "little")
    return listed + b"PK\x05\x06" + bytes(4) + sizes + bytes(6)


MAKERS["pipe.jsonl"] = lambda path: os.mkfifo(path)
MAKERS["folder.jsonl"] = lambda path: path.mkdir()
MAKERS["device.jsonl"] = lambda path: None


def _link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere.jsonl")
    elsewhere.write_bytes(SKY + GRASS)
    path.symlink_to(elsewhere)


def _hub(path: Path) -> None:
    """A folder laid out like a data set of the hub, with a link that leads out of it."""
    secret = path.with_name("secret.jsonl")
    secret.write_bytes(SKY)
    path.mkdir()
    (path / "train.jsonl").symlink_to(secret)


MAKERS["link.jsonl"] = _link
MAKERS["hub"] = _hub


@makes("deep.jsonl")
def deep() -> bytes:
    return SKY + b'{"prompt": "Why?", "completion": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n" + GRASS


@makes("long_line.jsonl")
def long_line() -> bytes:
    return SKY + b'{"prompt": "Why?", "completion": "' + b"x" * (64 << 20) + b'"}\n' + GRASS


def _keys(last: str) -> bytes:
    pairs = [f'"key {index}": {index}' for index in range(100_000)]
    return ('{"prompt": "Why?", "completion": "So.", ' + ", ".join([*pairs, f'"{last}": 0']) + "}\n").encode()


@makes("keys.jsonl")
def keys() -> bytes:
    return SKY + _keys("another") + GRASS


@makes("keys_twice.jsonl")
def keys_twice() -> bytes:
    return SKY + _keys("key 99999") + GRASS


@makes("large_cell.csv")
def large_cell() -> bytes:
    return b"prompt,completion\n" + b"x" * 200_000 + b",So.\n"


@makes("personal_data.jsonl")
def personal_data() -> bytes:
    """Put together here, so that nobody's scanner for leaked keys is alarmed by a file."""
    key = "gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    card = "4111 1111 1111" + " 1111"
    texts = ["Write to jane.doe@company-mail.com", "Call +44 20 7946 0958", f"My card is {card}", f"My token is {key}"]
    return SKY + b"".join(json.dumps({"prompt": text, "completion": "Thank you."}).encode() + b"\n" for text in texts)
