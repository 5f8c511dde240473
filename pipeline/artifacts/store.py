"""The folder of all state: half-finished work, sealed artifacts, and which of them are current.

Layout below ``runtime.outputs``::

    work/<stage>-<fingerprint>/            half-finished; a rerun goes on from here
    work/<stage>-<fingerprint>.lock        held while a process works there
    artifacts/<stage>-<fingerprint>-<content digest>/
    artifacts/<stage>-<fingerprint>.current    names the one that consumers take
    artifacts/corrupt-...                  set aside; nothing reads it

Names carry the first 16 hexadecimal digits of a digest; the manifest holds, and readers compare, all 64.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.artifacts.artifact import Artifact, content_digest, record_files
from pipeline.artifacts.checkpoints import unused_name
from pipeline.artifacts.durable import fsync_folder, kill_point, publish_folder, storage_errors, write_durably
from pipeline.artifacts.locks import exclusive_lock
from pipeline.artifacts.manifest import MANIFEST_NAME, ArtifactKind, Manifest, Parent
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.temporary import discard, sweep
from pipeline.artifacts.work import WorkFolder
from pipeline.errors import ArtifactError, LockError, StorageError

__all__ = ["Artifact", "Provenance", "Store", "WorkFolder"]

DIGITS = 16  # of a digest in a file name
# Formats that can run code when they are read, or may hold such; none of them is ever sealed.
_UNSAFE_SUFFIX = re.compile(r"\.( bin | pt | pth | ckpt | pkl | pickle | joblib | npy | npz )", re.VERBOSE)
_ARTIFACT_NAME = re.compile(r"(?P<stage>[a-z][a-z0-9_]*)-(?P<fingerprint>[0-9a-f]{16})-[0-9a-f]{16}")


def print_line(text: str) -> None:
    """Print one line: what notices do where the caller says nothing else."""
    print(text, flush=True)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How an artifact came to be, beside its fingerprint and its parents."""

    base: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    tracking: dict[str, Any] = field(default_factory=dict)
    wall_seconds: float = 0.0


class Store:
    """Everything below ``runtime.outputs``."""

    def __init__(self, outputs: Path) -> None:
        """Name the folders; they are created when something is written."""
        self.outputs = outputs
        self.work_root = outputs / "work"
        self.artifact_root = outputs / "artifacts"

    def current(self, stage: str, fingerprint: str, notice: Callable[[str], None] = print_line) -> Artifact | None:
        """Return the verified artifact that consumers of this stage and fingerprint take, or None.

        A corrupt one is renamed and the reason told. Where ``.current`` is missing or names nothing that is intact,
        as after copying a folder from another machine, the newest intact artifact of the fingerprint is taken.
        """
        pointer = self._pointer(stage, fingerprint)
        named = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None
        candidates = []
        for path in self.artifact_root.glob(f"{stage}-{fingerprint[:DIGITS]}-*/"):
            artifact = self._intact(path, notice)
            if artifact and (artifact.manifest.stage, artifact.manifest.fingerprint) == (stage, fingerprint):
                candidates.append(artifact)
        if not candidates:
            return None
        chosen = max(candidates, key=lambda artifact: (artifact.id == named, artifact.manifest.created, artifact.id))
        if chosen.id != named:
            with suppress(StorageError):  # reading from a folder that cannot be written to is fine
                write_durably(pointer, chosen.id + "\n")
        return chosen

    def open(self, reference: str, expect: ArtifactKind | None = None) -> Artifact:
        """Open an artifact by path, by id or by a unique beginning of its id.

        Raises:
            ArtifactError: It does not exist, several ids begin so, or it is damaged or of another kind.
        """
        path = Path(reference).expanduser()
        if path.is_dir() and (path / MANIFEST_NAME).exists():
            return Artifact.open(path.resolve(), expect)
        matches = [found for found in self.folders() if found.name.startswith(reference)]
        exact = [found for found in matches if found.name == reference]
        if len(exact or matches) == 1:
            return Artifact.open((exact or matches)[0], expect)
        if matches:
            ids = ", ".join(found.name for found in matches)
            raise ArtifactError(f"{reference!r} begins several artifact ids: {ids}. Write one of them out.")
        raise ArtifactError(
            f"No {expect or 'artifact'} {reference!r}: it is neither a sealed folder nor the beginning of an id in "
            f"{self.artifact_root}. `python -m pipeline runs list runtime.outputs={self.outputs}` shows what there is."
        )

    def folders(self) -> list[Path]:
        """Return the folders with an artifact's name, whether intact or not, by name."""
        if not self.artifact_root.is_dir():
            return []
        return sorted(p for p in self.artifact_root.iterdir() if _ARTIFACT_NAME.fullmatch(p.name) and p.is_dir())

    def artifacts(self) -> list[Artifact]:
        """Return every sealed artifact with a sound manifest, oldest first. Files are verified by who opens one."""
        found = []
        for path in self.folders():
            try:
                found.append(Artifact.open(path, verify=False))
            except ArtifactError:  # `runs verify` reports it; for everybody else it does not exist
                continue
        return sorted(found, key=lambda artifact: (artifact.manifest.created, artifact.id))

    def is_current(self, artifact: Artifact) -> bool:
        """Whether consumers of the artifact's stage and fingerprint take this one."""
        pointer = self._pointer(artifact.manifest.stage, artifact.manifest.fingerprint)
        return pointer.is_file() and pointer.read_text(encoding="utf-8").strip() == artifact.id

    def lock_file(self, stage: str, fingerprint: str) -> Path:
        """Return the lock file of a stage's work folder."""
        return self.work_root / f"{stage}-{fingerprint[:DIGITS]}.lock"

    def lock_of(self, work_folder: Path) -> Path:
        """Return the lock file of a work folder that is known by its path."""
        return work_folder.with_name(f"{work_folder.name}.lock")

    def lock(
        self, stage: str, fingerprint: str, wait: bool = True, notice: Callable[[str], None] = print_line
    ) -> AbstractContextManager[None]:
        """Hold the stage's work folder against every other process; see :func:`exclusive_lock`."""
        return exclusive_lock(self.lock_file(stage, fingerprint), wait=wait, notice=notice)

    def work(self, stage: str, fingerprint: str) -> WorkFolder:
        """Open the work folder of a stage. The caller holds its lock."""
        work = WorkFolder(self.work_root / f"{stage}-{fingerprint[:DIGITS]}")
        if work.recall("fingerprint", fingerprint) != fingerprint:
            raise ArtifactError(
                f"{work.path} belongs to another fingerprint with the same first {DIGITS} digits. Delete it to go on."
            )
        if work.recall("fingerprint") is None:
            work.remember("fingerprint", fingerprint)
        return work

    def seal(
        self,
        work: WorkFolder,
        *,
        kind: ArtifactKind,
        stage: str,
        version: int,
        fingerprint: str,
        parents: list[Parent],
        config: dict[str, Any],
        outcome: StageOutcome,
        provenance: Provenance | None = None,
        notice: Callable[[str], None] = print_line,
    ) -> Artifact:
        """Publish what lies in the staging folder as an artifact, make it the current one and remove the work folder.

        Sealing the same content twice keeps the first folder.
        """
        staging, provenance = work.staging, provenance or Provenance()
        for record in (work.metrics, work.written):
            if record.exists():
                with storage_errors(staging):
                    shutil.copyfile(record, staging / record.name)
        kill_point("seal.metrics")
        _require_sealable(staging)
        files = record_files(staging)
        manifest = Manifest(
            kind=kind, stage=stage, version=version, fingerprint=fingerprint, content_digest=content_digest(files),
            parents=parents, config=config, parts=outcome.parts, files=files, metrics=outcome.metrics,
            gates=outcome.gates, resolved=outcome.resolved, base=provenance.base, environment=provenance.environment,
            tracking=provenance.tracking, wall_seconds=round(provenance.wall_seconds, 3),
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
        )  # fmt: skip
        write_durably(staging / MANIFEST_NAME, manifest.to_json())
        kill_point("seal.manifest")
        with storage_errors(self.artifact_root):
            self.artifact_root.mkdir(parents=True, exist_ok=True)
        final = self.artifact_root / f"{stage}-{fingerprint[:DIGITS]}-{manifest.content_digest[:DIGITS]}"
        if not final.exists() or self._intact(final, notice) is None:
            publish_folder(staging, final, synced="seal.synced", renamed="seal.renamed")
        else:
            discard(staging)
        write_durably(self._pointer(stage, fingerprint), final.name + "\n")
        kill_point("seal.current")
        discard(work.path)
        kill_point("seal.cleaned")
        return Artifact.open(final, kind, verify=False)

    def discard_sealed_work(self, stage: str, fingerprint: str) -> None:
        """Remove a work folder that a crash left behind after its result was sealed.

        One that still has its staging folder belongs to a run that goes on, and stays.
        """
        path = self.work_root / f"{stage}-{fingerprint[:DIGITS]}"
        if path.is_dir():
            with suppress(LockError), self.lock(stage, fingerprint, wait=False):
                if path.is_dir() and not (path / "staging").exists():
                    discard(path)

    def sweep(self) -> list[Path]:
        """Remove the temporary files and folders of dead processes, and return their paths."""
        runs = sorted(self.outputs.glob("runs/*/"))
        return [path for folder in (self.outputs, self.work_root, self.artifact_root, *runs) for path in sweep(folder)]

    def _pointer(self, stage: str, fingerprint: str) -> Path:
        return self.artifact_root / f"{stage}-{fingerprint[:DIGITS]}.current"

    def _intact(self, path: Path, notice: Callable[[str], None]) -> Artifact | None:
        """Open and verify a folder of the store; rename it out of everybody's sight if it is damaged."""
        try:
            return Artifact.open(path)
        except ArtifactError as error:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            quarantine = unused_name(self.artifact_root / f"corrupt-{path.name}-{stamp}")
            try:
                path.rename(quarantine)
            except FileNotFoundError:  # another process set it aside at the same moment
                return None
            fsync_folder(self.artifact_root)
            notice(f"{error} It was renamed to {quarantine.name} and will be made again.")
            return None


def _require_sealable(staging: Path) -> None:
    """Refuse what no reader should meet: an empty folder, links, and formats that can hold code."""
    paths = [path for path in staging.rglob("*") if not path.is_dir() or path.is_symlink()]
    if not paths:
        raise ValueError(f"the stage wrote nothing into {staging}")
    names = [path.relative_to(staging).as_posix() for path in paths]
    bad = [
        name
        for name, path in zip(names, paths, strict=True)
        if path.is_symlink() or _UNSAFE_SUFFIX.fullmatch(path.suffix.lower()) or name == MANIFEST_NAME
    ]
    if bad:
        raise ValueError(f"these must not be sealed (links, pickled data, a foreign manifest): {', '.join(bad)}")
