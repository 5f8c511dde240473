"""Checkpoints of a half-finished stage: committed whole, verified before use, rotated only after verification."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.artifact import record_files
from pipeline.artifacts.durable import fsync_folder, kill_point, publish_folder, storage_errors, write_durably
from pipeline.artifacts.hashing import sha256_file, sha256_json
from pipeline.artifacts.manifest import FileRecord
from pipeline.artifacts.temporary import discard, remove, temporary_path
from pipeline.errors import CheckpointError

MANIFEST = "MANIFEST.json"
_STEP = re.compile(r"step-(\d{8,})")
_SET_ASIDE = "replaced-"


@dataclass(frozen=True)
class Checkpoint:
    """A verified state of a stage at the end of an optimizer step."""

    path: Path
    step: int
    facts: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one work folder, whose lock the caller holds."""

    def __init__(self, path: Path) -> None:
        """Name the folder; it is created by the first commit."""
        self.path = path

    def draft(self) -> Path:
        """Create an empty folder to write the next checkpoint into; it is swept if this process dies."""
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            folder = temporary_path(self.path)
            folder.mkdir()
        return folder

    def commit(self, source: Path, step: int, facts: dict[str, Any]) -> None:
        """Make the files of ``source`` the checkpoint of ``step``.

        Args:
            source: A folder on the same file system; it is moved, not copied.
            step: Optimizer steps done.
            facts: JSON values to be had back at resume.
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._recover()
        files = record_files(source)
        kill_point("checkpoint.hashed")
        values = {"step": step, "files": {name: asdict(record) for name, record in files.items()}, "facts": facts}
        signed = {**values, "sha256": sha256_json(values)}
        write_durably(source / MANIFEST, json.dumps(signed, indent=1, sort_keys=True))
        kill_point("checkpoint.manifest")
        final = self._folder(step)
        aside = final.with_name(_SET_ASIDE + final.name)
        if final.exists():
            final.rename(aside)
            kill_point("checkpoint.set_aside")
        publish_folder(source, final, synced="checkpoint.synced", renamed="checkpoint.renamed")
        if aside.exists():
            discard(aside)
        kill_point("checkpoint.committed")

    def newest(self, notice: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that verifies; None if there is none at all.

        A bad one is renamed ``corrupt-step-N``, the reason is told, and the one before it is tried.

        Raises:
            CheckpointError: There are checkpoints and none of them verifies.
        """
        self._recover()
        bad: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.step(step)
            except CheckpointError as error:
                folder = self._folder(step)
                quarantine = unused_name(folder.with_name(f"corrupt-{folder.name}"))
                folder.rename(quarantine)
                fsync_folder(self.path)
                bad.append(f"{error} It was renamed to {quarantine.name}.")
                notice(bad[-1])
        # Those that an earlier attempt set aside count too: starting again at step 0 is never decided in silence.
        if bad or any(self.path.glob("corrupt-step-*")):
            raise CheckpointError(
                f"No checkpoint in {self.path} verifies, and training is not started again from the beginning by "
                f"itself. Look at the corrupt-step-* folders, then delete {self.path.parent} to start this stage anew."
            )
        return None

    def step(self, step: int) -> Checkpoint:
        """Return the checkpoint of one step.

        Raises:
            CheckpointError: It is missing or does not verify.
        """
        folder = self._folder(step)
        try:
            values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            own = values.pop("sha256")
            if own != sha256_json(values) or values["step"] != step:
                raise ValueError("it was altered after it was written")
            files = {name: FileRecord(**record) for name, record in values["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"Checkpoint {folder} has no usable {MANIFEST}: {error}.") from error
        for name, record in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != record.bytes or sha256_file(path) != record.sha256:
                raise CheckpointError(f"Checkpoint {folder} is damaged: {name} is missing or not what was saved.")
        return Checkpoint(folder, step, values["facts"])

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, verified or not, in order."""
        if not self.path.is_dir():
            return []
        found = (_STEP.fullmatch(path.name) for path in self.path.iterdir())
        return sorted(int(match.group(1)) for match in found if match)

    def rotate(self, keep: int, also: set[int]) -> None:
        """Delete all but the newest ``keep`` checkpoints and those of the steps in ``also``.

        The newest one is verified first; if it is bad nothing is deleted.

        Raises:
            CheckpointError: The newest checkpoint does not verify.
        """
        self._recover()
        steps = self.steps()
        old = [step for step in steps[: max(len(steps) - keep, 0)] if step not in also]
        if not old:
            return
        self.step(steps[-1])
        for step in old:
            doomed = temporary_path(self.path)
            self._folder(step).rename(doomed)
            kill_point("rotation.renamed")
            remove(doomed)
            kill_point("rotation.removed")

    def _recover(self) -> None:
        """Undo or finish a replacement that a crash interrupted."""
        for aside in self.path.glob(f"{_SET_ASIDE}step-*"):
            final = aside.with_name(aside.name.removeprefix(_SET_ASIDE))
            if final.exists():
                discard(aside)
            else:
                aside.rename(final)

    def _folder(self, step: int) -> Path:
        return self.path / f"step-{step:08d}"


def unused_name(path: Path) -> Path:
    """Return ``path``, or the first of ``path-2``, ``path-3``... that does not exist."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
