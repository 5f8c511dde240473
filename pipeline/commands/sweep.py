"""Multirun: every trial is a process of its own, with its own folder and exit status; none sees the one before."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.hashing import sha256_json
from pipeline.artifacts.locks import exclusive_lock, is_locked
from pipeline.commands.composing import check_overrides, compose, config_groups, flags_in, overrides_in
from pipeline.commands.launchers import canonical
from pipeline.commands.runs import print_table
from pipeline.config.composition import Composed, load
from pipeline.config.launching import Launcher
from pipeline.config.space import Axis, axes_and_rest, require_method, space_axes
from pipeline.config.sweep import SweepConfig, SweepMethod
from pipeline.errors import ArtifactError, ConfigError
from pipeline.graph.run_folder import RunFolder
from pipeline.graph.wiring import nodes_for
from pipeline.sweeps.children import child_command
from pipeline.sweeps.launching import described, launcher_for, require_launcher
from pipeline.sweeps.record import SweepRecord, TrialStatus, best_first, pareto_front, read_sweep, recorded_sweeps
from pipeline.sweeps.running import Started, Sweep, watched_metric
from pipeline.sweeps.search import Search
from pipeline.tracking.progress import duration
from pipeline.tracking.redaction import find_secrets, redact
from pipeline.tracking.server import DECISION_VARIABLE, decide

if TYPE_CHECKING:
    from omegaconf import DictConfig

LOCK = "sweep.lock"
MULTIRUN = frozenset({"-m", "--multirun"})
# Of the configuration: who runs the sweep, how far and where, without being another sweep.
NOT_IDENTITY = ("sweep", "tracking", "runtime")
SEARCH_IDENTITY = ("method", "seed", "startup_trials", "pruner", "pruner_warmup")


def sweep(command: str, arguments: list[str]) -> int:
    """Run ``train`` or ``plan`` once per combination of values and return the exit status of the whole.

    Raises:
        ConfigError: The space, the objective or the method is wrong. What is wrong with one combination alone is told
            by its own trial.
        Interrupted: A signal stopped the sweep.
    """
    typed, arguments = arguments, canonical(arguments)
    check_overrides(arguments)
    flags = [flag for flag in flags_in(arguments) if flag not in MULTIRUN]
    axes, fixed = axes_and_rest(overrides_in(arguments), config_groups(arguments))
    composed = combination(command, [*flags, *fixed, *(f"{axis.key}={axis.first}" for axis in axes)])
    if composed is None:  # a flag such as --cfg answered by itself
        return 0
    try:
        other = combination(command, [*fixed, *(f"{axis.key}={axis.last}" for axis in axes)])
    except ConfigError:  # of its own values, which its trial tells
        other = None
    axes = joined_axes(axes, fixed, composed, problems_of(other or composed), arguments)
    if composed.config.sweep.wandb_file is not None:
        from pipeline.sweeps.wandb_file import write_wandb_file

        return write_wandb_file(composed.config, axes, child_command([], command, flags, fixed))
    if command == "plan":
        if composed.config.sweep.launcher is not Launcher.process:
            print("plans are made here, one after the other: nothing is submitted")
        return plan_each(axes, command, flags, fixed)
    again = redact(shlex.join(["python", "-m", "pipeline", command, *typed]))
    return train_each(composed, axes, flags, fixed, again)


def combination(command: str, words: Sequence[str]) -> Composed | None:
    """Compose one combination of the values; None where a flag among the words was answered instead.

    Raises:
        ConfigError: It does not compose.
    """
    composed: list[Composed] = []

    def take(config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        sources = HydraConfig.get().runtime.config_sources
        composed.append(load(config, [Path(source.path) for source in sources if source.schema == "file"]))

    compose(command, list(words), take)
    return composed[0] if composed else None


def problems_of(composed: Composed) -> list[str]:
    """Return everything that is wrong with one combination."""
    _, wired = nodes_for(
        composed.config, composed.suites, composed.tables, judges=composed.judges, endpoints=composed.endpoints
    )
    return [*composed.problems, *wired]


def joined_axes(
    axes: list[Axis], fixed: Sequence[str], composed: Composed, others: Collection[str], arguments: Sequence[str]
) -> list[Axis]:
    """Return the axes of the command line and those of `sweep.space` that it leaves open.

    Args:
        axes: Of the command line.
        fixed: Overrides that do not vary.
        composed: The first combination.
        others: What is wrong with the last one. What is wrong with both is wrong with the sweep.
        arguments: The command line.

    Raises:
        ConfigError: One report of what is wrong with the sweep.
    """
    from pipeline.config.root import Config
    from pipeline.config.suggestions import unknown_key

    config = composed.config
    named = {axis.name for axis in axes} | {text.lstrip("+~").partition("=")[0] for text in fixed}
    space = {key: values for key, values in config.sweep.space.items() if key not in named}
    found, problems = space_axes(space, composed.resolved, {axis.name for axis in axes})
    problems += [f"sweep.space.{key}: {text}" for key in space if (text := unknown_key(key, Config))]
    of_all = ("objective", "sweep.")
    problems += [text for text in problems_of(composed) if text.startswith(of_all) or text in others]
    problems += find_secrets(composed.resolved, list(arguments))
    if config.sweep.method is not SweepMethod.grid and not config.objective:
        problems.append(
            f"sweep.method={config.sweep.method}: a search needs an objective, as in "
            "'objective=[{metric: validation_loss, direction: minimize}]'."
        )
    if problems:
        raise ConfigError("\n".join(problems))
    return [*axes, *found]


def plan_each(axes: Sequence[Axis], command: str, flags: Sequence[str], fixed: Sequence[str]) -> int:
    """Run ``plan`` once per combination, one after the other; nothing is recorded."""
    import itertools

    require_method(axes, SweepMethod.grid)
    statuses = []
    for number, texts in enumerate(itertools.product(*(axis.choices for axis in axes))):
        overrides = [f"{axis.key}={text}" for axis, text in zip(axes, texts, strict=True)]
        print(f"\n#{number}: {' '.join(overrides)}", flush=True)
        statuses.append(subprocess.run(child_command([], command, flags, [*fixed, *overrides]), check=False).returncode)
    failed = [f"  job {number}: exit status {status}" for number, status in enumerate(statuses) if status]
    if failed:
        print("\n".join([f"{len(failed)} of {len(statuses)} jobs failed:", *failed]), file=sys.stderr)
    return max(statuses, default=0)


def train_each(composed: Composed, axes: Sequence[Axis], flags: Sequence[str], fixed: Sequence[str], again: str) -> int:
    """Run ``train`` once per trial, or go on with the sweep of the same command that is not over."""
    config = composed.config
    require_method(axes, config.sweep.method)
    require_launcher(config.sweep)
    identity = sweep_identity(composed, axes, flags)
    record = unfinished(Path(config.runtime.outputs), identity, config.sweep, wanted_trials(config.sweep, axes))
    if record is None:
        folder = RunFolder.create(Path(config.runtime.outputs), config.name, "sweep").path
        record = SweepRecord(
            path=folder, identity=identity, command=again, experiment=config.name, method=str(config.sweep.method),
            objectives=[{"name": entry.metric, "direction": str(entry.direction)} for entry in config.objective],
            space={axis.name: axis.described() for axis in axes},
        )  # fmt: skip
    with exclusive_lock(record.path / LOCK, wait=False, notice=print):
        if record.trials:
            record = read_sweep(record.path)  # as it stands now that nobody else writes it
            over = sum(trial.status in (TrialStatus.finished, TrialStatus.pruned) for trial in record.trials)
            print(f"going on with {record.path}: {over} of {len(record.trials)} trials are over", flush=True)
        else:
            print(f"sweep folder  {record.path}", flush=True)
        print(f"trials        {described(config.sweep)}", flush=True)
        decided = {DECISION_VARIABLE: os.environ.get(DECISION_VARIABLE) or decide(config.tracking)[0].value}
        running = Sweep(
            record=record, config=config.sweep, axes=axes, search=search_of(config.sweep, record, axes),
            started=Started(command="train", flags=flags, overrides=fixed, environment=decided),
            launcher=launcher_for(config.sweep, record.path, record.save),
            watched=watched_metric([entry.metric for entry in config.objective], config.stages),
            say=lambda text: print(text, flush=True),
        )  # fmt: skip
        stop = running.run()
    show(record)
    if stop.signal_number is not None:
        left = sum(trial.status in (TrialStatus.stopped, TrialStatus.waiting) for trial in record.trials)
        raise stop.interrupted(f"The sweep was stopped; {left} of its trials wait.\nGo on with: {again}")
    return exit_status(record)


def search_of(config: SweepConfig, record: SweepRecord, axes: Sequence[Axis]) -> Search | None:
    """Return what proposes the trials; None where they are a grid."""
    if config.method is SweepMethod.grid:
        return None
    study = f"{record.experiment}-{record.identity[:16]}"
    return Search(record.path, config, axes, [entry["direction"] for entry in record.objectives], study)


def sweep_identity(composed: Composed, axes: Sequence[Axis], flags: Sequence[str]) -> str:
    """Return the digest of everything that makes two sweeps the same one."""
    fixed: dict[str, Any] = {key: value for key, value in composed.unresolved.items() if key not in NOT_IDENTITY}
    search = {key: str(getattr(composed.config.sweep, key)) for key in SEARCH_IDENTITY}
    space = {axis.key: axis.described() for axis in axes}
    return sha256_json({"config": redact(fixed), "search": search, "space": space, "flags": list(flags)})


def wanted_trials(config: SweepConfig, axes: Sequence[Axis]) -> int:
    """Return how many trials the sweep has when it is over."""
    if config.method is not SweepMethod.grid:
        return config.trials
    count = 1
    for axis in axes:
        count *= len(axis.choices)
    return count


def unfinished(outputs: Path, identity: str, config: SweepConfig, wanted: int) -> SweepRecord | None:
    """Return the sweep of an identity to go on with: the newest if it is not over.

    Of those that share a storage, each living process has one of its own. Of the others one with trials to run again
    comes first, and one whose trials are all over shows them: the search in the storage is not made anew.
    """
    found: list[SweepRecord] = []
    for folder in recorded_sweeps(outputs):
        try:
            record = read_sweep(folder)
        except ArtifactError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        if record.identity == identity:
            found.append(record)
    if config.storage is None:
        return found[0] if found and not found[0].is_over(wanted) else None
    free = [record for record in found if not is_locked(record.path / LOCK)]
    return next((record for record in free if not record.is_over(0)), free[0] if free else None)


def show(record: SweepRecord) -> None:
    """Print every trial, best first, and why some failed."""
    names = [entry["name"] for entry in record.objectives]
    front = pareto_front(record) if len(names) > 1 else set()
    rows = []
    for trial in best_first(record):
        mark = "*" if trial.number in front else ""
        values = [f"{value:.6g}" for value in trial.objectives] if trial.objectives else ["-"] * len(names)
        if not trial.objectives and trial.intermediate and names:
            values[0] = f"({trial.intermediate[-1][1]:.6g})"
        status = "-" if trial.exit_status is None else str(trial.exit_status)
        params = [cell(trial.params[key]) for key in record.space]
        rows.append(
            [f"{trial.number}{mark}", *params, *values, trial.status, status, duration(trial.seconds), trial.folder]
        )
    print()
    if not record.trials:
        print("The search has as many trials as sweep.trials asks for, all of them in other records.")
    print_table(" ".join(["TRIAL", *record.space, *names, "STATUS", "EXIT", "TIME", "FOLDER"]), rows)
    if front:
        print("* no other trial is at least as good on every objective and better on one")
    if any(trial.status is TrialStatus.pruned for trial in record.trials):
        print("(in brackets: the last value of a trial that was pruned)")
    failed = [trial for trial in record.trials if trial.status is TrialStatus.failed]
    if failed:
        lines = [f"  trial {t.number}: exit status {t.exit_status}: {t.reason}" for t in failed]
        print("\n".join([f"{len(failed)} of {len(record.trials)} trials failed:", *lines]), file=sys.stderr)
    print(f"sweep       {record.path / 'sweep.json'}")


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")


def exit_status(record: SweepRecord) -> int:
    """Return the largest status of the trials; a trial that was pruned ended as it should."""
    ended = [trial for trial in record.trials if trial.status is not TrialStatus.pruned]
    return max((trial.exit_status or int(trial.status is TrialStatus.failed) for trial in ended), default=0)
