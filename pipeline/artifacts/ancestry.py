"""What an artifact was made from, and what making it took."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.artifacts.artifact import COSTS_FILE, METRICS_FILE, Artifact
from pipeline.artifacts.manifest import ArtifactKind

TRAINED = frozenset({ArtifactKind.policy, ArtifactKind.reward_model, ArtifactKind.reference_logprobs})


def ancestry(artifacts: Iterable[Artifact], opened: dict[Path, Artifact] | None = None) -> list[Artifact]:
    """Return the artifacts and all they were made from, parents first, as far as they lie beside each other.

    An ancestor that was deleted or lies elsewhere is known by the id that its child's manifest holds.

    Args:
        artifacts: Whose ancestors are wanted.
        opened: Artifacts by folder, remembered from call to call where many have ancestors in common.
    """
    found: dict[str, Artifact] = {}
    known = {} if opened is None else opened

    def visit(artifact: Artifact) -> None:
        if artifact.id in found:
            return
        for parent in sorted(artifact.manifest.parents, key=lambda parent: (parent.role, parent.id)):
            folder = artifact.path.parent / parent.id
            if parent.id not in found and (folder in known or folder.is_dir()):
                if folder not in known:
                    known[folder] = Artifact.open(folder, expect=parent.kind, verify=False)
                visit(known[folder])
        found[artifact.id] = artifact

    for artifact in artifacts:
        visit(artifact)
    return list(found.values())


def read_costs(artifact: Artifact) -> dict[str, Any]:
    """Return what an artifact's stage recorded of its costs, with the wall time where it recorded nothing more."""
    values: dict[str, Any] = {"wall_seconds": artifact.manifest.wall_seconds}
    if COSTS_FILE in artifact.manifest.files:
        values |= json.loads(artifact.file(COSTS_FILE).read_text(encoding="utf-8"))
    return values


def read_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """Return the rows of metrics that a training stage recorded; none where it trained nothing."""
    trained = artifact.kind in (ArtifactKind.policy, ArtifactKind.reward_model)
    if not trained or METRICS_FILE not in artifact.manifest.files:
        return []
    lines = [line for line in artifact.file(METRICS_FILE).read_bytes().splitlines() if line.strip()]
    rows: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")  # at once takes half the time
    return rows
