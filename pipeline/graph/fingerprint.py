"""What a node's result depends on, as one flat table, and the digest of it.

Keys of the table are written for people: a changed one is what the user is told when a stage runs again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.adapter_folder import adapter_identity, vet_adapter
from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import declared_stop_ids
from pipeline.artifacts.hashing import FileHashes, sha256_json, sha256_text
from pipeline.checks.rewards import files_read
from pipeline.config.data import CurateConfig, DataConfig, TableName
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.paths import find_file
from pipeline.config.plugins import is_from_plugin
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig, ModelSource
from pipeline.data.filters import registry as filters
from pipeline.data.sources import source_digests, source_names
from pipeline.errors import ArtifactError, ConfigError
from pipeline.graph.nodes import Node
from pipeline.graph.rewards import plugins_reward, reward_files
from pipeline.graph.spec import StageSpec
from pipeline.labels.importers.registry import importers

if TYPE_CHECKING:
    from pipeline.artifacts.base_model import BaseModel

# Fields of `model` that say where the base lies or that its digests cover; moving a folder retrains nothing.
LOCATION_FIELDS = frozenset({"source", "id", "revision", "chat_template"})

Inputs = Mapping[str, Sequence[Artifact]]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a fingerprint is taken of, beside the node and its inputs."""

    config: Config
    hashes: FileHashes
    base: BaseModel | None  # resolved for nodes that use it
    plugins: Mapping[str, str]  # file -> sha256


def result_config(value: Any) -> Any:
    """Return a configuration section as JSON, without the fields that the schema marks as not affecting results."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = (item for item in fields(value) if item.metadata.get("affects_results", True))
        return {item.name: result_config(getattr(value, item.name)) for item in kept}
    if isinstance(value, Mapping):
        return {str(key): result_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [result_config(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return value.as_posix()
    return value


def section_of(config: Config, kind: type) -> tuple[str, Any]:
    """Return the key and the value of the section of a type.

    Raises:
        KeyError: The configuration has no section of that type, so a stage's specification is wrong.
    """
    for item in fields(config):
        section = getattr(config, item.name)
        if type(section) is kind:
            return item.name, section
    raise KeyError(f"the configuration has no section {kind.__name__}")


def part_digests(artifact: Artifact, globs: Sequence[str]) -> dict[str, str]:
    """Return the digests of the parts of an artifact that match one of the globs."""
    parts = artifact.manifest.parts.items()
    return {name: digest for name, digest in sorted(parts) if any(fnmatchcase(name, glob) for glob in globs)}


def parts_read(node: Node, role: str, artifact: Artifact) -> dict[str, str]:
    """Return the digests of the parts of an input that a node reads."""
    return part_digests(artifact, node.preferred.get(role, ())) or part_digests(artifact, node.reads[role])


def fingerprint_inputs(node: Node, inputs: Inputs, around: Surroundings) -> dict[str, Any]:
    """Return everything that the node's result depends on, by a readable key."""
    spec = node.spec
    table: dict[str, Any] = {"stage": spec.name, "version": spec.version}
    for kind in spec.sections:
        key, section = section_of(around.config, kind)
        if isinstance(section, DataConfig):
            table.update(_sources_read(section, spec.reads_tables, around.hashes))
        else:
            _flatten(table, key, result_config(section))
    for key, value in node.identity.items():
        _flatten(table, key, result_config(value))
    for what, path in node.files.items():
        table[f"{what}: content"] = around.hashes.sha256(find_file(path))
    for role, sources in node.inputs.items():
        if not sources:
            table[f"input {role}"] = None
        for source, artifact in zip(sources, inputs[role], strict=True):
            label = role if len(sources) == 1 else f"{role} {source.label}"
            digests = parts_read(node, role, artifact)
            if not digests:  # else its content would be no part of the fingerprint
                wanted = ", ".join(node.reads[role])
                raise ArtifactError(f"{node.name}: {artifact.id} ({artifact.kind}) has no part that matches {wanted}.")
            table.update({f"input {label}: {part}": digest for part, digest in digests.items()})
    if spec.uses_base:
        if around.base is None:
            raise ValueError(f"the node {node.name!r} uses the base model, which was not resolved")
        table.update(_base_identity(around.base, node.model or around.config.model))
        if node.adapter is not None:
            adapter = vet_adapter(node.adapter, around.base.name)
            table.update(adapter_identity(node.adapter, adapter, around.hashes))
    table.update(_named_code(node, around))
    table.update({f"library {name}": _minor_version(name) for name in spec.libraries})
    return table


def fingerprint(table: Mapping[str, Any]) -> str:
    """Return the digest of a table of inputs."""
    return sha256_json(dict(table))


def _flatten(table: dict[str, Any], prefix: str, value: Any) -> None:
    """Spread nested values over dotted keys; a list of plain values stays one value."""
    nested = isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
    items = enumerate(value) if nested else value.items() if isinstance(value, dict) else None
    if not items or not value:
        table[prefix] = value
        return
    for key, item in items:
        _flatten(table, f"{prefix}.{key}", item)


def _base_identity(base: BaseModel, model: ModelConfig) -> dict[str, Any]:
    configured = {f"model.{k}": v for k, v in result_config(model).items() if k not in LOCATION_FIELDS}
    # The embedded model's files are made here and declare nothing of their own.
    if model.source is not ModelSource.embedded and (stop_ids := declared_stop_ids(base.folder)):
        configured["base stop ids"] = stop_ids
    return {
        **configured,
        "base weights": base.digest,
        "base tokenizer": base.tokenizer_digest,
        "base context length": base.context_length,
        "chat template": sha256_text(_chat_template(base, model)),
    }


def _chat_template(base: BaseModel, model: ModelConfig) -> str:
    if model.chat_template is None:
        return base.chat_template
    path = find_file(model.chat_template)
    if not path.is_file():
        raise ConfigError(f"model.chat_template: there is no file {model.chat_template}. Correct the path.")
    return path.read_text(encoding="utf-8")


def _sources_read(data: DataConfig, tables: Collection[TableName], hashes: FileHashes) -> dict[str, Any]:
    """Flatten `data` as far as a stage reads it: sources of other tables are no part of its result.

    What the files contain stands in place of where they lie, so that an edited row is seen and a move is not.
    """
    read = replace(data, sources=[source for source in data.sources if source.table in tables])
    flat: dict[str, Any] = {}
    _flatten(flat, "data", result_config(read))
    names = [name for name, source in zip(source_names(data), data.sources, strict=True) if source.table in tables]
    for index, name in enumerate(names):
        del flat[f"data.sources.{index}.path"]
        if read.sources[index].labeling_config is not None:
            del flat[f"data.sources.{index}.labeling_config"]
        flat[f"data.sources.{index}.name"] = name
    return {**flat, **{f"{key} content": digest for key, digest in source_digests(read, hashes).items()}}


def _named_code(node: Node, around: Surroundings) -> dict[str, Any]:
    """Digest the plugins, and the files that checks and filters go by."""
    found: dict[str, Any] = {}
    rewards = node.spec.runs_rewards
    if _uses_plugins(node.spec, around.config) or (rewards and plugins_reward(around.config, node.stage)):
        found |= {f"plugin {name}": digest for name, digest in around.plugins.items()}
    if node.spec.runs_checks:
        found |= _check_files(node.params["suites"], around.hashes)
    if node.spec.runs_filters:
        found |= _filter_files(around.config.curate, around.hashes)
    if rewards:
        files = reward_files(around.config, node.stage)
        found |= {key: around.hashes.sha256(path) for key, path in files.items()}
    return found


def _check_files(suites: Mapping[str, SuiteConfig], hashes: FileHashes) -> dict[str, str]:
    """Digest the files that checks and rewards judge by, such as a sheet of facts."""
    return {
        f"check {suite.name} {entry.name}: {path.name}": hashes.sha256(path)
        for suite in suites.values()
        for entry in [*suite.checks, *suite.rewards]
        for path in files_read(entry.name, entry.params, where=f"suite {suite.name}")
    }


def _uses_plugins(spec: StageSpec, config: Config) -> bool:
    """Whether what plugins define can move a stage's result."""
    own_filters = (filters.is_from_plugin(entry.name) for entry in config.curate.filters)
    own_importers = (is_from_plugin(importer.open) for importer in importers().values())
    return spec.runs_checks or (spec.runs_filters and any(own_filters)) or (spec.runs_importers and any(own_importers))


def _filter_files(curate: CurateConfig, hashes: FileHashes) -> dict[str, str]:
    """Digest the files that filters go by, such as a list of words."""
    return {
        f"filter {entry.name}: {path.name}": hashes.sha256(path)
        for entry in curate.filters
        for path in filters.files_read(entry.name, entry.params)
    }


def _minor_version(library: str) -> str | None:
    """Return the X.Y of a library's version, or None where it is not installed."""
    try:
        version = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
    return ".".join(version.split("+")[0].split(".")[:2])
