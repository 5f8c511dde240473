"""What is known of a mirrored run: kept beside its W&B files until it is delivered, and afterwards as a receipt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.durable import write_durably
from pipeline.tracking.redaction import Redactor

if TYPE_CHECKING:
    from pipeline.artifacts.artifact import Artifact

SPEC_SUFFIX = ".run.json"
CLIENT_FOLDER = "wandb"  # in a run folder: what W&B's client writes, and these descriptions


@dataclass(kw_only=True)
class MirroredRun:
    """One run as it stands, or will stand, in W&B. Paths are relative to the outputs, which may be moved."""

    run_id: str
    project: str
    entity: str | None  # None is the default entity of whoever delivers it
    group: str
    job_type: str
    name: str
    tags: list[str]
    config: dict[str, Any]
    upload_artifacts: bool
    inputs: list[dict[str, Any]]  # described by `describe`, with the role beside it
    run_folder: str
    record: str  # metrics.jsonl, wherever it lies at the moment
    pid: int
    started: float  # seconds since 1970; producers are delivered before their consumers
    mode: str  # "online" or "offline"
    machine: str = ""  # that the process runs on, as `machine_since_its_start` names it
    written: str | None = None  # written.jsonl, likewise
    registry: str | None = None  # where artifacts that passed are linked to
    registered: list[dict[str, Any]] = field(default_factory=list)  # these, described by `describe`
    source_diff: str | None = None  # what the working tree of the code changes in its commit
    project_diff: str | None = None  # the same of the user's own repository
    alerts: list[dict[str, str]] = field(default_factory=list)
    num_alerted: int = 0  # of these, which the server was told while the run went on
    tables: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] | None = None
    exit_code: int | None = None  # None while it runs, or when its process died
    fragment: str | None = None  # the folder that the client wrote
    artifact_digest: str | None = None  # of the output, as W&B computes it
    delivered: bool = False

    def forget_alerts(self) -> None:
        """Let all alerts be told again: whether a server that failed heard of them nobody knows."""
        self.num_alerted = 0

    def file(self, outputs: Path) -> Path:
        """Return where this description is kept."""
        return outputs / self.run_folder / CLIENT_FOLDER / f"{self.run_id}{SPEC_SUFFIX}"

    def save(self, outputs: Path) -> None:
        """Write the description, so that a crash leaves the old one or the new one."""
        path = self.file(outputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps(asdict(self), indent=1, sort_keys=True))

    @classmethod
    def load(cls, path: Path) -> MirroredRun:
        """Read a description."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def command(self, outputs: Path, **changes: Any) -> dict[str, Any]:
        """Return what the mirror's process is told, with paths that it can open."""
        told = asdict(self)
        told["record"] = str(outputs / self.record)
        for name in ("written", "source_diff", "project_diff"):
            told[name] = str(outputs / told[name]) if told[name] else None
        for name in ("inputs", "registered"):
            told[name] = [{**entry, "path": str(outputs / entry["path"])} for entry in told[name]]
        if self.output:
            told["output"] = {**self.output, "path": str(outputs / self.output["path"])}
        told["folder"] = str(outputs / self.run_folder)
        return {**told, "superseded": [], "resume": "allow", "patience": 90.0, **changes}

    def fragments(self, outputs: Path) -> list[Path]:
        """Return every folder that the client wrote for this run, in this invocation or an earlier one."""
        return sorted((outputs / "runs").glob(f"*/wandb/*run-*-{self.run_id}"))

    def earlier(self, outputs: Path) -> list[Path]:
        """Return the descriptions that earlier invocations left of the same run."""
        found = (outputs / "runs").glob(f"*/wandb/{self.run_id}{SPEC_SUFFIX}")
        return sorted(path for path in found if path != self.file(outputs))


def any_offline(run_folder: Path, since: float) -> bool:
    """Whether a run of a run folder is mirrored on the disk, as it is once the server has failed.

    Args:
        run_folder: Where an earlier attempt may have left runs, too.
        since: Seconds since 1970; runs that began before do not count.
    """
    runs = map(MirroredRun.load, (run_folder / CLIENT_FOLDER).glob(f"*{SPEC_SUFFIX}"))
    return any(run.mode == "offline" and run.started >= since for run in runs)


def relative(path: Path, outputs: Path) -> str:
    """Return a path relative to the outputs, or absolute where it lies elsewhere."""
    absolute, root = path.absolute(), outputs.absolute()
    return os.path.relpath(absolute, root) if absolute.is_relative_to(root) else str(absolute)


def describe(artifact: Artifact, outputs: Path, redactor: Redactor) -> dict[str, Any]:
    """Return what W&B is told about an artifact."""
    manifest = artifact.manifest
    essentials = {
        "kind": str(manifest.kind),
        "stage": manifest.stage,
        "version": manifest.version,
        "fingerprint": manifest.fingerprint,
        "content_digest": manifest.content_digest,
        "parents": [{"role": parent.role, "kind": str(parent.kind), "id": parent.id} for parent in manifest.parents],
        "metrics": manifest.metrics,
        "gates": {gate["name"]: gate["outcome"] for gate in manifest.gates},
        "parts": manifest.parts,
        "base": manifest.base,
        "created": manifest.created,
    }
    return {
        "id": artifact.id,
        "kind": str(manifest.kind),
        "digest": manifest.content_digest,
        "path": relative(artifact.path, outputs),
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "metadata": redactor.value(essentials),
    }


def describe_inputs(
    inputs: Mapping[str, Sequence[Artifact]], outputs: Path, redactor: Redactor
) -> list[dict[str, Any]]:
    """Return one entry per consumed artifact, with its role."""
    return [
        {"role": role, **describe(artifact, outputs, redactor)}
        for role, artifacts in inputs.items()
        for artifact in artifacts
    ]
