"""Models of the hub, with the real client against a server on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, HubServer
from huggingface_hub.utils import close_session
from huggingface_hub.utils._xet import abort_xet_session
from safetensors.numpy import load, save
from served_hub import serve_hub, share_blob
from tiny import make_tiny_model

from pipeline.artifacts.base_model import BaseModel, resolve_base
from pipeline.config.shared import ModelConfig, ModelSource
from pipeline.errors import ModelError, PipelineError

Files = dict[str, bytes]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def resolve(tmp_path: Path, said: list[str]) -> Callable[..., BaseModel]:
    def resolve(name: str = "tiny/model", revision: str | None = None) -> BaseModel:
        said.clear()
        model = ModelConfig(source=ModelSource.hub, id=name, revision=revision)
        return resolve_base(model, tmp_path / "cache", said.append)

    return resolve


def with_config(files: Files, **changes: Any) -> Files:
    return {**files, "config.json": json.dumps({**json.loads(files["config.json"]), **changes}).encode()}


def in_shards(files: Files) -> Files:
    tensors = load(files[WEIGHTS])
    names = sorted(tensors)
    shards = {f"model-0000{1 + part}-of-00002.safetensors": names[part::2] for part in range(2)}
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    rest = {name: content for name, content in files.items() if name != WEIGHTS}
    weights = {shard: save({name: tensors[name] for name in held}, {"format": "pt"}) for shard, held in shards.items()}
    return {**rest, **weights, "model.safetensors.index.json": json.dumps(index).encode()}


def test_a_model_is_downloaded_once_and_named_by_its_commit(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.push("models", "tiny/model", {**files, "pytorch_model.bin": b"\x80", "onnx/model.safetensors": b"x",
                                               "consolidated.safetensors": b"y", "README.md": b"z"})  # fmt: skip
    base = resolve()
    assert (base.name, base.commit, base.folder.name) == ("tiny/model", commit, commit)
    assert said == ["Downloading tiny/model from the Hugging Face hub"]
    fetched = {name: size for name, size in hub.sent.items() if name}
    assert fetched == {name: len(content) for name, content in files.items()}  # each once, and nothing else
    hub.requests.clear()
    assert resolve() == base
    assert [request.path for request in hub.requests] == ["/api/models/tiny/model"]
    assert said == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve() == base
    assert len(hub.requests) == 1


def test_only_the_shards_that_the_index_names_are_downloaded(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel]
) -> None:
    sharded = in_shards(files)
    hub.push("models", "tiny/model", {**sharded, "model.fp16.safetensors": b"x"})
    resolve()
    assert {name for name in hub.sent if name} == sharded.keys()


@pytest.mark.slow
def test_a_moved_branch_is_told_and_taken_only_when_asked(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], said: list[str]
) -> None:
    first = hub.push("models", "tiny/model", files)
    hub.repositories["models", "tiny/model"].refs["v1"] = first
    before = resolve()
    second = hub.push("models", "tiny/model", with_config(files, rms_norm_eps=1e-6))
    assert resolve() == before
    assert said == [
        f"tiny/model: `main` of the hub is commit {second} by now. The local cache has commit {first}, which is used. "
        "Name either as the revision to take the newer one, or to keep this one."
    ]
    after = resolve(revision=second)
    assert (after.commit, after.digest == before.digest) == (second, False)
    for revision in ("v1", first):
        same = resolve(revision=revision)
        assert (same.commit, same.digest) == (first, before.digest)
    assert hub.sent[WEIGHTS] == len(files[WEIGHTS])  # the same content under another commit is not sent again
    hub.requests.clear()
    assert (resolve(revision=first).commit, said, hub.requests) == (first, [], [])  # a commit cannot move


REFUSED: dict[str, tuple[Callable[[Files], Files], str]] = {
    "pickled weights alone": (
        lambda files: {"pytorch_model.bin": b"\x80", **{name: files[name] for name in files if name != WEIGHTS}},
        r"^the model tiny/model has only pytorch_model\.bin, which can run code .*no weights were downloaded.*Choose",
    ),
    "no weights": (lambda files: {"config.json": files["config.json"]}, r"has no model\.safetensors.*Choose"),
    "code": (
        lambda files: with_config(files, auto_map={"AutoModelForCausalLM": "evil.Evil"}) | {"evil.py": b"1 / 0"},
        r"`auto_map` asks for Python code.*never run here\. Choose",
    ),
    "an adapter": (
        lambda files: {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"},
        r"is an adapter and no whole model\. Download it \(`hf download tiny/model --local-dir FOLDER`\)",
    ),
    "no fast tokenizer": (
        lambda files: {name: files[name] for name in files if name != "tokenizer.json"},
        r"has no tokenizer\.json\. Load its tokenizer once",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused_is_refused_before_its_weights_are_downloaded(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], name: str
) -> None:
    spoil, message = REFUSED[name]
    hub.push("models", "tiny/model", spoil(files))
    with pytest.raises(ModelError, match=message):
        resolve()
    assert not [path for path in hub.sent if path.endswith((".safetensors", ".bin", ".py"))]


def gate(hub: HubServer) -> None:
    hub.repositories["models", "tiny/model"].is_gated = True
    hub.tokens |= {"hf_stranger", "hf_friend"}
    hub.accepted |= {"hf_friend"}


GATED = r"^the model tiny/model is gated\. Accept its terms at http://127.*/tiny/model, and set HF_TOKEN to a token"


@pytest.mark.parametrize(
    ("token", "message"),
    [(None, GATED), ("hf_stranger", GATED), ("hf_expired", r"refuses the token .*Replace it"), ("hf_friend", None)],
)
def test_a_gated_model_needs_a_token_whose_account_accepted_its_terms(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch,
    token: str | None, message: str | None,
) -> None:  # fmt: skip
    commit = hub.push("models", "tiny/model", files)
    gate(hub)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    if message is None:
        assert resolve().commit == commit
        assert {request.token for request in hub.requests if request.host == "storage"} == {None}
    else:
        with pytest.raises(ModelError, match=message):
            resolve()
        assert WEIGHTS not in hub.sent


def test_what_the_hub_does_not_know_is_said(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("models", "tiny/model", files)
    hub.push("models", "tiny/secret", files)
    hub.repositories["models", "tiny/secret"].is_private = True
    with pytest.raises(ModelError, match=r"^the model tiny/model has no revision v9\. Correct `model\.revision`"):
        resolve(revision="v9")
    for token in (None, "hf_stranger"):  # the hub answers strangers with 401 and others with 404
        if token is not None:
            gate(hub)
            monkeypatch.setenv("HF_TOKEN", token)
        for name in ("tiny/nothing", "tiny/secret"):
            with pytest.raises(ModelError, match=rf"^the hub knows no model {name}, or it is private\. Correct"):
                resolve(name)
    monkeypatch.setenv("HF_TOKEN", "hf_friend")
    assert resolve("tiny/secret").name == "tiny/secret"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("/api/", status=500), r"^the hub answers with 500 for the model tiny/model\. Run the command again"),
        (Fault("/api/", status=429), r"^the hub asks to be left alone for a while \(429\)"),
        (Fault("/api/"), r"could not be read from http://127.*\(RemoteProtocolError: .*run the command again"),
        (Fault("/resolve/", status=503), r"could not be read from|answers with 503"),
    ],
)
def test_a_hub_in_trouble_is_one_error_and_the_next_run_goes_on(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], said: list[str], fault: Fault, message: str
) -> None:
    hub.push("models", "tiny/model", files)
    hub.faults = [fault]
    with pytest.raises(ModelError, match=message) as caught:
        resolve()
    assert "\n" not in str(caught.value)
    hub.faults = []
    base = resolve()
    hub.faults = [fault]
    assert resolve() == base  # what is in the cache needs no hub
    assert said == []


def test_a_hub_that_is_not_there_and_one_that_must_not_be_asked(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("models", "tiny/model", files)
    hub.faults = [Fault(WEIGHTS, method="HEAD")]
    with pytest.raises(ModelError):
        resolve()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("tiny/model", "tiny/nothing"):  # the weights of the first are missing, all of the second is
        with pytest.raises(ModelError, match=rf"^the model {name} is not, or not wholly, .*`hf download {name}`"):
            resolve(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.stop()
    for reason in ("Server disconnected", "Connection refused"):  # the connection that was open, and a new one
        with pytest.raises(ModelError, match=rf"could not be read from http://127.*{reason}"):
            resolve("tiny/nothing")
        close_session()


def test_a_download_that_breaks_off_goes_on_and_what_came_whole_is_not_sent_twice(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)  # bytes; 10 million are too coarse here
    sharded = in_shards(files)
    hub.push("models", "tiny/model", sharded)
    first, second = sorted(name for name in sharded if name.startswith("model-"))
    hub.faults = [Fault(first, num_bytes=1000, times=1, method="GET")]
    hub.faults += [Fault(second, num_bytes=1000, times=1, method="GET"), Fault(second, method="GET")]
    with pytest.raises(ModelError, match=r"Files that came whole are kept: run the command again"):
        resolve()
    # Within a run the client goes on behind the last chunk that it has.
    assert hub.sent[first] == len(sharded[first])
    assert {request.first_byte for request in hub.requests} == {0, 1000}
    hub.faults = []
    resolve()
    # What a later run finds is whole files: the client begins the one that was cut off anew.
    assert {name: hub.sent[name] for name in sharded} == {
        name: len(content) + (1000 if name == second else 0) for name, content in sharded.items()
    }
    assert not list(Path(resolve().folder.parents[1]).rglob("*.incomplete"))


def test_a_file_of_xet_lies_in_the_store_that_all_models_share(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("models", "tiny/model", files)
    before = resolve()
    share_blob(before.folder / WEIGHTS)
    cache = before.folder.parents[2]
    assert (before.folder / WEIGHTS).resolve().is_relative_to(cache / "blobs")  # and no more among the model's own
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve() == before
    (cache / "elsewhere").write_bytes(files["config.json"])
    (before.folder / "config.json").unlink()
    (before.folder / "config.json").symlink_to(cache / "elsewhere")
    with pytest.raises(ModelError, match=r"config\.json is a link that leads out"):
        resolve()


def test_what_other_tools_put_into_the_cache_is_no_obstacle(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    commit = hub.push("models", "tiny/model", {**files, "training_args.bin": b"\x80", "pytorch_model.bin": b"\x80"})
    snapshot_download("tiny/model")  # as `hf download tiny/model` does
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve().commit == commit


def test_a_full_disk_is_no_fault_of_the_hub(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("models", "tiny/model", files)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(PipelineError, match=r"Cannot write .*Make room"):
        resolve()


@pytest.mark.slow
def test_a_storage_of_xet_that_is_out_of_order(
    hub: HubServer, files: Files, resolve: Callable[..., BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    hub.push("models", "tiny/model", files)
    hub.xet_address = "http://127.0.0.1:9"
    with pytest.raises(ModelError, match=r"could not be read .*\(RuntimeError: .*HF_HUB_DISABLE_XET=1 downloads"):
        resolve()
    abort_xet_session()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    assert resolve().name == "tiny/model"
