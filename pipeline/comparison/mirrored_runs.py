"""Runs that W&B has, as runs to compare: the stages of one invocation together, with the report that it made."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.comparison.records import FAILED, FINISHED, NO_REPORT, UNREADABLE, RunRecord, flatten
from pipeline.errors import ArtifactError
from pipeline.evaluation.item_file import ITEMS_FILE, read_items
from pipeline.evaluation.summary import read_report
from pipeline.tracking.reading import StoredRun, read_group, read_offline

REPORT_FILE = "report.json"
READERS = 4  # processes that read offline runs at one time, each of which mostly waits for its own start
# Keys that tracking adds.
OWN_KEYS = frozenset({"stage", "node", "fingerprint", "inputs", "configured_inputs", "invocation"})


def online_runs(path: str) -> list[RunRecord]:
    """Return the runs of a group of the server: ``ENTITY/PROJECT/GROUP``."""
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        return _records(read_group(path, Path(folder)), f"wandb:{path}")


def offline_runs(fragments: Sequence[Path]) -> list[RunRecord]:
    """Return the runs that stand in folders which the client wrote offline."""
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        with ThreadPoolExecutor(READERS) as readers:
            stored = list(readers.map(lambda fragment: read_offline(fragment, Path(folder)), fragments))
        return _records(stored, str(fragments[0].parent))


def _records(stored: Sequence[StoredRun], place: str) -> list[RunRecord]:
    """Return a record for every invocation; all stages of one were told the same command and group."""
    invocations: dict[tuple[str, str], list[StoredRun]] = {}
    for run in stored:
        invocations.setdefault((run.group, str(run.config.get("command", run.run_id))), []).append(run)
    several = len(invocations) > 1
    return [
        _record(f"{group}-{number}" if several else group, f"{place}, {runs[-1].run_id}", runs)
        for number, ((group, _), runs) in enumerate(invocations.items())
    ]


def _record(name: str, place: str, runs: Sequence[StoredRun]) -> RunRecord:
    made = next((run for run in reversed(runs) if run.report), None)
    newest = made or runs[-1]
    config = {key: value for key, value in newest.config.items() if key not in OWN_KEYS}
    if "configured_inputs" in newest.config:
        config["inputs"] = newest.config["configured_inputs"]
    record = RunRecord(name=name, place=place, group=runs[-1].group, config=dict(flatten(config)))
    record.curves = {str(run.config.get("node", run.run_id)): run.rows for run in runs if run.rows}
    if made is None:
        record.status = NO_REPORT if newest.state == FINISHED else FAILED
        record.reason = f"W&B has no report of it; its last run there is {newest.state}"
        return record
    try:
        record.report = read_report(Path(made.report[REPORT_FILE]))
        record.items = read_items(Path(made.report[ITEMS_FILE]))
    except KeyError as missing:
        record.items_problem = f"its artifact on W&B has no {missing}"
    except (ArtifactError, OSError) as error:
        record.status, record.reason, record.report = UNREADABLE, str(error), None
    return record
