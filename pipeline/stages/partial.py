"""What a stage that goes item by item keeps in its work folder, so that a restart goes on behind what is done."""

from __future__ import annotations

import json
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.tracking.job import StageJob

PARTIAL = "partial.jsonl"


def read_partial(job: StageJob) -> dict[str, dict[str, Any]]:
    """Return the results that an earlier attempt kept, by item; a last line that was cut by a crash is left out."""
    path = job.work.path / PARTIAL
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_durably(path, whole)
    results = [json.loads(line) for line in whole.splitlines()]
    if results:
        job.run.notice(f"going on behind {len(results)} items that an earlier attempt finished")
    return {result["id"]: result for result in results}


def append_partial(job: StageJob, results: list[dict[str, Any]]) -> None:
    """Keep the results of a batch."""
    with (job.work.path / PARTIAL).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(result, sort_keys=True, allow_nan=False) + "\n" for result in results)
