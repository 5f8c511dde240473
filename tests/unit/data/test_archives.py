"""Archives: what is in them is read as it stands, within bounds, and nothing of them reaches the disk."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config.data import SourceFormat
from pipeline.data import archives
from pipeline.data.readers import read_file
from pipeline.data.records import Record
from pipeline.errors import DataError

LINE = b'{"p": "a"}\n'


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def read(tmp_path: Path, name: str, content: bytes, format: SourceFormat = SourceFormat.auto) -> list[Record]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(read_file(path, format))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl.gz", gzip.compress(LINE + LINE)),
        ("rows.jsonl.gz", gzip.compress(LINE) + gzip.compress(LINE)),  # members follow each other
        ("rows.JSONL.ZST", zstd(LINE + LINE)),
        ("rows.jsonl.zst", zstd(LINE) + zstd(LINE)),  # so do frames
        ("rows.zip", zipped([("rows.jsonl", LINE + LINE)])),
        ("rows.zip", zipped([("b.jsonl", LINE), ("a.jsonl", LINE), ("__MACOSX/._a.jsonl", b"x"), ("folder/", b"")])),
    ],
)
def test_compressed_rows_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    assert [record.fields for record in read(tmp_path, name, content)] == [{"p": "a"}] * 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_members_are_read_in_the_order_of_their_names_and_rows_know_theirs(tmp_path: Path) -> None:
    members = [("b.csv", b"p\n2\n"), ("sub/c.csv", b"p\n3\n\n4\n"), ("a.csv", b"p\n1\n")]
    found = read(tmp_path, "rows.zip", zipped(members))
    assert [record.fields for record in found] == [{"p": "1"}, {"p": "2"}, {"p": "3"}, {"p": "4"}]
    assert [record.member for record in found] == ["a.csv", "b.csv", "sub/c.csv", "sub/c.csv"]
    assert [record.line for record in found] == [2, 2, 2, 4]


def test_a_given_format_is_that_of_every_member(tmp_path: Path) -> None:
    found = read(tmp_path, "rows.zip", zipped([("part-0", LINE), ("part-1", LINE)]), SourceFormat.jsonl)
    assert len(found) == 2


BAD_ZIPS = [
    ("climbing", zipped([("../rows.jsonl", LINE)]), "leads out"),
    ("climbing on Windows", zipped([("a\\..\\..\\rows.jsonl", LINE)]), "leads out"),
    ("absolute", zipped([("/etc/rows.jsonl", LINE)]), "absolute"),
    ("drive", zipped([("C:/rows.jsonl", LINE)]), "absolute"),
    ("several formats", zipped([("a.jsonl", LINE), ("b.csv", b"p\n1\n")]), "several formats"),
    ("Parquet inside", zipped([("a.parquet", b"PAR1")]), "not read from an archive"),
    ("nothing", zipped([]), "holds no files"),
    ("cut off", zipped([("a.jsonl", LINE)])[:-30], "not a zip archive"),
    ("no zip", LINE, "not a zip archive"),
    ("too many", zipped([(f"{index}.jsonl", b"") for index in range(1001)]), "more than 1,000 members"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in BAD_ZIPS], ids=[case[0] for case in BAD_ZIPS])
def test_a_zip_archive_built_to_do_harm_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"E_ARCHIVE: .*{message}"):
        read(tmp_path, "rows.zip", content)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.zip"]


def test_links_encrypted_members_and_names_missing_or_used_twice_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("rows.jsonl")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="not a plain file"):
        read(tmp_path, "link.zip", stream.getvalue())
    encrypted = bytearray(zipped([("rows.jsonl", LINE)]))
    flags = encrypted.rindex(b"PK\x01\x02") + 8
    encrypted[flags : flags + 2] = struct.pack("<H", 1)
    with pytest.raises(DataError, match="encrypted"):
        read(tmp_path, "encrypted.zip", bytes(encrypted))
    nameless = bytearray(zipped([("rows.jsonl", LINE)]))
    nameless[nameless.rindex(b"rows.jsonl")] = 0  # names end at a NUL
    with pytest.raises(DataError, match="without a name"):
        read(tmp_path, "nameless.zip", bytes(nameless))
    twice = zipped([("a.jsonl", LINE), ("b.jsonl", LINE)]).replace(b"b.jsonl", b"a.jsonl")
    with pytest.raises(DataError, match="there twice"):
        read(tmp_path, "twice.zip", twice)


def test_a_list_of_members_too_large_for_memory_is_never_read(tmp_path: Path) -> None:
    content = bytearray(zipped([("rows.jsonl", LINE)]))
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<I", 1 << 30)
    with pytest.raises(DataError, match="more than 1,000 members"):
        read(tmp_path, "rows.zip", bytes(content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl.gz", gzip.compress(LINE * 100)[:-9]),
        ("rows.jsonl.gz", gzip.compress(LINE) + b"garbage"),
        ("rows.jsonl.zst", zstd(LINE * 100)[:-3]),
        ("rows.jsonl.zst", zstd(LINE) + b"garbage"),
        ("rows.jsonl.zst", LINE),
        ("rows.jsonl", zstd(LINE)),
        ("rows.jsonl", zipped([("rows.jsonl", LINE)])),
        ("rows.jsonl", b"BZh91AY"),
        ("rows.zip", zipped([("rows.jsonl", LINE * 100)]).replace(b"rows.jsonl", b"xxxx.jsonl", 1)),
    ],
)
def test_a_damaged_or_misnamed_archive_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match="E_ARCHIVE"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("ending", [".gz", ".zst", ".zip"])
def test_what_grows_too_much_or_too_fast_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    content = LINE * 20_000
    name, pack = {
        ".gz": ("rows.jsonl.gz", gzip.compress),
        ".zst": ("rows.jsonl.zst", zstd),
        ".zip": ("rows.zip", lambda raw: zipped([("rows.jsonl", raw)])),
    }[ending]
    packed = pack(content)
    assert len(read(tmp_path, name, packed)) == 20_000
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", len(content) - 1)
    with pytest.raises(DataError, match="holds more than 219,999 bytes"):
        read(tmp_path, name, packed)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", len(content))
    monkeypatch.setattr(archives, "RATIO_FROM", 1000)
    with pytest.raises(DataError, match="grows more than 250-fold"):
        read(tmp_path, name, packed)
    monkeypatch.setattr(archives, "MAX_RATIO", 10**6)
    assert len(read(tmp_path, name, packed)) == 20_000


def test_a_failing_disk_is_not_called_a_damaged_archive(tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    content = archives.Content(tmp_path / "rows.jsonl.gz")
    with pytest.raises(OSError, match="Input/output"):
        archives._Bounded(Failing(), io.BytesIO(), content).readinto(memoryview(bytearray(8)))  # type: ignore[arg-type]
