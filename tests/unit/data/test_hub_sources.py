"""Data sets of the hub, with the real clients against a server on the loopback interface."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, HubServer
from served_hub import point_datasets_to, serve_hub, share_blob

from pipeline.config.data import SourceConfig, SourceFormat, TableName
from pipeline.data.sources import read_source
from pipeline.errors import DataError

pytest.importorskip("datasets", reason="needs the package datasets")
KEY = "data.sources[0]"
Rows = list[dict[str, Any]]


def rows_of(*numbers: int) -> Rows:
    return [{"prompt": f"Question {number}", "completion": f"Answer {number}"} for number in numbers]


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: Rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub(tmp_path / "home", monkeypatch) as server:
        point_datasets_to(server, tmp_path / "home", monkeypatch)
        yield server


def read(path: str = "tiny/set", **more: Any) -> Rows:
    source = SourceConfig(table=TableName.demonstrations, path=path, format=SourceFormat.hub, **more)
    return [record.fields or {} for record in read_source(source, KEY)]


def push(hub: HubServer, rows: Rows) -> str:
    return hub.push("datasets", "tiny/set", {"train.jsonl": as_jsonl(rows), "README.md": b"# A data set\n"})


def go_offline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    patch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.mark.slow
def test_rows_of_parquet_shards_and_of_json_lines_by_split(hub: HubServer) -> None:
    shards = {f"data/train-0000{part}-of-00002.parquet": as_parquet(rows_of(part)) for part in range(2)}
    hub.push("datasets", "tiny/shards", shards)
    assert read("tiny/shards") == rows_of(0, 1)
    hub.push("datasets", "tiny/lines", {"train.jsonl": as_jsonl(rows_of(1)), "test.jsonl": as_jsonl(rows_of(2, 3))})
    assert read("tiny/lines", hub_split="test") == rows_of(2, 3)
    with pytest.raises(DataError, match=rf'^{KEY.replace("[", ".").replace("]", ".")}: .*Unknown split "valid".*Check'):
        read("tiny/lines", hub_split="valid")


def test_a_commit_in_the_cache_of_the_hub_is_a_folder_like_another(hub: HubServer) -> None:
    from huggingface_hub import snapshot_download

    hub.push("datasets", "tiny/set", {"train.parquet": as_parquet(rows_of(0, 1))})
    folder = snapshot_download("tiny/set", repo_type="dataset")
    assert read(folder) == rows_of(0, 1)
    share_blob(Path(folder) / "train.parquet")
    assert read(folder) == rows_of(0, 1)


@pytest.mark.slow
def test_a_revision_is_that_one_and_nothing_else(hub: HubServer) -> None:
    first = push(hub, rows_of(0, 1, 2))
    hub.repositories["datasets", "tiny/set"].refs["v1"] = first
    assert read() == rows_of(0, 1, 2)
    second = push(hub, rows_of(7))
    assert read() == rows_of(7)
    assert read(revision="v1") == read(revision=first) == rows_of(0, 1, 2)
    assert read(revision=second) == rows_of(7)
    with pytest.raises(
        DataError, match=r"the data set tiny/set has no revision v9\. Correct `data\.sources.*revision`"
    ):
        read(revision="v9")


def test_a_hub_that_does_not_answer_is_no_reason_to_read_another_revision(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(hub, rows_of(0, 1, 2))
    assert read(revision=first) == rows_of(0, 1, 2)
    second = push(hub, rows_of(7))
    hub.faults = [Fault("tiny/set", status=500)]
    other = rf"cannot be asked for .*set at revision {second}, and the cache of `datasets` holds revision {first}"
    with pytest.raises(DataError, match=other):
        read(revision=second)
    go_offline(monkeypatch)
    with pytest.raises(DataError, match=other):
        read(revision=second)
    assert read(revision=first) == read() == rows_of(0, 1, 2)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (
            None,
            r"the data set tiny/set( at revision \w{40})? is gated\. Accept .*/datasets/tiny/set, and set HF_TOKEN",
        ),
        ("hf_stranger", r"the data set tiny/set( at revision \w{40})? is gated\. Accept its terms"),
        ("hf_expired", r"the hub refuses the token"),
        ("hf_friend", None),
    ],
)
def test_a_gated_data_set(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str | None
) -> None:
    commit = push(hub, rows_of(0, 1))
    hub.repositories["datasets", "tiny/set"].is_gated = True
    hub.tokens, hub.accepted = {"hf_stranger", "hf_friend"}, {"hf_friend"}
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    for revision in (None, commit):
        if message is None:
            assert read(revision=revision) == rows_of(0, 1)
        else:
            with pytest.raises(DataError, match=message):
                read(revision=revision)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"set.py": b"1 / 0", "README.md": b"x"}, r"scripts are no longer supported.*no script is run"),
        ({"train.pkl": b"\x80", "README.md": b"x"}, r"No \(supported\) data files.*only data files are read"),
        ({"train.jsonl": b'{"a": 1}\n{"a": ', "README.md": b"x"}, r"the data set tiny/set cannot be loaded"),
        (None, r"the hub knows no data set tiny/set, or it is private\. Correct `data\.sources.0.\.path`"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(hub: HubServer, files: dict[str, bytes] | None, message: str) -> None:
    if files is not None:
        hub.push("datasets", "tiny/set", files)
    with pytest.raises(DataError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert not hub.sent.get("train.pkl")


@pytest.mark.parametrize("fault", [Fault("/tiny/set"), Fault("/tiny/set", status=429), Fault("/tiny/set", status=502)])
def test_a_hub_in_trouble_is_one_clear_error(hub: HubServer, fault: Fault) -> None:
    push(hub, rows_of(0))
    hub.faults = [fault]
    with pytest.raises(DataError, match=r"tiny/set could not be read from http://127.*run the command again") as caught:
        read()
    assert "\n" not in str(caught.value)
    hub.faults = [Fault("train.jsonl", num_bytes=20, times=1, method="GET")]  # broken off in the middle
    assert read() == rows_of(0)


def test_offline_and_not_in_the_cache(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    for revision in (None, "v1", "0" * 40):
        with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set.*`hf download --repo-type dataset tiny/set`"):
            read(revision=revision)
    with pytest.raises(DataError, match=r"names the folder \./nowhere, which does not exist"):
        read("./nowhere")
    assert hub.requests == []
