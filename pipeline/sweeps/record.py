"""`sweep.json`: everything that is known of a sweep, rewritten whenever a trial changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.artifacts.durable import storage_errors, write_durably
from pipeline.errors import ArtifactError

RECORD = "sweep.json"
FORMAT_VERSION = 1
FOLDER_ENDING = "_sweep"


class TrialStatus(StrEnum):
    """What has become of a trial."""

    waiting = "waiting"
    running = "running"  # or its sweep died
    finished = "finished"  # with a result; a gate of its report may have failed
    failed = "failed"
    pruned = "pruned"
    stopped = "stopped"  # with the sweep; its work is kept


OVER = frozenset({TrialStatus.finished, TrialStatus.pruned})  # never run again by the same sweep


@dataclass(kw_only=True)
class Trial:
    """One run of a sweep."""

    number: int
    params: dict[str, Any]  # key -> value
    overrides: list[str]  # the same, as the command line takes it
    folder: str  # the name of its run folder, beside the sweep's
    status: TrialStatus = TrialStatus.waiting
    exit_status: int | None = None
    objectives: list[float] | None = None  # in the order of the sweep's
    intermediate: list[tuple[int, float]] = field(default_factory=list)  # step and value of the first objective
    reason: str = ""  # why it failed
    started: str | None = None
    seconds: float = 0.0  # over all attempts
    study_number: int | None = None  # in Optuna's storage, which counts attempts
    job: dict[str, str] | None = None  # that it was last submitted as; a sweep that was killed finds it again by this


@dataclass(kw_only=True)
class SweepRecord:
    """One sweep."""

    path: Path  # its folder
    identity: str  # sha256 of what makes it this sweep and no other
    command: str
    experiment: str
    method: str
    objectives: list[dict[str, str]]  # {name, direction}
    space: dict[str, Any]
    status: str = "running"  # running, stopped, failed or complete
    trials: list[Trial] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name, which is the group of its runs in W&B."""
        return self.path.name

    def save(self) -> None:
        """Write the record, so that a crash leaves the old one or the new one."""
        stored = {key: value for key, value in asdict(self).items() if key != "path"}
        content = {"format_version": FORMAT_VERSION, "sweep": self.name, **stored}
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_durably(self.path / RECORD, json.dumps(content, indent=1))

    def is_over(self, wanted: int) -> bool:
        """Whether `wanted` trials have ended, none of them by failing or with the sweep."""
        return len(self.trials) >= wanted and all(trial.status in OVER for trial in self.trials)


def read_sweep(folder: Path) -> SweepRecord:
    """Read the record of a sweep.

    Raises:
        ArtifactError: It is not there, is no JSON, or is of another format version.
    """
    path = folder / RECORD
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored.pop("format_version")
        if version != FORMAT_VERSION:
            raise ArtifactError(f"{path} is of format version {version}, and this program reads {FORMAT_VERSION}.")
        del stored["sweep"]
        trials = [_trial(entry) for entry in stored.pop("trials")]
        return SweepRecord(path=folder, trials=trials, **stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no record of a sweep: {error!r}. Move the folder away.") from error


def _trial(entry: dict[str, Any]) -> Trial:
    pairs = [(int(step), float(value)) for step, value in entry["intermediate"]]
    return Trial(**{**entry, "status": TrialStatus(entry["status"]), "intermediate": pairs})


def recorded_sweeps(outputs: Path) -> list[Path]:
    """Return the folders of the sweeps below the outputs, newest first."""
    return sorted((path.parent for path in (outputs / "runs").glob(f"*{FOLDER_ENDING}*/{RECORD}")), reverse=True)


def best_first(record: SweepRecord) -> list[Trial]:
    """Return the trials in the order of a table: by the first objective where there is one result, then the others.

    With several objectives those come first that no other trial beats on all of them.
    """
    signs = [1.0 if objective["direction"] == "minimize" else -1.0 for objective in record.objectives]
    scored = [trial for trial in record.trials if trial.objectives is not None]
    others = [trial for trial in record.trials if trial.objectives is None]

    def wanted(trial: Trial) -> list[float]:
        return [sign * value for sign, value in zip(signs, trial.objectives or [], strict=True)]

    if len(signs) < 2:
        return [*sorted(scored, key=wanted), *others]
    front = pareto_front(record)
    return [*sorted(scored, key=lambda trial: (trial.number not in front, wanted(trial))), *others]


def pareto_front(record: SweepRecord) -> set[int]:
    """Return the numbers of the trials that no other is at least as good as everywhere, and better somewhere."""
    signs = [1.0 if objective["direction"] == "minimize" else -1.0 for objective in record.objectives]
    points = {
        trial.number: [sign * value for sign, value in zip(signs, trial.objectives, strict=True)]
        for trial in record.trials
        if trial.objectives is not None
    }
    return {
        number
        for number, own in points.items()
        if not any(_dominates(other, own) for key, other in points.items() if key != number)
    }


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)
