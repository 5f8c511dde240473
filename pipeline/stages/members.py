"""Members of an ensemble: each trains in a work folder of its own, one after the other, into one record."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from pipeline.artifacts.work import WorkFolder
from pipeline.config.reward import RewardConfig
from pipeline.data.pairs import Pair
from pipeline.stages.order import num_optimizer_steps
from pipeline.stages.pairs import PairRows
from pipeline.tracking.job import StageJob

if TYPE_CHECKING:
    from pipeline.tracking.run import Run

SEEDS_APART = 1009  # between the members' seeds


class _MemberRun:
    """The record of the stage as one member sees it: its steps count from zero, behind those of the members before."""

    def __init__(self, run: Run, *, first: int, total: int, is_over: bool) -> None:
        self._run, self._first, self._total, self._is_over = run, first, total, is_over

    def log(self, row: Mapping[str, float | int], step: int) -> None:
        self._run.log(row, self._first + step)

    def cut(self, step: int) -> None:
        if not self._is_over:  # else the rows behind are those of the members after it
            self._run.cut(self._first + step)

    def notice(self, text: str) -> None:
        self._run.notice(text)

    def progress(self, total: int, done: int) -> None:
        self._run.progress(self._total, self._first + done)


def member_config(config: RewardConfig, number: int) -> RewardConfig:
    """Return the configuration of one member: it differs in its seed alone."""
    return replace(config, seed=config.seed + SEEDS_APART * number)


def member_rows(rows: PairRows, config: RewardConfig, number: int) -> PairRows:
    """Return the rows of one member: with `bootstrap` each of an ensemble draws as many pairs with replacement."""
    if config.num_members == 1 or not config.bootstrap:
        return rows
    generator = random.Random(f"bootstrap/{config.seed}/{number}")
    drawn: Sequence[Pair] = generator.choices(rows.train, k=len(rows.train))
    return replace(rows, train=list(drawn))


def member_job(job: StageJob, rows: PairRows, config: RewardConfig, number: int) -> StageJob:
    """Return the job of one member; without an ensemble it is the stage's own."""
    if config.num_members == 1:
        return job
    steps = 1 + num_optimizer_steps(
        len(rows.train), num_epochs=config.num_epochs, batch_size=config.batch_size, max_steps=config.max_steps
    )
    folders = job.work.path / "members"
    run = _MemberRun(
        job.run,
        first=number * steps,
        total=config.num_members * steps,
        is_over=(folders / str(number + 1)).exists(),
    )
    work = WorkFolder(folders / str(number))
    dtype = job.work.recall("dtype")
    if dtype is not None:  # what `auto` came to for the first member holds for all
        work.remember("dtype", dtype)
    return replace(job, run=cast("Run", run), work=work)
