from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifacts import durable, temporary
from pipeline.artifacts.durable import KILL_POINTS, kill_point, publish_folder, storage_error, write_durably
from pipeline.artifacts.hashing import FileHashes, canonical_json, sha256_file, sha256_json
from pipeline.artifacts.temporary import is_left_behind, maker_of, remove, sweep, temporary_path
from pipeline.errors import StorageError

# printf abc | sha256sum
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == SHA256_OF_ABC


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 1, "b": 3})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_a_remembered_digest_follows_the_file(tmp_path: Path) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"abc")
    os.utime(file, (1, 1))
    assert FileHashes(cache).sha256(file) == SHA256_OF_ABC
    known = json.loads(cache.read_text())
    known[str(file)][2] = "remembered"
    cache.write_text(json.dumps(known))
    assert FileHashes(cache).sha256(file) == "remembered"  # the memory is used...
    file.write_bytes(b"abcd")
    assert FileHashes(cache).sha256(file) == sha256_file(file)  # ...until size or time differ
    cache.write_text("not JSON")
    assert FileHashes(cache).sha256(file) == sha256_file(file)


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    file, cache = tmp_path / "rows", tmp_path / "hashes.json"
    file.write_bytes(b"abc")
    stamp = file.stat().st_mtime_ns
    hashes = FileHashes(cache)
    hashes.sha256(file)
    file.write_bytes(b"xyz")  # same size, within one tick of the clock
    os.utime(file, ns=(stamp, stamp))
    assert hashes.sha256(file) == sha256_file(file)


def test_a_memory_that_cannot_be_kept_costs_time_and_nothing_else(tmp_path: Path) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"abc")
    os.utime(file, (1, 1))
    cache.write_text("a file where the folder should be, which stops the superuser too")
    hashes = FileHashes(cache / "hashes.json")
    assert hashes.sha256(file) == SHA256_OF_ABC
    file.write_bytes(b"abcd")
    assert hashes.sha256(file) == sha256_file(file)


def test_a_failed_write_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "state.json"
    write_durably(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StorageError, match=r"state\.json \(3 bytes are needed\): the disk is full"):
        write_durably(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_real_limit_on_file_size_is_a_storage_error(tmp_path: Path) -> None:
    script = (
        "import resource, pathlib, sys\n"
        "from pipeline.artifacts.durable import write_durably\n"
        "from pipeline.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    write_durably(pathlib.Path(sys.argv[1]) / 'big', 'x' * 1000)\n"
        "except StorageError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "1,000 bytes are needed" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_are_not_called_storage_errors(tmp_path: Path) -> None:
    assert storage_error(OSError(errno.ENOENT, "no such file"), tmp_path) is None
    assert isinstance(storage_error(OSError(errno.EROFS, "read-only"), tmp_path), StorageError)


def test_publishing_is_one_rename(tmp_path: Path) -> None:
    source = tmp_path / "tmp"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("x")
    publish_folder(source, tmp_path / "final")
    assert (tmp_path / "final" / "sub" / "file").read_text() == "x"
    assert not source.exists()


def test_an_unknown_kill_point_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="unknown kill point"):
        kill_point("seal.nowhere")


def test_a_kill_point_ends_the_process_at_the_asked_passage(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from pipeline.artifacts.durable import write_durably\n"
        "for number in range(5):\n"
        "    write_durably(pathlib.Path(sys.argv[1]) / 'file', str(number))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PIPELINE_KILL_AT": "file.renamed:3"}, check=False)
    assert done.returncode == -9
    assert (tmp_path / "file").read_text() == "2"
    assert len(set(KILL_POINTS)) == len(KILL_POINTS)


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    mine = temporary_path(tmp_path)
    mine.mkdir()
    maker = maker_of(mine.name)
    assert maker is not None
    assert maker.pid == os.getpid()
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib, sys\n"
            "from pipeline.artifacts.temporary import temporary_path\n"
            "path = temporary_path(pathlib.Path(sys.argv[1])); path.mkdir(); (path / 'x').write_text('x')\n"
            "print(path.name)",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    other_boot = tmp_path / f"tmp-{maker.host}-00000000-{os.getpid()}-0"
    other_host = tmp_path / f"tmp-00000000-{maker.boot}-999999999-0"
    named_alike = tmp_path / "tmp-notes"
    for path in (other_boot, other_host, named_alike):
        path.mkdir()
    assert sorted(path.name for path in sweep(tmp_path)) == sorted([dead, other_boot.name])
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, other_host.name, named_alike.name}
    assert not is_left_behind(mine.name)


def test_a_living_process_of_this_machine_keeps_its_files(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from pipeline.artifacts.temporary import temporary_path\n"
        "temporary_path(pathlib.Path(sys.argv[1])).mkdir()\n"
        "print('made', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        assert sweep(tmp_path) == []
        process.kill()
        process.wait()
    started = time.monotonic()
    assert len(sweep(tmp_path)) == 1
    assert time.monotonic() - started < 5


def test_sweeping_goes_on_where_another_process_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = maker_of(temporary_path(tmp_path).name)
    assert maker is not None
    left = [tmp_path / f"tmp-{maker.host}-00000000-{os.getpid()}-{number}" for number in range(3)]
    left[0].mkdir()
    left[1].write_text("x")
    left[2].write_text("x")

    def removed_by_both(path: Path) -> None:
        remove(path)
        if path != left[2]:
            remove(path)

    monkeypatch.setattr(temporary, "remove", removed_by_both)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
