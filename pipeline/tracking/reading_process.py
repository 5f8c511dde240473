"""The process that reads a group from W&B's server: ``reading_process ENTITY PROJECT GROUP FOLDER``; prints JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.tracking.reading import stored_rows

if TYPE_CHECKING:
    import wandb

REPORT_FILES = ("report.json", "items.json")
SERVER_SECONDS = 30  # for one answer


def read(entity: str, project: str, group: str, folder: Path) -> list[dict[str, Any]]:
    """Return the runs of a group, oldest first, and download the reports that they made."""
    import wandb

    api = wandb.Api(timeout=SERVER_SECONDS)
    runs = api.runs(f"{entity}/{project}", filters={"group": group}, order="+created_at")
    return [_read_run(api, run, folder) for run in runs if run.group == group]


def _read_run(api: wandb.Api, run: Any, folder: Path) -> dict[str, Any]:
    report: dict[str, str] = {}
    for artifact in run.logged_artifacts():
        if artifact.type == ArtifactKind.report:
            named = api.artifact(f"{run.entity}/{run.project}/{artifact.name}")
            place = Path(named.download(root=str(folder / run.id), skip_cache=True, path_prefix=None))
            report = {name: str(place / name) for name in REPORT_FILES if (place / name).is_file()}
    rows = [] if report else stored_rows(run.scan_history())
    return {
        "run_id": run.id, "group": run.group, "state": run.state, "config": dict(run.config), "rows": rows,
        "report": report,
    }  # fmt: skip


def main() -> None:
    """Keep standard output for the answer alone: what the client prints goes where errors go."""
    answers = os.dup(1)
    os.dup2(2, 1)
    entity, project, group, folder = sys.argv[1:]
    found = json.dumps(read(entity, project, group, Path(folder)), default=str).encode()
    with os.fdopen(answers, "wb") as out:
        out.write(found)


if __name__ == "__main__":
    main()
