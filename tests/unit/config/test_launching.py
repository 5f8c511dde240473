"""What a sweep's launcher and the resources of its jobs may be set to."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.launching import Launcher, SubmititConfig, launcher_problems, set_keys
from pipeline.config.sweep import SweepConfig

SLURM, LOCAL = Launcher.submitit_slurm, Launcher.submitit_local


def problems(launcher: Launcher, resources: dict[str, Any] | None = None, **sweep: Any) -> list[str]:
    return list(
        launcher_problems(SweepConfig(launcher=launcher, submitit=SubmititConfig(**(resources or {})), **sweep))
    )


@pytest.mark.parametrize(
    ("launcher", "resources", "told"),
    [
        (Launcher.process, {"partition": "gpu"}, "sweep.submitit.partition: sweep.launcher=process submits no job"),
        (Launcher.process, {"setup": ["module load cuda"]}, "sweep.submitit.setup: sweep.launcher=process"),
        (LOCAL, {"gpus_per_node": 1}, "sweep.submitit.gpus_per_node: a job of submitit_local is a process"),
        (SLURM, {"timeout_min": 2}, "sweep.submitit.signal_delay_s=120: is no less than the whole time"),
        (SLURM, {"additional_parameters": {"job_name": "x"}}, "additional_parameters.job_name: is set by the sweep"),
        (SLURM, {"additional_parameters": {"signal": "TERM@9"}}, "Set sweep.submitit.signal_delay_s."),
        (SLURM, {"partition": "gpu\nrm -r /"}, "sweep.submitit.partition: holds a line break"),
        (SLURM, {"additional_parameters": {"nice": "1\nls"}}, "additional_parameters.nice: holds a line break"),
        (SLURM, {"additional_parameters": {"nice\nls": 1}}, "holds a line break"),
    ],
)
def test_what_would_have_no_effect_or_another_is_told(launcher: Launcher, resources: dict[str, Any], told: str) -> None:
    (problem,) = problems(launcher, resources)
    assert told in problem


def test_two_schedulers_and_trials_that_another_starts_are_told() -> None:
    assert "sweep.launch: `/usr/bin/srun` would ask a scheduler" in problems(SLURM, launch=["/usr/bin/srun", "-n1"])[0]
    assert "sweep.wandb_file" in problems(LOCAL, wandb_file="sweep.yaml")[0]
    assert problems(Launcher.process, launch=["srun", "--gpus=1"]) == []
    assert problems(SLURM, launch=["taskset", "-c", "0"]) == []


def test_what_makes_sense_is_not_told() -> None:
    everything = {"partition": "gpu", "mem_gb": 8.0, "gpus_per_node": 1, "additional_parameters": {"mail-type": "END"}}
    assert problems(SLURM, everything) == []
    assert problems(LOCAL, {"timeout_min": 5, "max_num_timeout": 2}) == []
    assert problems(Launcher.process) == []
    assert set_keys(SubmititConfig(timeout_min=60, setup=[], qos="long")) == ["qos"]
