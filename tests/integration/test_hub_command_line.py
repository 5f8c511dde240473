"""Models and data sets of the hub through the command line that users type, with a token that may leak nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, HubServer
from sft_jobs import WORDS
from tiny import make_tiny_model
from tracked_runs import files_below

pytestmark = pytest.mark.integration

TOKEN = "hf_" + "PlantedTokenPlantedTokenPlanted000"
OTHER_TEXT = ("Some other words altogether, so that the merges are not the same ones: abcabc defdef.",)
ROWS = [
    {"prompt": f"What about the {word} of order {number}?", "completion": f"The {word} is ready."}
    for number, word in enumerate(WORDS * 4)
]


class Place:
    """A folder in which the command line is called, with its own home of the hub's clients."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        self.folder, self.hub = folder, hub
        (folder / "rows.jsonl").write_bytes(as_jsonl(ROWS))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE"))}
        self.environment = {
            **kept, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_TELEMETRY": "1", "PIPELINE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def call(self, *words: str, status: int = 0, **environment: str) -> str:
        """Run a command to its end and return what it said; the token is in nothing that it said or left."""
        command = [
            sys.executable,
            "-m",
            "pipeline",
            *words,
            "tracking=disabled",
            "curate.near_duplicates.enabled=false",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder,
            env={**self.environment, **environment},
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == status, said[-3000:]
        assert "Traceback" not in said
        assert TOKEN not in said
        if (self.folder / "outputs").exists():
            assert [name for name, data in files_below(self.folder / "outputs").items() if TOKEN.encode() in data] == []
        assert self.hub.problems == []
        return said

    def train(self, *words: str, **environment: str) -> str:
        return self.call(
            "train", "+experiment=sft", "model=hub", "model.id=tiny/model", "data=jsonl", "data.path=rows.jsonl",
            "model.dtype=float32", "runtime.num_threads=1", "sft.max_steps=2", "sft.lora.rank=2", *words, **environment,
        )  # fmt: skip

    def manifests(self, stage: str) -> list[dict[str, Any]]:
        found = sorted((self.folder / "outputs" / "artifacts").glob(f"{stage}-*/manifest.json"))
        return [json.loads(path.read_text()) for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with HubServer() as hub:
        hub.tokens = hub.accepted = {TOKEN}
        yield Place(tmp_path, hub)


def test_a_model_trains_is_reused_offline_and_another_commit_is_taken_only_when_named(
    place: Place, model: dict[str, bytes]
) -> None:
    hub = place.hub
    first = hub.push("models", "tiny/model", model)
    hub.repositories["models", "tiny/model"].refs["v1"] = first
    place.train()
    [sft] = place.manifests("sft")
    assert (sft["base"]["name"], sft["base"]["commit"]) == ("tiny/model", first)
    sealed = files_below(place.folder / "outputs" / "artifacts")
    assert [name for name, data in sealed.items() if str(place.folder / "home").encode() in data] == []
    [adapter] = [data for name, data in sealed.items() if name.endswith("adapter_config.json")]
    assert json.loads(adapter)["base_model_name_or_path"] == "tiny/model"
    assert {request.token for request in hub.requests if request.path.startswith(("/api/models", "/tiny"))} == {TOKEN}
    assert {request.token for request in hub.requests if request.host == "storage"} == {None}

    hub.requests.clear()
    said = place.train(HF_HUB_OFFLINE="1")
    assert (said.count(" reused "), said.count(" sealed "), hub.requests) == (5, 0, [])

    second = hub.push(
        "models", "tiny/model", {**model, "config.json": model["config.json"].replace(b"1e-05", b"1e-06")}
    )
    said = place.train()
    assert (said.count(" reused "), said.count(" sealed ")) == (5, 0)
    assert f"`main` of the hub is commit {second} by now. The local cache has commit {first}, which is used." in said

    said = place.train(f"model.revision={second}")
    assert "base weights" in said  # why it runs again
    assert [manifest["base"]["commit"] for manifest in place.manifests("sft")] == [first, second]
    said = place.train("model.revision=v1")
    assert (said.count(" reused "), said.count(" sealed ")) == (5, 0)
    assert hub.sent["model.safetensors"] == len(model["model.safetensors"])  # once in five runs


def test_another_model_of_the_hub_is_evaluated_beside_the_base(place: Place, model: dict[str, bytes]) -> None:
    other = make_tiny_model(place.folder / "other", text=OTHER_TEXT, vocab_size=300, seed=1)
    place.hub.push("models", "tiny/model", model)
    commit = place.hub.push("models", "tiny/other", other)
    place.hub.push("models", "tiny/other", {"config.json": b"{}"})  # newer, and of no use
    words = (
        "train", "+experiment=evaluate", "model=hub", "model.id=tiny/model", "data=jsonl", "data.path=rows.jsonl",
        "model.dtype=float32", "runtime.num_threads=1", f"inputs.evaluate.policy=[base,hub:tiny/other@{commit}]",
    )  # fmt: skip
    place.call(*words)
    [folder] = (place.folder / "outputs" / "runs").iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert report["policies"] == ["base", "other"]
    assert {entry["policy"] for entry in report["metrics"] if entry["metric"] == "bits_per_byte"} >= {"base", "other"}
    assert {(base["name"], base.get("commit")) for base in (one["base"] for one in place.manifests("samples"))} == {
        ("tiny/model", place.hub.repositories["models", "tiny/model"].refs["main"]), ("tiny/other", commit),
    }  # fmt: skip
    assert place.call(*words, HF_HUB_OFFLINE="1").count(" sealed ") == 0


def test_a_data_set_is_read_at_its_revision_and_its_rows_are_counted(place: Place) -> None:
    files = {"train.jsonl": as_jsonl(ROWS[:40]), "README.md": b"# Rows\n"}
    commit = place.hub.push("datasets", "tiny/rows", files)
    place.hub.push("datasets", "tiny/rows", {**files, "train.jsonl": as_jsonl(ROWS[:20])})
    words = ("train", "+experiment=curate", "data=hub", "data.path=tiny/rows", f"data.revision={commit}")
    said = place.call(*words)
    assert "tiny/rows (demonstrations): 40 read = 40 accepted" in said
    [dataset] = place.manifests("curate")
    assert f"hub:tiny/rows@{commit}" in json.dumps(dataset["config"])
    place.hub.requests.clear()
    assert place.call(*words).count(" reused ") == 1
    assert place.hub.requests == []
    assert "20 read = 20 accepted" in place.call(*words[:-1])  # control: without the revision it is the newest


def test_a_refusal_is_one_error_and_a_download_goes_on(place: Place, model: dict[str, bytes]) -> None:
    hub = place.hub
    hub.push("models", "tiny/model", model)
    hub.repositories["models", "tiny/model"].is_gated = True
    hub.accepted = set()
    words = (
        "plan", "+experiment=sft", "model=hub", "model.id=tiny/model", "data=jsonl", "data.path=rows.jsonl",
    )  # fmt: skip
    said = place.call(*words, status=8)
    assert (
        f"the model tiny/model is gated. Accept its terms at {hub.url}/tiny/model, and set HF_TOKEN to a token" in said
    )
    hub.repositories["models", "tiny/model"].is_gated = False
    hub.faults = [
        Fault("model.safetensors", num_bytes=1000, times=1, method="GET"),
        Fault("model.safetensors", method="GET"),
    ]
    assert "Files that came whole are kept: run the command again" in place.call(*words, status=8)
    hub.faults = []
    place.call(*words)
    assert hub.sent["tokenizer.json"] == len(model["tokenizer.json"])
