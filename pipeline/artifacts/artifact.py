"""A sealed folder, as its readers see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.artifacts.hashing import sha256_file, sha256_json
from pipeline.artifacts.manifest import MANIFEST_NAME, ArtifactKind, FileRecord, Manifest
from pipeline.errors import ArtifactError

COSTS_FILE, METRICS_FILE, WRITTEN_FILE = "costs.json", "metrics.jsonl", "written.jsonl"
# Files that record the course of a run: two runs with the same results differ in them, by their times and by how often
# somebody looked.
COURSE_FILES = frozenset({COSTS_FILE, METRICS_FILE, WRITTEN_FILE})

# The stage that makes each kind, as its user would run it.
PRODUCER: dict[ArtifactKind, str] = {
    ArtifactKind.labels: "ingest",
    ArtifactKind.dataset: "curate",
    ArtifactKind.policy: "sft",
    ArtifactKind.reward_model: "reward",
    ArtifactKind.reference_logprobs: "dpo",
    ArtifactKind.samples: "evaluate",
    ArtifactKind.verdicts: "evaluate",
    ArtifactKind.report: "evaluate",
}


@dataclass(frozen=True)
class Artifact:
    """A sealed, typed folder. Its id is its folder's name; no file in it holds an absolute path."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Return the folder's name."""
        return self.path.name

    @property
    def kind(self) -> ArtifactKind:
        """Return what the artifact holds."""
        return self.manifest.kind

    def file(self, name: str) -> Path:
        """Return the path of a file of the artifact; a file that the manifest does not list is not part of it."""
        if name not in self.manifest.files:
            raise ArtifactError(
                f"Artifact {self.id} ({self.kind}) has no file {name!r}. Its files: {', '.join(self.manifest.files)}."
            )
        return self.path / name

    @classmethod
    def open(cls, path: Path, expect: ArtifactKind | None = None, verify: bool = True) -> Artifact:
        """Read an artifact.

        Args:
            path: The sealed folder.
            expect: The kind that is needed; None takes any.
            verify: Compare size and SHA-256 of every file with the manifest.

        Raises:
            ArtifactError: It is missing, unfinished, damaged or of another kind.
        """
        wanted = expect or "artifact"
        remedy = f" Run `python -m pipeline train` with the stage {PRODUCER[expect]!r} first." if expect else ""
        if not path.is_dir():
            raise ArtifactError(f"No {wanted} at {path}: there is no such folder.{remedy}")
        try:
            manifest = Manifest.from_json((path / MANIFEST_NAME).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(
                f"No {wanted} at {path}: {MANIFEST_NAME} is missing. It is written last, so the stage that makes it "
                f"has not finished.{remedy}"
            ) from error
        except ValueError as error:
            raise ArtifactError(f"The manifest {path / MANIFEST_NAME} is unusable: {error}.") from error
        if expect is not None and manifest.kind != expect:
            raise ArtifactError(
                f"{path} is a {manifest.kind}, made by the stage {manifest.stage!r}; a {expect} is needed.{remedy}"
            )
        artifact = cls(path, manifest)
        if verify and (problems := artifact.problems()):
            raise ArtifactError(f"Artifact {path} is damaged: {'; '.join(problems)}.")
        return artifact

    def problems(self) -> list[str]:
        """Compare every file with the manifest and say what differs; an empty list is an intact artifact."""
        found = [problem for name, record in self.manifest.files.items() if (problem := self._problem(name, record))]
        if self.manifest.content_digest != content_digest(self.manifest.files):
            found.append("the manifest's content digest is not that of its list of files")
        return found

    def unlisted_files(self) -> list[str]:
        """Files in the folder that are not part of the artifact: no reader takes them, and nobody vouches for them."""
        present = (path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir())
        return sorted(set(present) - self.manifest.files.keys() - {MANIFEST_NAME})

    def num_bytes(self) -> int:
        """Return the size of all files that the manifest lists."""
        return sum(record.bytes for record in self.manifest.files.values())

    def _problem(self, name: str, record: FileRecord) -> str | None:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            return f"the name {name!r} leads out of the folder"
        path = self.path / name
        if path.is_symlink() or not path.is_file():
            return f"{name} is missing" if not path.exists() else f"{name} is not a plain file"
        if (size := path.stat().st_size) != record.bytes:
            return f"{name} has {size:,} bytes instead of {record.bytes:,}"
        if sha256_file(path) != record.sha256:
            return f"{name} has another SHA-256 than when it was sealed"
        return None


def content_digest(files: dict[str, FileRecord]) -> str:
    """Return the digest over all files but those that hold timings."""
    return sha256_json({name: record.sha256 for name, record in files.items() if name not in COURSE_FILES})


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Return size and digest of every file below a folder, by its relative name."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_file(path)) for path in paths}
