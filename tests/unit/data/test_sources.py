"""What a source contains, and data sets of the hub."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipeline.artifacts.hashing import FileHashes
from pipeline.config.data import DataConfig, SourceConfig, SourceFormat, TableName
from pipeline.data.sources import read_source, source_digests, source_names
from pipeline.errors import DataError


def hub(path: str, **more: str) -> SourceConfig:
    return SourceConfig(table=TableName.demonstrations, path=path, format=SourceFormat.hub, **more)


def test_files_count_by_their_bytes_and_hub_data_sets_by_their_revision(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "A"}\n', encoding="utf-8")
    data = DataConfig(
        name="x",
        sources=[
            SourceConfig(table=TableName.prompts, path=str(file)),
            hub("org/set", revision="abc", subset="main"),
            hub("org/set"),
        ],
    )
    hashes = FileHashes(tmp_path / "hashes.json")
    before = source_digests(data, hashes)
    assert before == {
        "data.sources[0]": hashlib.sha256(b'{"prompt": "A"}\n').hexdigest(),
        "data.sources[1]": "hub:org/set@abc:main:train",
        "data.sources[2]": "hub:org/set@main::train",
    }
    file.write_text('{"prompt": "Another"}\n', encoding="utf-8")
    assert source_digests(data, hashes)["data.sources[0]"] != before["data.sources[0]"]
    file.unlink()
    with pytest.raises(DataError, match=r"data\.sources\[0\]\.path"):
        source_digests(data, hashes)


def test_rows_say_where_they_are_from_without_a_path(tmp_path: Path) -> None:
    paths = (tmp_path / "ann" / "votes.json", tmp_path / "bob" / "votes.jsonl.gz", tmp_path / "more.csv")
    files = [SourceConfig(table=TableName.exports, path=str(path)) for path in paths]
    data = DataConfig(name="desk", sources=[*files, hub("org/set")])
    assert source_names(data) == ["desk/votes", "desk/votes#2", "desk/more", "org/set"]


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("rows.jsonl", "pipe.jsonl"):
        data = DataConfig(name="x", sources=[SourceConfig(table=TableName.prompts, path=str(tmp_path / name))])
        with pytest.raises(DataError, match=r"data\.sources\[0\]\.path: .* is not a plain file"):
            source_digests(data, FileHashes(tmp_path / "hashes.json"))


def test_a_folder_laid_out_like_a_hub_data_set_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "None"}]}] * 2
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = list(read_source(hub(str(folder)), "data.sources[0]"))
    assert [record.fields for record in found] == rows
    assert [record.line for record in found] == [1, 2]
    digest = source_digests(DataConfig(name="x", sources=[hub(str(folder))]), FileHashes(tmp_path / "h.json"))
    assert hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest() in digest["data.sources[0]"]


def test_a_hub_data_set_that_cannot_be_had_is_one_clear_error() -> None:
    pytest.importorskip("datasets", reason="needs the package datasets")
    with pytest.raises(DataError, match=r"no-such-org/no-such-set.*HF_HUB_OFFLINE is set"):
        list(read_source(hub("no-such-org/no-such-set"), "data.sources[0]"))


def test_the_labeling_interface_beside_an_export_counts_as_the_export_does(tmp_path: Path) -> None:
    export, interface = tmp_path / "votes.json", tmp_path / "interface.xml"
    export.write_text("[]", encoding="utf-8")
    interface.write_text("<View/>", encoding="utf-8")
    source = SourceConfig(table=TableName.exports, path=str(export), labeling_config=str(interface))
    data, hashes = DataConfig(name="x", sources=[source]), FileHashes(tmp_path / "hashes.json")
    assert source_digests(data, hashes) == {
        "data.sources[0]": hashlib.sha256(b"[]").hexdigest(),
        "data.sources[0].labeling_config": hashlib.sha256(b"<View/>").hexdigest(),
    }
    interface.unlink()
    for nothing in (interface, tmp_path):  # no file at all, and a folder
        source.labeling_config = str(nothing)
        with pytest.raises(DataError, match=r"data\.sources\[0\]\.labeling_config: there is no file .*Export it"):
            source_digests(data, hashes)
