"""The work folder of a stage that is not finished: what survives a crash and is where a rerun goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.artifacts.artifact import METRICS_FILE, WRITTEN_FILE
from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.artifacts.durable import storage_errors, write_durably
from pipeline.artifacts.temporary import discard, sweep
from pipeline.errors import ArtifactError

STATE_NAME = "state.json"
CHECKPOINTS = "checkpoints"


class WorkFolder:
    """Everything a stage keeps between two attempts. Made by :meth:`Store.work`, under the stage's lock."""

    def __init__(self, path: Path) -> None:
        """Open or create the folder, with an empty staging folder and what earlier attempts remembered."""
        self.path = path
        self.staging = path / "staging"  # what will be sealed; its files are written by the stage
        self.metrics = path / METRICS_FILE
        self.written = path / WRITTEN_FILE  # what the policy wrote while it was trained
        self.checkpoints = CheckpointFolder(path / CHECKPOINTS)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            sweep(path)
            sweep(self.checkpoints.path)
            if self.staging.exists():
                discard(self.staging)
            self.staging.mkdir()
        self.state: dict[str, Any] = read_state(path)

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value; when this returns it survives a crash."""
        self.state = {**self.state, key: value}
        write_durably(self.path / STATE_NAME, json.dumps(self.state, indent=1, sort_keys=True, allow_nan=False))

    def recall(self, key: str, default: Any = None) -> Any:
        """Return what an attempt remembered under ``key``."""
        return self.state.get(key, default)


def read_state(folder: Path) -> dict[str, Any]:
    """Return what a work folder remembers, without opening it for work.

    Raises:
        ArtifactError: The state is unreadable, which a crash cannot cause.
    """
    path = folder / STATE_NAME
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}. Delete {folder} to start this stage anew.") from error
    if not isinstance(state, dict):
        raise ArtifactError(f"{path} is not a JSON object. Delete {folder} to start this stage anew.")
    return state
