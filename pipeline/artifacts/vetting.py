"""What a model folder must look like before anything reads it with a library that could run what it says.

Refusing code is not left to a library's flag: configuration keys and weight formats that are known to have run code
from a folder are refused here by name, and so is everything that this pipeline would not use.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import ModelError

# Formats that are, or may contain, Python's object serialisation, which runs code while it is read.
UNSAFE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".msgpack", ".h5"}
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", INDEX)
# Private keys that transformers itself writes, and that only carry a name or a flag.
HARMLESS_PRIVATE_KEYS = frozenset(
    {"_name_or_path", "_commit_hash", "_attn_implementation_autoset", "_from_model_config"}
)
# Implementations that are part of transformers. Any other name would be fetched from the hub and run.
BUILT_IN_IMPLEMENTATIONS = frozenset(
    {"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm", "batched_mm"}
)
MAX_HEADER_BYTES = 100_000_000
_SUFFIX_ADVICE = "Name a folder that holds safetensors alone (`save_pretrained` of transformers writes one)."
_BYTES_PER_ITEM = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


def vet_folder(folder: Path) -> dict[str, Any]:
    """Refuse a folder that is unsafe to load or damaged, and return its ``config.json``.

    Raises:
        ModelError: Names the file, the key in it, and what to do.
    """
    config = vet_settings(folder)
    for path in weight_files(folder):
        vet_safetensors(path)
    return config


def vet_settings(folder: Path) -> dict[str, Any]:
    """Refuse a folder by everything but its weights, which need not be there yet, and return its ``config.json``.

    Raises:
        ModelError: Names the file, the key in it, and what to do.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder. Give a model's folder or its hub id in `model.id`.")
    _vet_files(folder)
    documents = {name: read_json(folder / name) for name in JSON_FILES if (folder / name).exists()}
    if "config.json" not in documents:
        raise ModelError(f"{folder} has no config.json, so it is not a model that transformers can load.")
    for name, document in documents.items():
        _vet_keys(folder / name, document)
    config: dict[str, Any] = documents["config.json"]
    _vet_architecture(folder / "config.json", config)
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json. Load its tokenizer once in transformers and call `save_pretrained` on it."
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold the model, in order of name.

    Raises:
        ModelError: There are none, or the index names one that is not there or does not belong to the folder.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise ModelError(f"{folder} has neither {WEIGHTS} nor {INDEX}. {_SUFFIX_ADVICE}")
    names = indexed_files(folder)
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder / INDEX}: `weight_map` names {name}, which is not in the folder. Download the model again."
            )
    return [folder / name for name in names]


def indexed_files(folder: Path) -> list[str]:
    """Return the names of the files that the index divides the weights among, in order.

    Raises:
        ModelError: It cannot be read, or names what does not belong to the folder.
    """
    index = folder / INDEX
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{index}: `weight_map` must be an object of tensor and file names. Download the model again.")
    names = sorted(set(shards.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index}: `weight_map` names the file {name!r}; only safetensors files of the same folder are read. "
                "Do not load this model unless you know who wrote it."
            )
    return names


def vet_safetensors(path: Path) -> None:
    """Refuse a safetensors file whose header does not describe exactly the bytes that follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", prefix)[0] if len(prefix := file.read(8)) == 8 else size
        if length > min(size - 8, MAX_HEADER_BYTES):
            _damaged(path, f"its header claims {length:,} bytes and the file has {size:,}")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        spans = sorted(_span(entry) for entry in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _damaged(path, f"its header cannot be read ({type(error).__name__}: {error})")
    end = 0
    for start, stop in spans:
        if start != end:
            _damaged(path, f"its tensors leave a gap or overlap at byte {start:,}")
        end = stop
    if 8 + length + end != size:
        _damaged(path, f"its header describes {8 + length + end:,} bytes and the file has {size:,}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or say which file is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}). Download the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__} and not an object. Download the model again.")
    return value


@functools.cache
def causal_architectures() -> dict[str, frozenset[str]]:
    """Return transformers' own table of causal language models, by ``model_type``.

    The table is read out of the installed source text, because importing the module that holds it imports torch.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ModelError("transformers is not installed. Run `make setup`.")
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES":
            assert isinstance(node, ast.Assign)
            assert isinstance(node.value, ast.Call)
            entries = ast.literal_eval(node.value.args[0])
            return {kind: frozenset([names] if isinstance(names, str) else names) for kind, names in entries}
    raise ModelError(f"{source} has no table of causal language models; this release of transformers is not supported.")


def _vet_files(folder: Path) -> None:
    roots = _roots(folder)
    for path in sorted(folder.iterdir()):
        if not any(path.resolve().is_relative_to(root) for root in roots):
            raise ModelError(f"{path} is a link that leads out of the folder. Replace it by the file itself.")
        # In the hub's cache other tools put all that a repository has; here only safetensors are read.
        if path.suffix.lower() in UNSAFE_SUFFIXES and not is_snapshot(folder.resolve()):
            raise ModelError(f"{path} is in a format that can run code when it is read. {_SUFFIX_ADVICE}")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder / 'adapter_config.json'}: this folder holds an adapter, and `model.id` names a base model. "
            "Merge the adapter into its base first, or remove the file."
        )


def _roots(folder: Path) -> tuple[Path, ...]:
    """Return where links may lead: within the folder, or within the hub's cache of the same model.

    Files that come through Xet lie in a store which all models and data sets of that cache share, since huggingface_hub
    2.
    """
    folder = folder.resolve()
    return (folder.parents[1], folder.parents[2] / "blobs") if is_snapshot(folder) else (folder,)


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is one commit of a model in the local cache of the hub; it is called by that commit."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def _vet_keys(path: Path, document: dict[str, Any]) -> None:
    for place, key, value in _entries(document):
        if key == "auto_map":
            raise ModelError(
                f"{path}: `{place}` asks for Python code from outside transformers, which is never run here. "
                "Choose a model that transformers knows by itself."
            )
        if (
            key.startswith("_")
            and key not in HARMLESS_PRIVATE_KEYS
            and path.name in {"config.json", "generation_config.json"}
        ):
            raise ModelError(
                f"{path}: `{place}` is a private setting of transformers that no model should bring along. "
                "Delete the key if you trust the rest of the file."
            )
        if (
            key in {"attn_implementation", "experts_implementation"}
            and value is not None
            and value not in BUILT_IN_IMPLEMENTATIONS
        ):
            raise ModelError(f"{path}: `{place}` is {value!r}, which would be fetched and run. Delete the key.")
        if key == "quantization_config" and path.name == "config.json":
            raise ModelError(
                f"{path}: `{place}`: the weights are stored quantised. Name the original model in `model.id`, and let "
                "`model.quantization=nf4` quantise it while it is loaded."
            )


def _entries(value: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every key at every depth, with its path and its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{place}{key}", str(key), inner
            yield from _entries(inner, f"{place}{key}.")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _entries(inner, f"{place}{number}.")


def _vet_architecture(path: Path, config: dict[str, Any]) -> None:
    kind, named = config.get("model_type"), config.get("architectures")
    known = causal_architectures()
    if not isinstance(kind, str) or kind not in known:
        raise ModelError(
            f"{path}: `model_type` is {kind!r}, which this release of transformers has no causal language model for. "
            "Choose a decoder-only language model."
        )
    if (
        not isinstance(named, list)
        or len(named) != 1
        or named[0] not in known[kind]
        or not named[0].endswith("ForCausalLM")
    ):
        raise ModelError(
            f"{path}: `architectures` is {named!r}; for `model_type` {kind!r} it must be one of {sorted(known[kind])}."
        )


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    start, stop = entry["data_offsets"]
    size = _BYTES_PER_ITEM[entry["dtype"]] * math.prod(entry["shape"])
    if stop - start != size or start < 0:
        raise ValueError(f"a tensor of {size:,} bytes lies at {start}:{stop}")
    return start, stop


def _damaged(path: Path, reason: str) -> NoReturn:
    raise ModelError(f"{path} is damaged or cut off: {reason}. Download or convert the model again.")
