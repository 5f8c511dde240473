"""Multirun: every job is a process of its own, with its own folder, exit status and no state left by the one before."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

from pipeline.commands.composing import flags_in
from pipeline.config.shared import TrackingConfig
from pipeline.tracking.server import DECISION_VARIABLE, decide

if TYPE_CHECKING:
    from omegaconf import DictConfig

JOB_NUMBER = "PIPELINE_JOB_NUMBER"
SWEEP = "PIPELINE_SWEEP"


def run_child(command: str, composed: DictConfig, job: Any, arguments: list[str]) -> int:
    """Run one job of a sweep as a subprocess and return its exit status.

    Args:
        command: ``train`` or ``plan``.
        composed: The job's configuration.
        job: Hydra's own section of the composed configuration.
        arguments: What the sweep was started with; its flags are passed on, its overrides replaced by the job's.
    """
    overrides = list(job.overrides.task)
    print(f"\n#{job.job.num}: {' '.join(overrides)}", flush=True)
    if command == "train" and DECISION_VARIABLE not in os.environ:  # asked once, for all jobs
        os.environ[DECISION_VARIABLE] = decide(_tracking(composed))[0].value
    environment = {**os.environ, JOB_NUMBER: str(job.job.num), SWEEP: os.path.basename(job.sweep.dir)}
    flags = [flag for flag in flags_in(arguments) if flag not in {"-m", "--multirun"}]
    child = [sys.executable, "-m", "pipeline", command, *flags, *overrides]
    return subprocess.run(child, env=environment, check=False).returncode


def _tracking(composed: DictConfig) -> TrackingConfig:
    from omegaconf import OmegaConf

    return cast("TrackingConfig", OmegaConf.to_object(composed.tracking))


def failed_table(statuses: list[int]) -> str:
    """Return one line per job that failed, and how many did not."""
    lines = [f"  job {number}: exit status {status}" for number, status in enumerate(statuses) if status]
    return "\n".join([f"{len(lines)} of {len(statuses)} jobs failed:", *lines])
