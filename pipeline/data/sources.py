"""Sources of a data set: where they lie, what their content is, and their records."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.hub import Wanted, explain, hub_errors
from pipeline.config.data import DataConfig, SourceConfig, SourceFormat
from pipeline.config.paths import find_file
from pipeline.data.readers import read_file
from pipeline.data.records import Record
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.artifacts.hashing import FileHashes

COMMIT = re.compile("[0-9a-f]{40}")


def source_path(source: SourceConfig, key: str) -> Path:
    """Find a source's file: as the working directory sees it, else as the project does.

    Raises:
        DataError: There is no such file, or it is a folder, a pipe or a device.
    """
    path = find_file(source.path)
    if not path.exists():
        tried = f"{path} was tried" if Path(source.path).is_absolute() else f"{Path.cwd()} and {path} were tried"
        raise DataError(f"{key}.path: there is no {source.path} ({tried}). Correct the path, or create the file.")
    if not path.is_file():
        raise DataError(f"E_FORMAT: {key}.path: {path} is not a plain file. Give the path of one.")
    return path


def source_names(data: DataConfig) -> list[str]:
    """Return what rows of each source say about where they are from: no path, because paths differ between machines.

    Two files of one name, say one folder per annotator, are told apart by number: else a vote in one would pass for a
    copy of a vote in the other, and the weight of one would be that of both.
    """
    names: list[str] = []
    times: Counter[str] = Counter()
    for source in data.sources:
        is_file = source.format is not SourceFormat.hub
        name = f"{data.name}/{Path(source.path).name.split('.')[0]}" if is_file else source.path
        times[name] += 1
        names.append(name if times[name] == 1 else f"{name}#{times[name]}")
    return names


def source_digests(data: DataConfig, hashes: FileHashes) -> dict[str, str]:
    """Return what each source contains, by its place in the configuration.

    Files count by the sha256 of their bytes, a labeling interface beside its export too; data sets of the hub by id,
    subset, split and revision.

    Raises:
        DataError: A file is missing.
    """
    digests: dict[str, str] = {}
    for index, source in enumerate(data.sources):
        key = f"data.sources[{index}]"
        if source.format is SourceFormat.hub:
            local = Path(source.path).expanduser()
            if local.is_dir():
                files = sorted(path for path in local.rglob("*") if path.is_file())
                found = {path.relative_to(local).as_posix(): hashes.sha256(path) for path in files}
                digests[key] = f"folder:{json.dumps(found, sort_keys=True)}"
            else:
                digests[key] = f"hub:{source.path}@{source.revision or 'main'}"
            digests[key] += f":{source.subset or ''}:{source.hub_split}"
        else:
            digests[key] = hashes.sha256(source_path(source, key))
        if source.labeling_config is not None:  # it decides which side of a pair a vote is for
            digests[f"{key}.labeling_config"] = hashes.sha256(_interface_path(source.labeling_config, key))
    return digests


def _interface_path(path: str, key: str) -> Path:
    found = find_file(path)
    if not found.is_file():
        raise DataError(f"{key}.labeling_config: there is no file {found}. Export it from the project's settings.")
    return found


def read_source(source: SourceConfig, key: str) -> Iterator[Record]:
    """Read the records of a source in order."""
    if source.format is SourceFormat.hub:
        return _read_hub(source, key)
    return read_file(source_path(source, key), source.format)


def _refuse_links_out(folder: Path, key: str) -> None:
    """Refuse a folder laid out like a data set whose links would read other files of this machine as its rows.

    In the hub's own cache each file is a link into the folder ``blobs`` beside ``snapshots``, or on into the one that
    all data sets of that cache share.
    """
    if not folder.is_dir():
        return
    whole = folder.resolve()
    allowed = [whole]
    if whole.parent.name == "snapshots":
        allowed += [whole.parents[1] / "blobs", whole.parents[2] / "blobs"]
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in allowed):
            raise DataError(
                f"E_FORMAT: {key}: {path} is a link to a file outside of the data set. "
                f"Copy the file there, or give its path as a source of its own."
            )


def _read_hub(source: SourceConfig, key: str) -> Iterator[Record]:
    """Read a data set of the hub, or a folder laid out like one, through `datasets`."""
    folder = Path(source.path).expanduser()
    is_local = folder.is_dir()
    if not is_local and (source.path.startswith((".", "/", "~")) or source.path.count("/") > 1):
        raise DataError(f"{key}.path names the folder {source.path}, which does not exist. Correct it.")
    _refuse_links_out(folder, key)
    import datasets

    wanted = Wanted(
        kind="data set",
        id=source.path,
        revision=source.revision,
        id_place=f"`{key}.path`",
        revision_place=f"`{key}.revision`",
    )
    try:
        commit = None if source.revision is None or is_local else _commit(source.path, source.revision)
        place = str(folder) if is_local else source.path
        builder = datasets.load_dataset_builder(place, name=source.subset, revision=commit)
        # Where the hub does not answer, `datasets` takes what it last cached of the data set, whatever was asked for.
        if commit not in (None, builder.hash):
            raise DataError(
                f"{key}: the hub cannot be asked for {wanted}, and the cache of `datasets` holds revision "
                f"{builder.hash}. Run the command where the hub can be reached, or set `{key}.revision` to that."
            )
        builder.download_and_prepare()
        rows = builder.as_dataset(split=source.hub_split)
    except (datasets.exceptions.DatasetsError, ValueError, *hub_errors()) as error:
        raise DataError(f"{key}: {_reason(error, source, wanted)}") from error
    for number, row in enumerate(rows, start=1):
        fields: dict[str, Any] = dict(row)
        raw = json.dumps(fields, ensure_ascii=True, default=str).encode()
        yield Record(line=number, offset=None, raw=raw, fields=fields)


def _commit(name: str, revision: str) -> str:
    """Return the commit that a revision names: the hub is asked as `datasets` asks it, which the cache remembers."""
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        card = hf_hub_download(name, "README.md", repo_type="dataset", revision=revision)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    return Path(card).parent.name


def _reason(error: Exception, source: SourceConfig, wanted: Wanted) -> str:
    """Say why a data set was not to be had: a refusal of the hub, or what `datasets` finds wrong with its files."""
    import datasets

    is_about_files = isinstance(error, datasets.exceptions.DatasetsError) or "Dataset scripts" in str(error)
    if isinstance(error, datasets.exceptions.DatasetNotFoundError) or (
        isinstance(error, hub_errors()) and not is_about_files
    ):
        return explain(error, wanted)
    told = " ".join(f"{error} {error.__cause__ or ''}".split()).rstrip(".")
    return (
        f"{wanted} cannot be loaded (subset {source.subset}, split {source.hub_split}): {told}. "
        "Check `subset` and `hub_split`; only data files are read (JSON, CSV, Parquet, text), and no script is run."
    )
