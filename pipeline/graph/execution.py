"""Run or reuse every node in order.

For each: inputs -> digests -> fingerprint -> look up -> lock -> look up again -> run -> seal.
"""

from __future__ import annotations

import importlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.durable import storage_error
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.manifest import Parent
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Provenance, Store, WorkFolder
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig
from pipeline.errors import Interrupted, PipelineError, StorageError
from pipeline.graph.fingerprint import (
    fingerprint,
    parts_read,
    result_config,
    section_of,
)
from pipeline.graph.nodes import Node
from pipeline.graph.reasons import FINGERPRINT_INPUTS, FORCED, NODE, REUSED, reason_to_run
from pipeline.graph.resolution import Resolution
from pipeline.graph.run_folder import RunFolder
from pipeline.runtime.environment import environment
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

if TYPE_CHECKING:
    from pipeline.artifacts.base_model import BaseModel

StageFunction = Callable[[StageJob], StageOutcome]


@dataclass(frozen=True, kw_only=True)
class Executed:
    """What came of a node."""

    node: Node
    artifact: Artifact
    reused: bool
    seconds: float


@dataclass(kw_only=True)
class Execution:
    """Makes nodes, one after the other."""

    resolution: Resolution
    session: TrackingSession
    again: str = ""  # the command that goes on after an error
    begin: Callable[[str, Path], None] | None = None  # told the name and the work folder of a node that runs
    _environment: dict[str, Any] = field(default_factory=dict)

    def run(self, node: Node, later: Sequence[Node]) -> Executed:
        """Reuse or run one node, whose inputs exist; ``later`` are the nodes that may consume it."""
        started, resolution = time.monotonic(), self.resolution
        store, say = resolution.store, resolution.say
        inputs = resolution.inputs(node)
        table = resolution.table(node, inputs)
        digest = fingerprint(table)
        artifact, reused = resolution.look_up(node, digest), True
        if artifact is None:
            with store.lock(node.spec.name, digest, resolution.config.runtime.wait_for_lock, say):
                artifact = resolution.look_up(node, digest)  # another process may have made it meanwhile
                if artifact is None:
                    artifact, reused = self._make(node, inputs, table, digest), False
        if reused:
            store.discard_sealed_work(node.spec.name, digest)
            say(line(node.name, "reused", f"{artifact.id}  ({REUSED})"))
        resolution.made[node.name] = artifact
        resolution.require_parts(later)
        return Executed(node=node, artifact=artifact, reused=reused, seconds=time.monotonic() - started)

    def _make(
        self,
        node: Node,
        inputs: dict[str, list[Artifact]],
        table: dict[str, Any],
        digest: str,
    ) -> Artifact:
        """Run a node's stage under its lock and seal what it wrote."""
        spec, started, resolution = node.spec, time.monotonic(), self.resolution
        work = resolution.store.work(spec.name, digest)
        before = float(work.recall("wall_seconds", 0.0))
        self._announce(node, work, table)
        run = self.session.start(stage=spec.name, name=node.name, fingerprint=digest, work=work, inputs=inputs)
        try:
            seen = (*spec.sections, ModelConfig) if spec.uses_base else spec.sections
            sections = {kind: section_of(resolution.config, kind)[1] for kind in seen}
            if node.model is not None:
                sections[ModelConfig] = node.model
            job = StageJob(
                sections=sections, inputs=inputs, run=run, work=work, runtime=resolution.config.runtime,
                base_model=resolution.base_for(node), adapter=node.adapter, params=node.params,
            )  # fmt: skip
            outcome = stage_function(spec.entry)(job)
            seconds = time.monotonic() - started
            artifact = resolution.store.seal(
                work, kind=spec.kind, stage=spec.name, version=spec.version, fingerprint=digest,
                parents=_parents(node, inputs), config=self._recorded_config(node, table), outcome=outcome,
                provenance=Provenance(
                    base=_base_facts(job.base_model), environment=self._surroundings(), tracking=dict(run.facts),
                    wall_seconds=before + seconds,
                ),
                notice=resolution.say,
            )  # fmt: skip
        except BaseException as error:
            run.fail(error)
            with suppress(StorageError):  # a full disk is told by the error itself
                if work.path.is_dir():
                    work.remember("wall_seconds", round(before + time.monotonic() - started, 3))
            explained = self._explained(node, work, error)
            if explained is error:
                raise
            raise explained from error
        run.finish(artifact)
        resolution.say(line(node.name, "sealed", f"{artifact.id}  ({seconds:.1f} s)"))
        return artifact

    def _surroundings(self) -> dict[str, Any]:
        if not self._environment:
            self._environment = dict(environment())
        return self._environment

    def _announce(self, node: Node, work: WorkFolder, table: Mapping[str, Any]) -> None:
        """Say why the node runs, and from where it goes on."""
        forced = node.stage in self.resolution.config.force
        reason = FORCED if forced else reason_to_run(self.resolution.store, node, table)
        attempts = int(work.recall("attempts", 0))
        steps = work.checkpoints.steps()
        self.resolution.say(line(node.name, "running", f"({reason})"))
        if attempts:
            where = f"from the checkpoint of step {steps[-1]}" if steps else "with what is kept in its work folder"
            self.resolution.say(line(node.name, "resuming", f"{where} ({work.path}, attempt {attempts + 1})"))
        work.remember("attempts", attempts + 1)
        if self.begin is not None:
            self.begin(node.name, work.path)

    def _recorded_config(self, node: Node, table: Mapping[str, Any]) -> dict[str, Any]:
        sections = dict(section_of(self.resolution.config, kind) for kind in node.spec.sections)
        recorded = {key: result_config(section) for key, section in sections.items()}
        return {**recorded, NODE: node.name, "params": result_config(node.params), FINGERPRINT_INPUTS: dict(table)}

    def _explained(self, node: Node, work: WorkFolder, error: BaseException) -> BaseException:
        """Return the error to raise: the same one, saying what is kept and how to go on."""
        steps = work.checkpoints.steps()
        saved = f"up to the checkpoint of step {steps[-1]} " if steps else ""
        kept = f"The stage {node.name} is not finished; its work {saved}is kept in {work.path}."
        go_on = f"\nGo on with: {self.again}" if self.again else ""
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(kept, signal_number=signal.SIGINT)  # its catcher prints the command
        if isinstance(error, Interrupted):
            return Interrupted(f"{error}\n{kept}", signal_number=error.exit_status - 128)
        if isinstance(error, OSError):
            error = storage_error(error, work.path) or error
        if isinstance(error, PipelineError):
            return type(error)(f"{error}\n{kept}{go_on}")
        error.add_note(f"{kept}{go_on}")
        return error


def run_nodes(
    nodes: Sequence[Node],
    *,
    config: Config,
    store: Store,
    session: TrackingSession,
    base: Callable[[ModelConfig], BaseModel],
    hashes: FileHashes,
    plugins: Mapping[str, str],
    folder: RunFolder,
    say: Callable[[str], None],
    again: str = "",
) -> list[Executed]:
    """Run or reuse every node, in order, and link what it made into the run folder."""
    resolution = Resolution(config=config, store=store, hashes=hashes, base=base, plugins=plugins, say=say)
    execution = Execution(resolution=resolution, session=session, again=again, begin=folder.point_to_work)
    for path in store.sweep():
        say(f"swept {path}, which a process that has ended left behind")
    resolution.require_references(nodes)
    done = []
    for index, node in enumerate(nodes):
        executed = execution.run(node, nodes[index + 1 :])
        folder.link(node.name, executed.artifact)
        folder.copy_pages(executed.artifact)
        done.append(executed)
    return done


def stage_function(entry: str) -> StageFunction:
    """Import a stage's module and return its function."""
    module, _, name = entry.partition(":")
    return cast("StageFunction", getattr(importlib.import_module(module), name))


def _parents(node: Node, inputs: Mapping[str, Sequence[Artifact]]) -> list[Parent]:
    return [
        Parent(role, artifact.kind, artifact.id, parts_read(node, role, artifact))
        for role, artifacts in inputs.items()
        for artifact in artifacts
    ]


def _base_facts(base: BaseModel | None) -> dict[str, Any] | None:
    if base is None:
        return None
    facts = {"name": base.name, "digest": base.digest, "tokenizer_digest": base.tokenizer_digest}
    return facts if base.commit is None else {**facts, "commit": base.commit}


def line(name: str, state: str, rest: str) -> str:
    """Return the line that says what becomes of a node."""
    return f"{name:<24}  {state:<8}  {rest}"
