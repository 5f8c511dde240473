"""The trials of a sweep as runs to compare: what their folders hold, and what the sweep knows of them beside."""

from __future__ import annotations

import math

from pipeline.comparison.records import RunRecord, read_run
from pipeline.sweeps.record import SweepRecord, Trial, TrialStatus


def trials_of(sweep: SweepRecord) -> list[RunRecord]:
    """Return the trials in their order, also those that failed, were pruned or have not begun."""
    return [_trial(sweep, trial) for trial in sweep.trials]


def _trial(sweep: SweepRecord, trial: Trial) -> RunRecord:
    folder = sweep.path.parent / trial.folder
    if trial.folder and folder.is_dir():
        record = read_run(folder)
    else:
        record = RunRecord(name=f"trial {trial.number}", place=str(folder), reason="it has no run folder")
    if trial.status is not TrialStatus.finished:
        ended = "" if trial.exit_status is None else f"exit status {trial.exit_status}"
        record.status, record.reason = trial.status.value, trial.reason or ended or record.reason
    record.sweep, record.trial, record.parameters = sweep.name, trial.number, dict(trial.params)
    names = [objective["name"] for objective in sweep.objectives]
    record.objectives = dict(zip(names, trial.objectives or [], strict=False))
    # Where the loss was no number the trial has no place among the others: that of the step before is the last one.
    record.intermediate = [(step, value) for step, value in trial.intermediate if math.isfinite(value)]
    record.seconds = trial.seconds
    return record
