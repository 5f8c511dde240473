"""One run as it can be compared: what it was configured with, what it measured item by item, and what became of it."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ArtifactError
from pipeline.evaluation.item_file import ITEMS_FILE, read_items
from pipeline.evaluation.summary import read_report
from pipeline.graph.run_folder import linked_ids

FINISHED, FAILED, NO_REPORT, UNREADABLE = "finished", "failed", "no report", "unreadable"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
_ENDED = re.compile(r"^\S+ \S+  (?P<what>\S+ ended: .*)$")
_SECTION = re.compile(r"^(?=[^\s#-])", re.MULTILINE)  # where a key of the highest level begins
LOG_LINES = 200  # at the end of a log, in which the reason for its end is looked for


@dataclass(kw_only=True)
class RunRecord:
    """What is known of one run; without a report it is listed with the reason and not compared."""

    name: str
    place: str  # where it was found: a folder, or a run of a tracking server
    folder: Path | None = None  # None where it is not on this machine
    group: str = ""  # that a tracking client wrote, where there is no folder
    status: str = FINISHED
    reason: str = ""  # of any status but finished
    config: dict[str, Any] = field(default_factory=dict)  # dotted key -> value
    report: dict[str, Any] | None = None
    items: dict[str, Any] | None = None  # suite -> what `items.json` holds of it
    items_problem: str = ""  # why there are none
    artifacts: dict[str, str] = field(default_factory=dict)  # node -> artifact id
    sweep: str | None = None  # the sweep that it is a trial of
    trial: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)  # that the sweep chose
    objectives: dict[str, float] = field(default_factory=dict)  # that the sweep was after, by name
    intermediate: list[tuple[float, float]] = field(default_factory=list)  # step and value of the first objective
    seconds: float | None = None  # wall time of the whole run
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # node -> rows, where there is no folder


def read_run(folder: Path) -> RunRecord:
    """Read a run folder; whatever is missing or unreadable in it becomes its status and reason."""
    record = RunRecord(name=folder.name, place=str(folder), folder=folder)
    try:
        record.config = read_config(folder / "config.yaml")
        record.artifacts = linked_ids(folder)
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        record.status, record.reason = UNREADABLE, f"config.yaml or artifacts.json: {str(error).splitlines()[0]}"
        return record
    if not (folder / "report.json").is_file():
        record.status, record.reason = _end_of(folder)
        return record
    try:
        record.report = read_report(folder / "report.json")
    except ArtifactError as error:
        record.status, record.reason = UNREADABLE, str(error)
        return record
    try:
        record.items = read_items(folder / ITEMS_FILE)
    except FileNotFoundError:
        record.items_problem = "it has no items.json; run its command again, which only makes the report anew"
    except ArtifactError as error:
        record.items_problem = str(error)
    return record


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration by dotted keys; nothing where there is no file.

    Sections are parsed one by one and remembered, because the runs of a sweep have most of them in common.
    """
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    try:
        return {key: value for section in _SECTION.split(text) if section.strip() for key, value in _parsed(section)}
    except (yaml.YAMLError, AttributeError):  # a file of another style, or one that is no configuration
        return dict(_parsed(text))


@lru_cache(maxsize=8192)
def _parsed(text: str) -> tuple[tuple[str, Any], ...]:
    return tuple(flatten(_LOADER(text).get_single_data() or {}))


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; a list of sections is spread by number, a list of plain values is one."""
    for key, entry in value.items():
        name = f"{prefix}{key}"
        if isinstance(entry, list) and any(isinstance(item, dict) for item in entry):
            entry = {str(number): item for number, item in enumerate(entry)}
        if isinstance(entry, dict) and entry:
            yield from flatten(entry, f"{name}.")
        else:
            yield name, entry


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ArtifactError: It is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}. The run that writes it may still be going on.") from error


def _end_of(folder: Path) -> tuple[str, str]:
    """Return the status of a run without a report, and what its log says of its end."""
    log = folder / "run.log"
    if not log.is_file():
        return NO_REPORT, "it has no report.json and no run.log"
    with log.open(encoding="utf-8", errors="replace") as lines:
        ended = [found["what"] for line in deque(lines, LOG_LINES) if (found := _ENDED.match(line))]
    if ended:
        return FAILED, ended[-1]
    return NO_REPORT, "it has no report.json; its stages make none, or it has not ended"
