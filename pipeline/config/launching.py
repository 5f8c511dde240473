"""How the trials of a sweep are started, and what a submitted one asks its scheduler for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pipeline.config.fields import option

if TYPE_CHECKING:
    from pipeline.config.sweep import SweepConfig


class Launcher(StrEnum):
    """What starts the trials of a sweep."""

    process = "process"  # of this machine, children of the sweep
    submitit_local = "submitit_local"  # jobs of this machine, which outlive the sweep
    submitit_slurm = "submitit_slurm"  # jobs of Slurm


@dataclass(kw_only=True)
class SubmititConfig:
    """What a job asks for; the names and defaults of hydra-submitit-launcher 1.2.0."""

    timeout_min: int = option(60, ge=1, affects_results=False)  # minutes
    cpus_per_task: int | None = option(None, ge=1, affects_results=False)
    gpus_per_node: int | None = option(None, ge=0, affects_results=False)
    mem_gb: float | None = option(None, gt=0, affects_results=False)  # GB, of the job
    mem_per_cpu: str | None = option(None, affects_results=False)  # as sbatch writes it, such as 4GB
    mem_per_gpu: str | None = option(None, affects_results=False)
    partition: str | None = option(None, affects_results=False)
    qos: str | None = option(None, affects_results=False)
    account: str | None = option(None, affects_results=False)
    constraint: str | None = option(None, affects_results=False)
    exclude: str | None = option(None, affects_results=False)  # nodes
    gres: str | None = option(None, affects_results=False)
    comment: str | None = option(None, affects_results=False)
    signal_delay_s: int = option(120, ge=1, affects_results=False)  # seconds before its end that a trial has to save
    max_num_timeout: int = option(0, ge=0, affects_results=False)  # times that a job out of time is queued again
    # Options of sbatch that have no key here, such as {mail-type: END}.
    additional_parameters: dict[str, Any] = option(factory=dict, affects_results=False)
    setup: list[str] = option(factory=list, affects_results=False)  # lines of the batch script before the trial


OF_LOCAL_JOBS = frozenset({"timeout_min", "signal_delay_s", "max_num_timeout"})  # nothing enforces the others
# Options of sbatch that say what a trial is: one process of one job, which hears of its end.
OWN_OPTIONS = frozenset({"array", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "output", "signal"})
SCHEDULERS = frozenset({"srun", "sbatch", "salloc"})


def set_keys(resources: SubmititConfig) -> list[str]:
    """Return the keys that differ from their defaults."""
    found = []
    for entry in fields(resources):
        default = entry.default_factory() if entry.default_factory is not NO_DEFAULT else entry.default
        if getattr(resources, entry.name) != default:
            found.append(entry.name)
    return found


def launcher_problems(sweep: SweepConfig) -> Iterator[str]:
    """Yield what is wrong with how trials are started, one line each that begins with the key."""
    launcher, resources = sweep.launcher, sweep.submitit
    keys = set_keys(resources)
    if launcher is Launcher.process:
        for key in keys:
            yield f"sweep.submitit.{key}: sweep.launcher=process submits no job. Set sweep.launcher=submitit_slurm."
        return
    if launcher is Launcher.submitit_local:
        for key in [key for key in keys if key not in OF_LOCAL_JOBS]:
            yield (
                f"sweep.submitit.{key}: a job of submitit_local is a process of this machine, and nothing is reserved "
                f"for it. It takes {', '.join(sorted(OF_LOCAL_JOBS))}."
            )
    if resources.signal_delay_s >= 60 * resources.timeout_min:
        yield (
            f"sweep.submitit.signal_delay_s={resources.signal_delay_s}: is no less than the whole time, "
            f"sweep.submitit.timeout_min={resources.timeout_min} minutes. A trial would be stopped at once: set it "
            "lower."
        )
    if sweep.wandb_file is not None:
        yield (
            f"sweep.launcher={launcher}: with sweep.wandb_file the trials are W&B's, whose agent starts them where it "
            "runs. Leave the launcher away and submit the agents."
        )
    yield from _slurm_problems(sweep)


def _slurm_problems(sweep: SweepConfig) -> Iterator[str]:
    resources = sweep.submitit
    if sweep.launch and PurePath(sweep.launch[0]).name in SCHEDULERS:
        yield (
            f"sweep.launch: `{sweep.launch[0]}` would ask a scheduler from within a job of sweep.launcher="
            f"{sweep.launcher}. Use one of the two; the words of sweep.launch run inside the job."
        )
    for name in resources.additional_parameters:
        option_name = name.replace("_", "-")
        if option_name in OWN_OPTIONS:
            hint = " Set sweep.submitit.signal_delay_s." if option_name == "signal" else ""
            yield f"sweep.submitit.additional_parameters.{name}: is set by the sweep: a trial is one process.{hint}"
    for key, value in _texts(resources):
        if "\n" in value:  # it would be a command of the batch script
            yield f"sweep.submitit.{key}: holds a line break. An option of sbatch is one line."


def _texts(resources: SubmititConfig) -> Iterator[tuple[str, str]]:
    for entry in fields(resources):
        value = getattr(resources, entry.name)
        if isinstance(value, str):
            yield entry.name, value
    for name, value in resources.additional_parameters.items():
        yield f"additional_parameters.{name}", f"{name}{value}"
