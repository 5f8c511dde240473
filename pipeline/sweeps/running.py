"""The loop of a sweep: start trials, watch them, stop those that are not worth their end, and keep the record true."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM

from pipeline.config.space import Axis, parsed
from pipeline.config.sweep import SweepConfig, objective_place
from pipeline.errors import GateFailedError, GateUndecidedError
from pipeline.graph.run_folder import read_objective
from pipeline.runtime.signals import StopRequest
from pipeline.sweeps.children import RunningTrial, child_command, intermediate_values
from pipeline.sweeps.launching import TrialLauncher
from pipeline.sweeps.record import OVER, SweepRecord, Trial, TrialStatus
from pipeline.sweeps.search import Search
from pipeline.sweeps.submitted import earlier_job
from pipeline.tracking.mirrored import any_offline
from pipeline.tracking.server import DECISION_VARIABLE, Decision

POLL_SECONDS = 0.1
WATCH_SECONDS = 1.0  # between two looks at what the children have recorded
WITH_A_RESULT = (0, GateFailedError.exit_status, GateUndecidedError.exit_status)


@dataclass(frozen=True, kw_only=True)
class Started:
    """What every trial of a sweep is started with."""

    command: str  # of the pipeline
    flags: Sequence[str]
    overrides: Sequence[str]  # those that do not vary
    environment: Mapping[str, str]  # what the sweep decided for all of them


@dataclass(kw_only=True)
class Sweep:
    """Runs the trials of one record."""

    record: SweepRecord
    config: SweepConfig
    axes: Sequence[Axis]
    search: Search | None  # None is a grid
    started: Started
    launcher: TrialLauncher
    watched: tuple[str, str] | None  # stage and metric whose course is followed
    say: Callable[[str], None] = print
    _children: dict[int, RunningTrial] = field(default_factory=dict)  # by the trial's number
    _pruned: set[int] = field(default_factory=set)
    _looked: float = 0.0
    _decided: dict[str, str] = field(default_factory=dict)  # the environment of the trials to come

    def __post_init__(self) -> None:
        """Take over what was decided for all trials, which may change on the way."""
        self._decided = dict(self.started.environment)

    def run(self) -> StopRequest:
        """Run every trial that is not over; return whether a signal ended it early."""
        self._take_up()
        with StopRequest() as stop:
            try:
                self._loop(stop)
            finally:  # whatever goes wrong here, no child is left behind without its sweep
                for child in self._children.values():
                    child.stop(SIGTERM)
            self.record.status = self._status(stopped=stop.signal_number is not None)
            self.record.save()
        return stop

    def _loop(self, stop: StopRequest) -> None:
        told = False
        while True:
            while stop.signal_number is None and len(self._children) < self.config.parallel:
                trial = self._next()
                if trial is None:
                    break
                self._start(trial)
            if not self._children:
                return
            if stop.signal_number is not None and not told:
                told = True
                self.say(f"stopping {len(self._children)} trial(s); what they have made is kept")
                for child in self._children.values():
                    child.stop(stop.signal_number)
            time.sleep(POLL_SECONDS)
            self._watch()
            self._settle(stop)

    def _take_up(self) -> None:
        """Put trials of an earlier attempt that did not end well back in the queue, and make those of a grid."""
        if self.search:
            self.search.take_up(self.record.trials)
        for trial in self.record.trials:
            if trial.status is TrialStatus.running and (job := earlier_job(trial, self._free_slot())) is not None:
                self._children[trial.number] = job
                self.say(f"#{trial.number} goes on in its job {job.job['id']}")
            elif trial.status not in OVER:
                trial.status, trial.exit_status, trial.reason = TrialStatus.waiting, None, ""
        if not self.search and not self.record.trials:
            for texts in itertools.product(*(axis.choices for axis in self.axes)):
                self._add({axis.key: text for axis, text in zip(self.axes, texts, strict=True)})
        self.record.status = "running"
        self.record.save()

    def _add(self, texts: Mapping[str, str]) -> Trial:
        number = len(self.record.trials)
        trial = Trial(
            number=number, folder=f"{self.record.name}_{number}",
            params={axis.name: parsed(texts[axis.key]) for axis in self.axes},
            overrides=[f"{key}={text}" for key, text in texts.items()],
        )  # fmt: skip
        self.record.trials.append(trial)
        return trial

    def _next(self) -> Trial | None:
        waiting = next((trial for trial in self.record.trials if trial.status is TrialStatus.waiting), None)
        if waiting is not None or not self.search:
            return waiting
        proposed = self.search.propose(len(self.record.trials))
        if proposed is None:
            return None
        study_number, texts = proposed
        trial = self._add(texts)
        trial.study_number = study_number
        return trial

    def _start(self, trial: Trial) -> None:
        self.say(f"\n#{trial.number}: {' '.join(trial.overrides)}")
        trial.status, trial.started = TrialStatus.running, datetime.now(UTC).isoformat(timespec="seconds")
        trial.job = None
        self.record.save()
        overrides = [*self.started.overrides, *trial.overrides]
        command = child_command(self.config.launch, self.started.command, self.started.flags, overrides)
        child = self.launcher.start(trial, command, self._decided, self._free_slot())
        self._children[trial.number] = child
        if child.job is not None:
            log = self.record.path / f"{trial.number}.log"
            self.say(f"#{trial.number} is the job {child.job['id']}, which writes to {log}")

    def _free_slot(self) -> int:
        taken = {child.slot for child in self._children.values()}
        return next(number for number in itertools.count() if number not in taken)

    def _folder(self, trial: Trial) -> Path:
        return self.record.path.with_name(trial.folder)

    def _watch(self) -> None:
        """Take in what the children have recorded since the last look, and stop those that are not worth their end."""
        if self.watched is None or time.monotonic() - self._looked < WATCH_SECONDS:
            return
        self._looked = time.monotonic()
        for number, child in self._children.items():
            trial = self.record.trials[number]
            if not self._look(trial) or number in self._pruned or child.poll() is not None:
                continue
            self.record.save()
            if self.search and self.search.should_prune(trial):
                self._pruned.add(number)
                step, value = trial.intermediate[-1]
                self.say(f"#{number} pruned: {self.watched[1]} {value:.6g} at step {step} is worse than the median")
                child.stop(SIGTERM)

    def _look(self, trial: Trial) -> bool:
        """Return whether the trial's record has grown."""
        if self.watched is None:
            return False
        values = intermediate_values(self._folder(trial), *self.watched)
        if not values or values == trial.intermediate:
            return False
        trial.intermediate = values
        return True

    def _settle(self, stop: StopRequest) -> None:
        """Note the end of every child that has ended."""
        for number, child in list(self._children.items()):
            status = child.poll()
            if status is None:
                continue
            trial, reason = self.record.trials[number], child.close()
            del self._children[number]
            self._look(trial)
            self._heed_the_server(trial)
            trial.exit_status, trial.seconds = status, round(trial.seconds + child.seconds, 2)
            trial.status, trial.reason = self._outcome(trial, status, reason, stopped=stop.signal_number is not None)
            self.record.save()  # before the study hears of it, which may be out of reach
            if self.search and trial.status is not TrialStatus.stopped:
                self.search.tell(trial)
            objectives = "  ".join(f"{value:.6g}" for value in trial.objectives or [])
            self.say(f"#{number} {trial.status} in {child.seconds:.0f} s  {objectives or trial.reason}".rstrip())

    def _heed_the_server(self, trial: Trial) -> None:
        """Start the trials after one that gave up on the tracking server offline; each would wait for it anew."""
        if self._decided.get(DECISION_VARIABLE) != Decision.online or trial.started is None:
            return
        if any_offline(self._folder(trial), datetime.fromisoformat(trial.started).timestamp()):
            self._decided[DECISION_VARIABLE] = Decision.offline.value
            self.say("W&B: offline for the trials that follow; `python -m pipeline runs sync` delivers them later")

    def _outcome(self, trial: Trial, status: int, reason: str, *, stopped: bool) -> tuple[TrialStatus, str]:
        asked_to_stop = status > 128  # by the signal, or killed at once by a launcher that was told to end
        if asked_to_stop and trial.number in self._pruned:
            return TrialStatus.pruned, ""
        if asked_to_stop and stopped:
            return TrialStatus.stopped, ""
        if status not in WITH_A_RESULT:
            return TrialStatus.failed, reason or f"exit status {status}"
        values = read_objective(self._folder(trial)) if self.record.objectives else []
        if values is None:
            return TrialStatus.failed, "it ended without the objective"
        if odd := [entry for entry in values if not math.isfinite(entry["value"])]:  # no order holds it, nor a search
            return TrialStatus.failed, f"its objective {odd[0]['name']} is {odd[0]['value']}"
        trial.objectives = [float(entry["value"]) for entry in values] or None
        if values:
            self.record.objectives = [{"name": entry["name"], "direction": entry["direction"]} for entry in values]
        return TrialStatus.finished, reason if status else ""

    def _status(self, *, stopped: bool) -> str:
        if stopped:
            return "stopped"
        return "failed" if any(trial.status is TrialStatus.failed for trial in self.record.trials) else "complete"


def watched_metric(metrics: Sequence[str], stages: Sequence[str]) -> tuple[str, str] | None:
    """Return stage and name of the first objective where training records it; None where only the report has it."""
    if not metrics:
        return None
    stage, metric = objective_place(metrics[0], list(stages))
    return (stage, metric) if stage else None
