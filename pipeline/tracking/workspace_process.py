"""The process that saves a workspace: a `SweepView` as JSON on standard input, its address on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pipeline.tracking.workspace import SweepView

# What most stages that train have; a plot without rows is hidden.
COURSES = ("loss", "validation_loss", "reward", "kl")


def workspace(view: SweepView, entity: str) -> Any:
    """Return the workspace in W&B's own form."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces.expr import Metric

    shown: list[Any] = []
    axes = [
        panels.ParallelCoordinatesPlotColumn(metric=panels.Config(key), display_name=key, log=is_log or None)
        for key, is_log in view.parameters.items()
    ]
    for objective in view.objectives:
        name = objective["name"]
        result = panels.ParallelCoordinatesPlotColumn(
            metric=panels.SummaryMetric(name), inverted=objective["direction"] == "minimize" or None
        )
        shown.append(panels.ParallelCoordinatesPlot(title=name, columns=[*axes, result]))
        shown.append(panels.ParameterImportancePlot(with_respect_to=name))
        shown += [
            panels.ScatterPlot(
                title=f"{name} by {key}", x=panels.Config(key), y=panels.SummaryMetric(name), log_x=is_log or None
            )
            for key, is_log in view.parameters.items()
        ]
    courses = dict.fromkeys([*(entry["name"] for entry in view.objectives), *COURSES])
    return workspaces.Workspace(
        entity=entity,
        project=view.project,
        name=view.name,
        sections=[
            workspaces.Section(name="What was varied, and what came of it", panels=shown, is_open=True),
            workspaces.Section(name="Courses", panels=[panels.LinePlot(title=key, y=[key]) for key in courses]),
        ],
        runset_settings=workspaces.RunsetSettings(filters=[Metric("Group") == view.group]),
    )


def main() -> None:
    """Keep standard output for the answer alone: what the client prints goes where errors go."""
    import wandb

    answers = os.dup(1)
    os.dup2(2, 1)
    view = SweepView(**json.load(sys.stdin))
    saved = workspace(view, view.entity or str(wandb.Api().default_entity)).save()
    with os.fdopen(answers, "w") as out:
        out.write(saved.url)


if __name__ == "__main__":
    main()
