"""Invocations of a small chain of stages under real tracking, and what W&B's own readers say about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.shared import TrackingConfig, TrackingMode
from pipeline.tracking.run import Run
from pipeline.tracking.session import TrackingSession

KINDS = {"curate": ArtifactKind.dataset, "sft": ArtifactKind.policy}
API_KEY = "k" * 40
Row = dict[str, Any]


def row(step: int) -> dict[str, float | int]:
    """A row whose values need every digit of a double."""
    return {"loss": 1.0 / (step + 2), "learning_rate": 2e-4 * 0.9**step, "skipped_steps": step // 3}


class Invocation:
    """One invocation of the pipeline: a session with a run folder of its own."""

    def __init__(
        self,
        outputs: Path,
        name: str,
        mode: TrackingMode = TrackingMode.auto,
        logged: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        self.store = Store(outputs)
        self.folder = outputs / "runs" / name
        tracking = TrackingConfig(mode=mode, **config)
        shown = logged or {"seed": 17, "sft": {"learning_rate": 2e-4}}
        self.session = TrackingSession(tracking, outputs, self.folder, shown)

    def __enter__(self) -> Invocation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.close()

    def start(self, stage: str, fingerprint: str, inputs: Iterable[Artifact] = ()) -> Run:
        """Start a run in its work folder."""
        self.work = self.store.work(stage, fingerprint)
        self.stage, self.fingerprint = stage, fingerprint
        given = {"dataset": list(inputs)}
        return self.session.start(stage=stage, name=stage, fingerprint=fingerprint, work=self.work, inputs=given)

    def seal(self, text: str = "rows of the artifact\n", gates: Sequence[dict[str, Any]] = ()) -> Artifact:
        """Seal two files, one in a folder."""
        (self.work.staging / "deep").mkdir()
        (self.work.staging / "rows.txt").write_text(text)
        (self.work.staging / "deep" / "weights.safetensors").write_bytes(bytes(range(256)) * 40)
        return self.store.seal(
            self.work, kind=KINDS[self.stage], stage=self.stage, version=1, fingerprint=self.fingerprint, parents=[],
            config={}, outcome=StageOutcome(parts={}, metrics={"rows": 3}, resolved={}, gates=list(gates)),
        )  # fmt: skip

    def report_run(self, digit: str, files: dict[str, bytes]) -> Artifact:
        """Run the stage that makes a report of these files."""
        run = self.start("report", digit * 64)
        for name, content in files.items():
            (self.work.staging / name).write_bytes(content)
        artifact = self.store.seal(
            self.work, kind=ArtifactKind.report, stage="report", version=1, fingerprint=self.fingerprint, parents=[],
            config={}, outcome=StageOutcome(parts={}),
        )  # fmt: skip
        run.finish(artifact)
        return artifact

    def stage_run(
        self, stage: str, digit: str, steps: Iterable[int] = (), inputs: Iterable[Artifact] = ()
    ) -> tuple[Run, Artifact]:
        """Run one stage to its end."""
        run = self.start(stage, digit * 64, inputs)
        for step in steps:
            run.log(row(step), step)
        artifact = self.seal(f"made by {stage} {digit}\n")
        run.finish(artifact)
        return run, artifact


def steps_and_values(rows: Iterable[Row]) -> list[tuple[int, Row]]:
    """Rows as W&B has them, without what its client adds."""
    return [(entry["_step"], {k: v for k, v in entry.items() if not k.startswith("_")}) for entry in rows]


def recorded(path: Path) -> list[tuple[int, Row]]:
    """Rows of `metrics.jsonl`, those of one step together."""
    merged: dict[int, Row] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        merged.setdefault(entry.pop("step"), {}).update(entry)
    return sorted(merged.items())


def inspect(fragment: Path) -> tuple[list[tuple[int, Row]], list[Row]]:
    """Read an offline run with W&B's own reader: its history, and all its records."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(fragment)]
    places = {f"WANDB_{kind}": str(fragment) for kind in ("DIR", "CONFIG_DIR", "CACHE_DIR", "DATA_DIR")}
    environment = {**os.environ, **places}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    records = [json.loads(line, parse_constant=str) for line in done.stdout.splitlines() if line.strip()]
    return steps_and_values(entry["history"]["item"] for entry in records if "history" in entry), records


READ_BACK = """
import json, sys, wandb
path, download = sys.argv[1], sys.argv[2]
run = wandb.Api().run(path)
found = {"history": list(run.scan_history()), "config": run.config, "group": run.group, "job_type": run.job_type,
         "name": run.name, "state": run.state, "used": [a.name for a in run.used_artifacts()], "logged": []}
for artifact in run.logged_artifacts():
    entry = {"name": artifact.name, "type": artifact.type, "metadata": artifact.metadata, "state": artifact.state}
    if artifact.type in ("policy", "dataset"):
        entry["folder"] = wandb.Api().artifact(f"{run.entity}/{run.project}/{artifact.name}").download(download)
    found["logged"].append(entry)
print("FOUND" + json.dumps(found))
"""


def read_back(run: Run, folder: Path) -> dict[str, Any]:
    """Read a run from the server through `wandb.Api`, in a process of its own, and download its output."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {f"WANDB_{kind}_DIR": str(folder / kind) for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, f"loopback/pipeline/{run.wandb_run_id}", str(folder / "download")],
        capture_output=True, text=True, check=True, env={**os.environ, **places, "WANDB_DIR": str(folder)}, cwd=folder,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.partition("FOUND")[2])
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file, by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}
