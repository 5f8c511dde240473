"""What policies cost, what they were made from, and how they learned: read from the artifacts on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts.ancestry import TRAINED, ancestry, read_costs, read_rows
from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.comparison.alignment import Candidate
from pipeline.errors import ArtifactError

MAX_CURVE_POINTS = 120
CURVES = ("loss", "validation_loss", "score")  # by optimizer step or rollout, as far as a stage records them
TRAINING_FILE = "training.json"


@dataclass(kw_only=True)
class Expenses:
    """Numbers by candidate's key; what is not known is left out."""

    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    made_from: dict[str, dict[str, str]] = field(default_factory=dict)  # stage -> artifact id
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)  # name -> points
    stages: dict[str, str] = field(default_factory=dict)  # the stage that made the policy


def expenses_of(found: Sequence[Candidate]) -> Expenses:
    """Read what stands behind each policy; what was deleted or lies on another machine is left out."""
    opened: dict[Path, Artifact] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    told = Expenses()
    for candidate in found:
        made = _policy(candidate, opened)
        if made is None:
            _from_record(candidate, told)
            continue
        ancestors = ancestry([made], opened)
        told.stages[candidate.key] = made.manifest.stage
        told.made_from[candidate.key] = {
            ancestor.manifest.stage: ancestor.id
            for ancestor in ancestors
            if ancestor.kind not in (ArtifactKind.dataset, ArtifactKind.samples)
        }
        if made.id not in rows:
            rows[made.id] = read_rows(made)
        told.curves[candidate.key] = _curves(rows[made.id])
        told.costs[candidate.key] = _costs(candidate, made, ancestors, rows[made.id], opened)
    return told


def _from_record(candidate: Candidate, told: Expenses) -> None:
    """Take the curves that a tracking server has; the newest stage that recorded any made the policy."""
    for node, recorded in candidate.run.curves.items():
        if curves := _curves(recorded):
            told.curves[candidate.key], told.stages[candidate.key] = curves, node


def _policy(candidate: Candidate, opened: dict[Path, Artifact]) -> Artifact | None:
    return None if candidate.artifact is None else _artifact(candidate, candidate.artifact, opened)


def _artifact(candidate: Candidate, name: str, opened: dict[Path, Artifact]) -> Artifact | None:
    """Open an artifact that lies beside the runs' folder."""
    runs = next((parent for parent in (candidate.run.folder or Path()).parents if parent.name == "runs"), None)
    path = runs.parent / "artifacts" / name if runs else None
    if path is None or not path.is_dir():
        return None
    if path not in opened:
        try:
            opened[path] = Artifact.open(path, verify=False)
        except ArtifactError:
            return None
    return opened[path]


def _costs(
    candidate: Candidate,
    made: Artifact,
    ancestors: Sequence[Artifact],
    rows: Sequence[Mapping[str, Any]],
    opened: dict[Path, Artifact],
) -> dict[str, float]:
    """Return seconds of its own stage and of all training, tokens, peak memory, and how fast it writes."""
    costs = {
        "stage_seconds": made.manifest.wall_seconds,
        "training_seconds": sum(entry.manifest.wall_seconds for entry in ancestors if entry.kind in TRAINED),
    }
    if TRAINING_FILE in made.manifest.files:
        tokens = json.loads(made.file(TRAINING_FILE).read_bytes()).get("processed_tokens")
        costs |= {"tokens": tokens} if tokens else {}
    memory = [row["memory_gb"] for row in rows if row.get("memory_gb") is not None]
    costs |= {"peak_memory_gb": max(memory)} if memory else {}
    written = [
        read_costs(samples)
        for _, name in sorted(candidate.samples)
        if (samples := _artifact(candidate, name, opened)) is not None
    ]
    timed = [entry for entry in written if entry.get("tokens_per_second") and entry.get("tokens")]
    seconds = sum(entry["wall_seconds"] for entry in timed)
    if seconds:
        costs["tokens_per_second"] = sum(entry["tokens"] for entry in timed) / seconds
    return costs


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    curves = {}
    for name in CURVES:
        points = [(float(row["step"]), float(row[name])) for row in rows if isinstance(row.get(name), int | float)]
        if points:
            curves[name] = points
    return curves
