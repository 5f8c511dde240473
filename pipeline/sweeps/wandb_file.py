"""The same space as a file for `wandb sweep`, so that W&B's own agents can run the trials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.durable import write_durably
from pipeline.config.root import Config
from pipeline.config.space import Axis
from pipeline.config.sweep import Pruner, SweepMethod
from pipeline.errors import ConfigError
from pipeline.tracking.trial import OBJECTIVE

OWN = re.compile(r"\+*sweep\.wandb_file=")  # is about this file and not about a trial
METHODS = {SweepMethod.grid: "grid", SweepMethod.random: "random", SweepMethod.tpe: "bayes"}


def write_wandb_file(config: Config, axes: Sequence[Axis], words: Sequence[str]) -> int:
    """Write `sweep.wandb_file` and say what to do with it.

    Args:
        config: Names the file, the method and the objective.
        axes: What varies.
        words: The command of one trial without its values; its first word is the interpreter.

    Raises:
        ConfigError: W&B cannot do what the sweep asks for.
    """
    path = Path(config.sweep.wandb_file or "")
    if len(config.objective) > 1:
        raise ConfigError("sweep.wandb_file: W&B searches for one objective. Name one.")
    if config.sweep.pruner is not Pruner.none:
        raise ConfigError(
            "sweep.wandb_file: trials report their result to W&B, not their course. Set sweep.pruner=none."
        )
    content: dict[str, Any] = {
        "project": config.tracking.project,
        "name": config.name,
        "method": METHODS[config.sweep.method],
        "parameters": {axis.key: parameter(axis) for axis in axes},
        # `args_no_hyphens` is Hydra's form: key=value.
        "command": [
            "${env}",
            "${interpreter}",
            *(word for word in words[1:] if not OWN.match(word)),
            "${args_no_hyphens}",
        ],
    }
    if config.objective:
        objective = config.objective[0]
        content["metric"] = {"name": OBJECTIVE, "goal": str(objective.direction)}
    if config.sweep.method is not SweepMethod.grid:
        content["run_cap"] = config.sweep.trials
    write_durably(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    print(
        f"wrote {path}. Register it with `wandb sweep {path}`; run what that prints on every machine that takes part."
    )
    return 0


def parameter(axis: Axis) -> dict[str, Any]:
    """Return an axis as a sweep file describes it."""
    described = axis.described()
    if axis.choices:
        # The agent writes a value as Python does, and Hydra reads numbers so; everything else stays as it was written.
        pairs = zip(described["choices"], axis.choices, strict=True)
        return {"values": [value if isinstance(value, int | float) else text for value, text in pairs]}
    # The distributions that take the bounds themselves, not their logarithms.
    names = {
        (False, False): "uniform", (True, False): "log_uniform_values",
        (False, True): "int_uniform", (True, True): "q_log_uniform_values",
    }  # fmt: skip
    return {"distribution": names[axis.log, axis.integer], "min": described["low"], "max": described["high"]}
