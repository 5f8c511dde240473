"""A saved view of a project in W&B's own pages that shows one sweep: what was varied against what came of it.

The definition is that of W&B's package `wandb-workspaces` (extra `workspaces`). It is made and sent in a process of its
own, as everything of the client is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import ConfigError, TrackingError
from pipeline.tracking.mirror import client_environment
from pipeline.tracking.mirrored import CLIENT_FOLDER, SPEC_SUFFIX, MirroredRun
from pipeline.tracking.redaction import Redactor
from pipeline.tracking.server import find_account, probe

SAVE_SECONDS = 60.0
SERVER_SECONDS = 10.0  # for the first answer


@dataclass(frozen=True, kw_only=True)
class SweepView:
    """What a workspace of a sweep shows."""

    name: str  # of the sweep
    group: str  # of its runs
    project: str
    entity: str | None  # None is the account's own
    parameters: dict[str, bool]  # key of the configuration -> whether it is searched by its logarithm
    objectives: list[dict[str, str]]  # {name, direction}; the name is that of the metric in W&B


def sweep_view(
    name: str, folders: Sequence[Path], parameters: Mapping[str, bool], objectives: Sequence[Mapping[str, str]]
) -> SweepView:
    """Return the view of a sweep whose runs are mirrored to one project.

    Args:
        name: The sweep's name, by which the view goes.
        folders: The run folders of its trials.
        parameters: What was varied, and whether by its logarithm.
        objectives: Name, as a sweep records it, and direction.

    Raises:
        TrackingError: None of the trials is mirrored.
    """
    for folder in folders:
        for path in sorted((folder / CLIENT_FOLDER).glob(f"*{SPEC_SUFFIX}")):
            run = MirroredRun.load(path)
            told = [{"name": metric_key(entry["name"]), "direction": entry["direction"]} for entry in objectives]
            return SweepView(
                name=name, group=run.group, project=run.project, entity=run.entity, parameters=dict(parameters),
                objectives=told,
            )  # fmt: skip
    raise TrackingError(
        f"No trial of {name} is mirrored to W&B, so that a workspace would be empty. Run the sweep with "
        "tracking=online or tracking=offline; `runs sync` delivers the latter."
    )


def metric_key(objective: str) -> str:
    """Return the name of an objective in W&B: a stage's metric stands in its run, a report's by its whole name."""
    stage, _, metric = objective.partition("/")
    return objective if "/" in metric else metric or stage


def save_workspace(view: SweepView, folder: Path) -> str:
    """Save the view on the server and return where it is.

    Args:
        view: What it shows.
        folder: Where the client may leave what it needs.

    Raises:
        ConfigError: The extra is not installed.
        TrackingError: The server cannot be used, or does not take it.
    """
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("A workspace needs the extra `workspaces`: pip install 'finetune-pipeline[workspaces]'.")
    account = find_account()
    if not account.api_key:
        raise TrackingError(f"No API key for {account.base_url}. Set WANDB_API_KEY, or log in with `wandb login`.")
    if problem := probe(account, SERVER_SECONDS):
        raise TrackingError(f"The workspace was not saved: {problem}.")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.tracking.workspace_process"], input=json.dumps(asdict(view)),
            capture_output=True, text=True, timeout=SAVE_SECONDS, check=False, env=client_environment(folder, account),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TrackingError(f"The workspace was not saved: no answer within {SAVE_SECONDS:.0f} s.") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise TrackingError(f"The workspace was not saved: {Redactor().text(reason)}")
    return done.stdout.strip()
