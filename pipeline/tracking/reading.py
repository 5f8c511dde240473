"""Runs read back from W&B: a group of its server, or a folder that its client wrote offline.

Both are asked in a process of their own, as everything of the client is, so that what hangs can be ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.errors import TrackingError
from pipeline.tracking.mirror import client_environment
from pipeline.tracking.record import decode_row
from pipeline.tracking.redaction import Redactor
from pipeline.tracking.server import find_account, probe

READ_SECONDS = 300.0  # for a whole group
INSPECT_SECONDS = 60.0  # for one run on this disk
SERVER_SECONDS = 10.0  # for the first answer


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One stage's run as W&B has it."""

    run_id: str
    group: str
    state: str  # finished, running, crashed, failed
    config: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)  # with `step`
    report: dict[str, str] = field(default_factory=dict)  # file of the report that it made -> where it can be read


def read_group(path: str, folder: Path) -> list[StoredRun]:
    """Return the runs of a group on the server, oldest first, with the files of reports below a folder.

    Args:
        path: ``ENTITY/PROJECT/GROUP``.
        folder: Where reports are put.

    Raises:
        TrackingError: The path is none, the server cannot be used, or it has no such group.
    """
    parts = path.split("/")
    if len(parts) != 3 or not all(parts):
        raise TrackingError(f"wandb:{path}: write wandb:ENTITY/PROJECT/GROUP.")
    account = find_account()
    if not account.api_key:
        raise TrackingError(f"No API key for {account.base_url}. Set WANDB_API_KEY, or log in with `wandb login`.")
    if problem := probe(account, SERVER_SECONDS):
        raise TrackingError(f"wandb:{path} cannot be read: {problem}.")
    command = [sys.executable, "-m", "pipeline.tracking.reading_process", *parts, str(folder)]
    found = json.loads(_ask(command, folder, READ_SECONDS, f"wandb:{path}"))
    if not found:
        raise TrackingError(f"wandb:{path}: the project has no run of the group {parts[2]!r}.")
    return [StoredRun(**entry) for entry in found]


def read_offline(fragment: Path, folder: Path) -> StoredRun:
    """Return a run that the client wrote offline, as its own reader `wandb leet inspect` understands it.

    Args:
        fragment: The folder with the ``.wandb`` file.
        folder: Where the client may leave what it needs.

    Raises:
        TrackingError: The reader cannot read it.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(fragment)]
    lines = _ask(command, folder, INSPECT_SECONDS, str(fragment)).splitlines()
    records = [json.loads(line, parse_constant=str) for line in lines if line.strip()]
    run = next((record["run"] for record in records if "run" in record), None)
    if run is None:
        raise TrackingError(f"{fragment} does not say which run it is of; it was cut off at its very beginning.")
    config = {key: value for key, value in run.get("config", {}).get("update", {}).items() if key != "_wandb"}
    exits = [record["exit"] for record in records if "exit" in record]
    state = "crashed" if not exits else "failed" if exits[-1].get("exit_code") else "finished"
    return StoredRun(
        run_id=run["run_id"], group=run.get("run_group", ""), state=state, config=config,
        rows=stored_rows(record["history"]["item"] for record in records if "history" in record),
        report=_report_files(records),
    )  # fmt: skip


def stored_rows(items: Any) -> list[dict[str, Any]]:
    """Return rows of history as `metrics.jsonl` has them: without what the client adds, and without tables."""
    found = []
    for row in map(decode_row, items):
        kept = {name: value for name, value in row.items() if name[:1] != "_" and not isinstance(value, dict)}
        found.append({"step": row["_step"], **kept})
    return found


def _report_files(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return where the files of a report lie; the client names the originals and copies none of them."""
    made = [record["artifact"] for record in records if record.get("artifact", {}).get("type") == ArtifactKind.report]
    contents = made[-1].get("manifest", {}).get("contents", []) if made else []
    places = {
        entry["path"]: entry.get("local_path") or entry.get("ref", "").removeprefix("file://") for entry in contents
    }
    return {name: place for name, place in places.items() if place}


def _ask(command: list[str], folder: Path, seconds: float, what: str) -> str:
    """Run a process of the client and return what it prints.

    Raises:
        TrackingError: It fails, or takes too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, env=client_environment(folder), capture_output=True, text=True, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TrackingError(f"{what} was not read within {seconds:.0f} s.") from None
    if done.returncode:
        said = Redactor().text(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason")
        raise TrackingError(f"{what} cannot be read: {said[-300:]}")
    return done.stdout
