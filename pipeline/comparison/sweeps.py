"""A sweep as its folder records it: which trials there were, what they chose, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.comparison.records import FINISHED, RunRecord, read_json, read_run
from pipeline.errors import ArtifactError

SWEEP_FILE = "sweep.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a sweep is after."""

    name: str  # <suite>/<metric>/<policy> of a report, or <stage>/<metric> of a training record
    maximize: bool


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is known of a sweep as a whole."""

    name: str
    status: str
    method: str  # grid, random, tpe
    objectives: list[Objective]


def read_sweep(folder: Path) -> tuple[Sweep, list[RunRecord]]:
    """Return a sweep and its trials in their order, also those that failed, were pruned or have not begun.

    Raises:
        ArtifactError: Its `sweep.json` is unusable.
    """
    path = folder / SWEEP_FILE
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(f"{path} has the format version {version!r}, and this program reads {FORMAT_VERSION}.")
    objectives = [
        Objective(name=entry["name"], maximize=entry["direction"] == "maximize") for entry in content["objectives"]
    ]
    sweep = Sweep(
        name=folder.name, status=content["status"], method=content["method"], objectives=objectives
    )  # fmt: skip
    return sweep, [_trial(folder, sweep, entry) for entry in content["trials"]]


def _trial(folder: Path, sweep: Sweep, entry: dict[str, Any]) -> RunRecord:
    """Return the record of a trial: what its folder holds, and what the sweep knows of it beside."""
    own = folder.parent / entry["folder"] if entry.get("folder") else None
    if own is not None and own.is_dir():
        record = read_run(own)
    else:
        name = f"trial {entry['number']}"
        record = RunRecord(name=name, place=str(own or folder), status=entry["status"], reason="it has no run folder")
    if entry["status"] != FINISHED:
        said = entry.get("reason") or record.reason or _exit_words(entry.get("exit_status"))
        record.status, record.reason = entry["status"], str(said)
    record.sweep, record.trial, record.parameters = sweep.name, entry["number"], dict(entry["params"])
    values = entry.get("objectives") or []
    record.objectives = {
        objective.name: float(value)
        for objective, value in zip(sweep.objectives, values, strict=False)
        if value is not None
    }
    record.intermediate = [(float(step), float(value)) for step, value in entry.get("intermediate") or []]
    record.seconds = entry.get("seconds")
    return record


def _exit_words(status: int | None) -> str:
    return "" if status is None else f"exit status {status}"
