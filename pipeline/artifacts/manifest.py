"""The manifest of an artifact: what it is, what it was made from and the digest of every file.

It is written last. A folder without one is unfinished, and one whose bytes differ from it is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from pipeline.artifacts.hashing import sha256_json

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
OWN_DIGEST = "manifest_sha256"  # of all other keys, so that a flipped bit in the manifest itself shows


class ArtifactKind(StrEnum):
    """What an artifact holds. Closed: stages are wired by it."""

    labels = "labels"
    dataset = "dataset"
    policy = "policy"
    reward_model = "reward_model"
    reference_logprobs = "reference_logprobs"
    samples = "samples"
    verdicts = "verdicts"
    report = "report"


@dataclass(frozen=True)
class FileRecord:
    """Size and digest of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Parent:
    """An artifact that was consumed, and the digests of exactly the parts that were read."""

    role: str
    kind: ArtifactKind
    id: str
    part_digests: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known about an artifact."""

    kind: ArtifactKind
    stage: str
    version: int  # of the stage's results
    fingerprint: str  # 64 hexadecimal digits; equal fingerprints mean equal inputs
    content_digest: str  # over all files but those that hold timings
    parents: list[Parent]
    config: dict[str, Any]  # the stage's own sections, and under "fingerprint_inputs" what the fingerprint was taken of
    parts: dict[str, str]
    files: dict[str, FileRecord]
    metrics: dict[str, Any] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    resolved: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    tracking: dict[str, Any] = field(default_factory=dict)
    wall_seconds: float = 0.0
    created: str = ""  # ISO 8601, UTC
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Write the manifest with its own digest."""
        values = asdict(self)
        return json.dumps({**values, OWN_DIGEST: sha256_json(values)}, indent=2, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest strictly.

        Raises:
            ValueError: It is not JSON, of another format version, altered, or a key is missing, unknown or mistyped.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        if values.get("format_version") != FORMAT_VERSION:
            found = values.get("format_version")
            raise ValueError(f"its format version is {found!r}, this program reads {FORMAT_VERSION}")
        own = values.pop(OWN_DIGEST, None)
        if own != sha256_json(values):
            raise ValueError("its own digest does not match: it was altered after it was written")
        names = {item.name for item in fields(cls)}
        if values.keys() != names:
            raise ValueError(f"keys are missing or unknown: {sorted(values.keys() ^ names)}")
        for name, types in _TYPES.items():
            if not isinstance(values[name], types) or isinstance(values[name], bool):
                raise ValueError(f"{name} is a {type(values[name]).__name__}")
        for name, read in _READERS.items():
            try:
                values[name] = read(values[name])
            except (TypeError, KeyError, AttributeError, ValueError) as error:
                raise ValueError(f"{name} is malformed: {error}") from error
        return cls(**values)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "stage": str,
    "version": int,
    "fingerprint": str,
    "content_digest": str,
    "parents": list,
    "config": dict,
    "parts": dict,
    "files": dict,
    "metrics": dict,
    "gates": list,
    "resolved": dict,
    "base": (dict, type(None)),
    "environment": dict,
    "tracking": dict,
    "wall_seconds": (int, float),
    "created": str,
}


def _parent(values: dict[str, Any]) -> Parent:
    return Parent(values["role"], ArtifactKind(values["kind"]), values["id"], dict(values["part_digests"]))


_READERS: dict[str, Callable[[Any], Any]] = {
    "kind": ArtifactKind,
    "parents": lambda parents: [_parent(parent) for parent in parents],
    "files": lambda files: {name: FileRecord(**record) for name, record in files.items()},
}
