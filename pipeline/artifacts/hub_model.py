"""A model of the Hugging Face hub: its small files are vetted before its weights, and nothing else, are downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from pipeline.artifacts.adapter_folder import ADAPTER_CONFIG
from pipeline.artifacts.durable import storage_error
from pipeline.artifacts.hub import Wanted, explain, hub_errors
from pipeline.artifacts.vetting import INDEX, UNSAFE_SUFFIXES, WEIGHTS, indexed_files, vet_settings, weight_files
from pipeline.config.shared import ModelConfig
from pipeline.errors import ModelError

SMALL_FILES = (
    INDEX,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
ASK_SECONDS = 5.0  # that a run may lose by asking whether a cached model has a newer commit


def fetch_model(model: ModelConfig, notice: Callable[[str], None]) -> Path:
    """Return the folder of a model in the local cache of the hub, whose name is the commit; download what is missing.

    What the cache holds is used as it is: a run must not change because somebody pushed. That a branch or a tag names
    another commit by now is told.

    Raises:
        ModelError: The hub does not have it, or refuses, or cannot be reached; or its files are none that are read.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted = Wanted(
        kind="model",
        id=model.id,
        revision=model.revision,
        id_place="`model.id`, or `hub:ID` in the list of policies",
        revision_place="`model.revision`, or `hub:ID@REVISION` in the list of policies",
    )
    try:
        folder = _snapshot(model.id, model.revision, SMALL_FILES, local=True)
        if _is_complete(folder):
            _tell_of_newer(model, folder.name, notice)
            return folder
    except LocalEntryNotFoundError:  # not in the cache, so it is asked of the hub
        pass
    except HFValidationError as error:
        raise ModelError(f"model.id is {model.id!r}, which is neither a folder nor a hub id: {error}") from error
    notice(f"Downloading {model.id} from the Hugging Face hub")
    try:
        folder = _snapshot(model.id, model.revision, SMALL_FILES)
        about = HfApi().model_info(model.id, revision=folder.name)
        names = _weight_names(model.id, folder, {sibling.rfilename for sibling in about.siblings or ()})
        vet_settings(folder)
        return _snapshot(model.id, folder.name, names)
    except hub_errors() as error:
        full = storage_error(error, Path(constants.HF_HUB_CACHE)) if isinstance(error, OSError) else None
        raise full or ModelError(explain(error, wanted)) from error


def _snapshot(name: str, revision: str | None, files: Collection[str], *, local: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=local))


def _is_complete(folder: Path) -> bool:
    """Whether an earlier download, perhaps of another tool, brought what is read here."""
    try:
        weight_files(folder)
    except ModelError:
        return False
    return (folder / "config.json").exists() and (folder / "tokenizer.json").exists()


def _tell_of_newer(model: ModelConfig, commit: str, notice: Callable[[str], None]) -> None:
    """Say so where the hub has moved on; a hub that does not answer is no reason to stop."""
    from huggingface_hub import HfApi

    if model.revision == commit:
        return
    try:
        newest = HfApi().model_info(model.id, revision=model.revision, timeout=ASK_SECONDS).sha
    except hub_errors():
        return
    if newest != commit:
        notice(
            f"{model.id}: `{model.revision or 'main'}` of the hub is commit {newest} by now. The local cache has "
            f"commit {commit}, which is used. Name either as the revision to take the newer one, or to keep this one."
        )


def _weight_names(name: str, folder: Path, offered: Collection[str]) -> list[str]:
    """Return which files of the repository are its weights: many hold them several times, in several formats.

    Raises:
        ModelError: There are none that are read here.
    """
    if WEIGHTS in offered:
        return [WEIGHTS]
    if INDEX in offered:
        return indexed_files(folder)
    if ADAPTER_CONFIG in offered:
        raise ModelError(
            f"the model {name} is an adapter and no whole model. Download it (`hf download {name} --local-dir FOLDER`)"
            ", choose its base with `model.id`, and name the folder in `inputs.evaluate.policy`."
        )
    pickled = sorted(file for file in offered if Path(file).suffix.lower() in UNSAFE_SUFFIXES)
    only = f"only {', '.join(pickled[:3])}, which can run code when it is read" if pickled else f"no {WEIGHTS}"
    raise ModelError(
        f"the model {name} has {only}; no weights were downloaded. Choose a repository or a `model.revision` with "
        "safetensors, or a local folder that `save_pretrained` of transformers wrote."
    )
