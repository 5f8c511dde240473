"""The folder of one invocation: its configuration, its log, links to its artifacts, and the report by name."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.artifact import METRICS_FILE, Artifact
from pipeline.artifacts.checkpoints import unused_name
from pipeline.artifacts.durable import storage_errors, write_durably
from pipeline.artifacts.manifest import ArtifactKind

ARTIFACT_LIST = "artifacts.json"
WORK_LIST = "work.json"  # node -> its work folder, for whoever watches a run that is not over
OBJECTIVE = "objective.json"
DATA_PAGE = "data.html"
COPIES = {  # kind -> file of the artifact -> its name in the run folder
    ArtifactKind.report: {name: name for name in ("report.json", "items.json", "report.html")},
    ArtifactKind.dataset: {"report.html": DATA_PAGE},
}


class RunFolder:
    """``outputs/runs/<time>_<experiment>_<job>/``."""

    def __init__(self, path: Path) -> None:
        """Take an existing folder."""
        self.path = path

    @classmethod
    def create(cls, outputs: Path, name: str, job: str) -> RunFolder:
        """Make a new folder; two that start in the same second get different names."""
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
        safe = re.sub(r"[^A-Za-z0-9.-]", "-", name).strip(".-") or "run"
        wanted = outputs / "runs" / f"{stamp}_{safe}_{job}"
        with storage_errors(wanted):
            while True:
                path = unused_name(wanted)
                try:
                    path.mkdir(parents=True)
                except FileExistsError:  # another process took the name in between
                    continue
                return cls(path)

    @classmethod
    def named(cls, outputs: Path, name: str) -> RunFolder:
        """Take the folder of a trial, which an earlier attempt may have begun."""
        path = outputs / "runs" / name
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            (path / OBJECTIVE).unlink(missing_ok=True)
        return cls(path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration; the caller has taken secrets out."""
        write_durably(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def link(self, name: str, artifact: Artifact) -> None:
        """Point to an artifact under a node's name: in a list, and as a relative link where links are possible."""
        listed = {**linked_ids(self.path), name: artifact.id}
        write_durably(self.path / ARTIFACT_LIST, json.dumps(listed, indent=1))
        link = self.path / "artifacts" / name
        link.parent.mkdir(exist_ok=True)
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(artifact.path.resolve(), link.parent.resolve()), target_is_directory=True)
        except OSError:  # a file system without links; the list above says the same
            return

    def point_to_work(self, name: str, work: Path) -> None:
        """Say where a node that runs now keeps its record."""
        listed = {**_listed(self.path / WORK_LIST), name: os.path.relpath(work.absolute(), self.path.absolute())}
        write_durably(self.path / WORK_LIST, json.dumps(listed, indent=1))

    def write_objective(self, values: list[dict[str, Any]]) -> None:
        """Write what the run is judged by."""
        write_durably(self.path / OBJECTIVE, json.dumps(values, indent=1))

    def copy_pages(self, artifact: Artifact) -> None:
        """Put what people read of an artifact beside the configuration; most kinds have nothing of the sort."""
        for name, copy in COPIES.get(artifact.kind, {}).items():
            if name in artifact.manifest.files:
                with storage_errors(self.path / copy):
                    shutil.copyfile(artifact.file(name), self.path / copy)


def linked_ids(run_folder: Path) -> dict[str, str]:
    """Return the artifact ids that a run folder points to, by node name."""
    return _listed(run_folder / ARTIFACT_LIST)


def record_of(run_folder: Path, node: str) -> Path | None:
    """Return where the rows of metrics of a node are, or will be, while it runs and afterwards; None before."""
    artifact = linked_ids(run_folder).get(node)
    if artifact is not None:
        return run_folder.parents[1] / "artifacts" / artifact / METRICS_FILE
    work = _listed(run_folder / WORK_LIST).get(node)
    return run_folder / work / METRICS_FILE if work is not None else None


def read_objective(run_folder: Path) -> list[dict[str, Any]] | None:
    """Return what a run ended with, or None where it has not."""
    try:
        found: list[dict[str, Any]] = json.loads((run_folder / OBJECTIVE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _listed(path: Path) -> dict[str, str]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): str(value) for name, value in listed.items()}
