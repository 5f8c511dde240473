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

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.checkpoints import unused_name
from pipeline.artifacts.durable import storage_errors, write_durably
from pipeline.artifacts.manifest import ArtifactKind

ARTIFACT_LIST = "artifacts.json"
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

    def copy_pages(self, artifact: Artifact) -> None:
        """Put what people read of an artifact beside the configuration; most kinds have nothing of the sort."""
        for name, copy in COPIES.get(artifact.kind, {}).items():
            if name in artifact.manifest.files:
                with storage_errors(self.path / copy):
                    shutil.copyfile(artifact.file(name), self.path / copy)


def linked_ids(run_folder: Path) -> dict[str, str]:
    """Return the artifact ids that a run folder points to, by node name."""
    try:
        listed = json.loads((run_folder / ARTIFACT_LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): str(artifact) for name, artifact in listed.items()}
