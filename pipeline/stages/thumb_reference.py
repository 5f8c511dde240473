"""How likely the reference finds every labelled completion, and the unrelated one beside it."""

from __future__ import annotations

from pipeline.artifacts.outcome import StageOutcome
from pipeline.stages.reference import score_sides
from pipeline.stages.thumbs import SIDES, load_thumbs
from pipeline.tracking.job import StageJob


def score_thumbs(job: StageJob) -> StageOutcome:
    """Sum the reference's log-probabilities over both completions of every train and validation row."""
    params = job.params
    tables = load_thumbs(job, rows=params["rows"], folds=params.get("folds", ()), max_length=params["max_length"])
    return score_sides(job, tables.train, tables.validation, SIDES)
