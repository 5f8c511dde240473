"""`train` and `plan`: from a composed configuration to artifacts, or to what it would take."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.base_model import cache_folder, resolve_base
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.store import Store
from pipeline.checks.registry import build_check
from pipeline.checks.rewards import build_reward
from pipeline.config.composition import Composed, load
from pipeline.config.plugins import load_plugins
from pipeline.data.filters.registry import build_filter
from pipeline.errors import ConfigError, Interrupted
from pipeline.graph.nodes import Node
from pipeline.graph.rewards import reward_problems
from pipeline.graph.wiring import nodes_for, skipped_stages
from pipeline.sweeps.children import RUN_FOLDER, SWEEP
from pipeline.tracking.redaction import find_secrets, redact
from pipeline.tracking.server import AGENT_VARIABLE

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A configuration that has passed every check, wired into nodes."""

    composed: Composed
    nodes: list[Node]
    plugins: dict[str, str]  # file -> sha256
    store: Store
    cache: Path


def _secrets_in_files(loaded: Composed) -> Iterator[str]:
    """Name the secrets in the files of `configs/` that the run names: they are recorded as the configuration is.

    A file's own name is no part of the key: a suite may well be called `password_resets`.
    """
    named: dict[str, Mapping[str, Any]] = {
        "suite": loaded.suites, "judge": loaded.judges, "endpoint": loaded.endpoints, "table": loaded.tables,
    }  # fmt: skip
    for kind, files in named.items():
        for name, found in files.items():
            yield from (f"{kind} `{name}`: {secret}" for secret in find_secrets(asdict(found)))


def prepare(composed: DictConfig, search_path: list[Path], arguments: list[str]) -> Prepared:
    """Check everything that can be checked without a model and raise one report of what is wrong.

    Raises:
        ConfigError: values are missing, out of bounds or contradict each other, a check or an input is unknown, or
            something looks like a secret.
    """
    loaded = load(composed, search_path)
    config, problems = loaded.config, list(loaded.problems)
    problems.extend(find_secrets(loaded.resolved, arguments))
    problems.extend(_secrets_in_files(loaded))
    try:
        plugins = load_plugins(config.plugins)
    except ConfigError as error:
        plugins = {}
        problems.append(str(error))
    for suite in loaded.suites.values():
        for check in suite.checks:
            try:
                build_check(check.name, check.params)
            except ConfigError as error:
                problems.append(f"suite `{suite.name}`: {error}")
        for index, reward in enumerate(suite.rewards):
            try:
                build_reward(reward.name, reward.params, where=f"rewards[{index}]")
            except ConfigError as error:
                problems.append(f"suite `{suite.name}`: {error}")
    for index, entry in enumerate(config.curate.filters):
        try:
            build_filter(entry.name, entry.params, where=f"curate.filters[{index}]")
        except ConfigError as error:
            problems.append(str(error))
    nodes, wiring_problems = nodes_for(
        config, loaded.suites, loaded.tables, judges=loaded.judges, endpoints=loaded.endpoints
    )
    problems.extend(wiring_problems)
    problems.extend(reward_problems(config, nodes))
    if problems:
        raise ConfigError(
            f"{len(problems)} problem(s) in the configuration:\n" + "\n".join(f"  {line}" for line in problems)
        )
    return Prepared(
        composed=loaded,
        nodes=nodes,
        plugins=plugins,
        store=Store(Path(config.runtime.outputs)),
        cache=cache_folder(config.runtime),
    )


def execute(command: str, composed: DictConfig, search_path: list[Path], arguments: list[str]) -> int:
    """Run ``train`` or ``plan`` on a composed configuration and return the exit status."""
    prepared = prepare(composed, search_path, arguments)
    if command == "plan":
        from pipeline.commands.plan import plan

        return plan(prepared)
    again = " ".join(["python -m pipeline", command, *(shlex.quote(argument) for argument in arguments)])
    try:
        return train(prepared, again)
    except Interrupted as error:
        raise Interrupted(f"{error}\nGo on with: {again}", signal_number=error.exit_status - 128) from error


def train(prepared: Prepared, again: str) -> int:
    """Run every node in order, reusing what is sealed, and print where the results are.

    Raises:
        GateFailedError, GateUndecidedError: A hard gate of the report did not pass.
    """
    from pipeline.evaluation.summary import read_report, require_gates
    from pipeline.graph.execution import line, run_nodes
    from pipeline.graph.objectives import objective_values
    from pipeline.graph.run_folder import DATA_PAGE, RunFolder
    from pipeline.tracking.session import TrackingSession
    from pipeline.tracking.trial import report_trial

    config, store = prepared.composed.config, prepared.store
    given = os.environ.get(RUN_FOLDER)
    folder = RunFolder.named(store.outputs, given) if given else RunFolder.create(store.outputs, config.name, "0")
    logged = redact({**prepared.composed.unresolved, "command": again})
    folder.write_config(logged)
    if config.tracking.group is None:
        config.tracking.group = os.environ.get(SWEEP) or os.environ.get(AGENT_VARIABLE) or folder.path.name
    with TrackingSession(config.tracking, store.outputs, folder.path, logged) as session:
        say = session.notice
        say(f"run folder  {folder.path}")
        if config.sweep.space and SWEEP not in os.environ and AGENT_VARIABLE not in os.environ:
            say("sweep.space varies nothing without -m: this is one run with the values that are set")
        for stage, reason in skipped_stages(config).items():
            say(line(stage, "skipped", f"({reason})"))
        done = run_nodes(
            prepared.nodes,
            config=config,
            store=store,
            session=session,
            base=lambda model: resolve_base(model, prepared.cache, say),
            hashes=FileHashes(prepared.cache / "file-hashes.json"),
            plugins=prepared.plugins,
            folder=folder,
            say=say,
            again=again,
        )
        if (folder.path / DATA_PAGE).is_file():
            say(f"\ndata        {folder.path / DATA_PAGE}")
        sealed = next((step.artifact for step in reversed(done) if step.artifact.kind == "report"), None)
        report = read_report(sealed.file("report.json")) if sealed is not None else None
        if report is not None:
            _show(report, folder.path, say)
        values = objective_values(config, {step.node.name: step.artifact for step in done})
        if values:
            folder.write_objective(values)
        for entry in values:
            say(f"objective   {entry['name']} {entry['value']:.6g} ({entry['direction']})")
        if values and AGENT_VARIABLE in os.environ:
            report_trial(session, values)
    if report is not None:
        require_gates(report)  # when everything else has ended well
    return 0


def _show(report: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    from pipeline.evaluation.summary import summary_lines

    say("")
    for line in summary_lines(report):
        say(line)
    say("")
    say(f"report      {folder / 'report.html'}")
