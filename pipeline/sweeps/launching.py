"""What starts the trials of a sweep: this process, or submitit, which writes a batch job for each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.config.launching import Launcher
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError
from pipeline.sweeps.children import DEVICES, Child, RunningTrial, child_variables
from pipeline.sweeps.queues import queue_of
from pipeline.sweeps.record import Trial
from pipeline.sweeps.submitted import SubmittedTrial
from pipeline.sweeps.trial_job import TrialJob

if TYPE_CHECKING:
    import submitit

JOBS = "jobs"  # folder of the sweep, a folder per trial: submitit's files and how the jobs ended
CONFIGURATION = "SLURM_CONF"


class TrialLauncher(Protocol):
    """What a sweep starts its trials with."""

    def start(self, trial: Trial, command: Sequence[str], decided: Mapping[str, str], slot: int) -> RunningTrial:
        """Start a trial.

        Args:
            trial: Its record, which also holds the job from before the job is submitted.
            command: Its words.
            decided: What the sweep decided for all of its trials, as variables of the environment.
            slot: Which of the places for trials that run at the same time it takes.
        """


class Processes:
    """Trials are children of the sweep."""

    def __init__(self, config: SweepConfig, folder: Path) -> None:
        """Take the sweep's configuration and folder."""
        self._config, self._folder = config, folder

    def start(self, trial: Trial, command: Sequence[str], decided: Mapping[str, str], slot: int) -> RunningTrial:
        """Start a process."""
        slots = self._config.parallel
        variables = child_variables(self._folder.name, trial.folder, decided, slot=slot, slots=slots)
        log = self._folder / f"{trial.number}.log"
        return Child(command, {**os.environ, **variables}, log, quiet=slots > 1, slot=slot)


class Jobs:
    """Trials are jobs of their own, each started by submitit."""

    def __init__(self, config: SweepConfig, folder: Path, save: Callable[[], None]) -> None:
        """Take the sweep's configuration and folder, and what saves its record."""
        self._config, self._folder, self._save = config, folder.absolute(), save
        self._queue = queue_of(config.launcher)

    def start(self, trial: Trial, command: Sequence[str], decided: Mapping[str, str], slot: int) -> RunningTrial:
        """Submit a job.

        Raises:
            ConfigError: The scheduler refuses it.
        """
        config, scheduled = self._config, self._config.launcher is Launcher.submitit_slurm
        folder = self._folder / JOBS / str(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        # Known before there is a job, so that one whose sweep is killed in between is found.
        ended = folder / f"{uuid.uuid4().hex[:8]}_ended.json"
        trial.job = {
            "launcher": str(config.launcher), "host": socket.gethostname(), "folder": str(folder), "id": "",
            "ended": ended.name,
        }  # fmt: skip
        self._save()
        variables: dict[str, str | None] = dict(
            child_variables(self._folder.name, trial.folder, decided, slot=slot, slots=config.parallel)
        )
        if scheduled:
            variables.pop(DEVICES, None)  # the scheduler's
        else:
            variables.setdefault(DEVICES, os.environ.get(DEVICES))  # submitit would hide every GPU
        work = TrialJob(
            command, variables, log=self._folder / f"{trial.number}.log", ended=ended,
            seconds_to_save=0.8 * config.submitit.signal_delay_s, scheduled=scheduled,
        )  # fmt: skip
        handle = self._submit(work, folder, trial.folder)
        trial.job["id"] = handle.job_id
        self._save()
        return SubmittedTrial(trial, self._queue, slot=slot, handle=handle)

    def _submit(self, work: TrialJob, folder: Path, name: str) -> submitit.Job[None]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        resources = self._config.submitit
        if self._config.launcher is Launcher.submitit_local:
            local = submitit.LocalExecutor(folder, max_num_timeout=resources.max_num_timeout)
            local.update_parameters(timeout_min=resources.timeout_min, signal_delay_s=resources.signal_delay_s)
            with _deaf_to_the_terminal():
                return local.submit(work)
        slurm = submitit.SlurmExecutor(folder, max_num_timeout=resources.max_num_timeout)
        slurm.update_parameters(job_name=name, **slurm_parameters(self._config))
        try:
            with _outside_of_a_job():
                return slurm.submit(work)
        except (FailedJobError, FailedSubmissionError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(
                f"sweep.submitit: Slurm refuses the job of trial {work.ended.parent.name}: {text}"
            ) from error


def launcher_for(config: SweepConfig, folder: Path, save: Callable[[], None]) -> TrialLauncher:
    """Return what starts the trials of a sweep."""
    return Processes(config, folder) if config.launcher is Launcher.process else Jobs(config, folder, save)


def require_launcher(config: SweepConfig) -> None:
    """Raise where what starts the trials is not to be had here.

    Raises:
        ConfigError: submitit or Slurm's commands are missing.
    """
    if config.launcher is Launcher.process:
        return
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError(f"sweep.launcher={config.launcher}: it needs submitit: pip install -e .[submitit]")
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if config.launcher is Launcher.submitit_slurm and missing:
        raise ConfigError(
            f"sweep.launcher={config.launcher}: {', '.join(missing)} is not on the search path. Run the sweep where "
            "jobs are submitted to Slurm, or set sweep.launcher=submitit_local."
        )


def described(config: SweepConfig) -> str:
    """Say how the trials are started."""
    kinds = {
        Launcher.process: "processes of this machine",
        Launcher.submitit_local: "jobs of this machine, by submitit",
        Launcher.submitit_slurm: "jobs of Slurm, by submitit",
    }
    return f"{kinds[config.launcher]}; {config.parallel} at a time (sweep.parallel)"


def slurm_parameters(config: SweepConfig) -> dict[str, Any]:
    """Return the resources as submitit's Slurm executor takes them."""
    asked = config.submitit
    parameters: dict[str, Any] = {
        "time": asked.timeout_min, "cpus_per_task": asked.cpus_per_task, "gpus_per_node": asked.gpus_per_node,
        "mem": None if asked.mem_gb is None else f"{round(1024 * asked.mem_gb)}MB", "mem_per_cpu": asked.mem_per_cpu,
        "mem_per_gpu": asked.mem_per_gpu, "partition": asked.partition, "qos": asked.qos, "account": asked.account,
        "constraint": asked.constraint, "exclude": asked.exclude, "gres": asked.gres, "comment": asked.comment,
        "signal_delay_s": asked.signal_delay_s, "additional_parameters": asked.additional_parameters or None,
        "setup": asked.setup or None, "nodes": 1, "ntasks_per_node": 1,
        # Since Slurm 22.05 srun does not take over what sbatch was asked for.
        "srun_args": None if asked.cpus_per_task is None else [f"--cpus-per-task={asked.cpus_per_task}"],
    }  # fmt: skip
    return {name: value for name, value in parameters.items() if value is not None}


@contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hide what a job says of itself, so that a sweep that is one can submit others; Slurm's configuration stays."""
    from submitit.helpers import clean_env

    kept = os.environ.get(CONFIGURATION)
    with clean_env():
        if kept is not None:
            os.environ[CONFIGURATION] = kept
        yield


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Start processes that a terminal's Ctrl-C does not reach; one that comes meanwhile is heard afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
