"""From the stages that a configuration names to nodes: who consumes whose output.

Inputs are wired by kind with the typed default of the specification; ``inputs.<stage>.<role>`` overrides it with a
stage of the chain, an artifact id or a path. ``evaluate`` becomes one `samples` node per policy and suite, and one
`report`. What is wrong is collected, not raised one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.root import CURATE, EVALUATE, INGEST, Config, with_evaluation
from pipeline.config.tables import TableConfig
from pipeline.graph.spec import BASE, STAGES, Consumes, StageSpec


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one input comes from: a node of this run, an artifact that exists already, or (neither) the base."""

    label: str  # what it is called in the report and in explanations
    node: str | None = None
    reference: str | None = None  # artifact id, its beginning, or a path
    key: str = ""  # the configuration key that named the reference


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage to run or to reuse."""

    name: str  # unique in the run; also the name of its link in the run folder
    stage: str  # the stage of the configuration it belongs to, which `force` names
    spec: StageSpec
    inputs: Mapping[str, tuple[Source, ...]]  # an empty tuple is an absent input
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role -> parts, where narrower than the spec
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role -> parts it cannot run without
    needed_by: str = ""  # what needs the required parts, for the message that one is missing
    params: Mapping[str, Any] = field(default_factory=dict)  # for the stage function
    identity: Mapping[str, Any] = field(default_factory=dict)  # what of the params enters the fingerprint


def skipped_stages(config: Config) -> dict[str, str]:
    """Return the stages that are named and have nothing to do, each with the reason."""
    exports = any(source.table is TableName.exports for source in config.data.sources)
    return {} if exports or INGEST not in config.stages else {INGEST: "`data` names no annotation exports"}


def nodes_for(
    config: Config,
    suites: Mapping[str, SuiteConfig],
    tables: Mapping[str, TableConfig],
    stages: Mapping[str, StageSpec] = STAGES,
) -> tuple[list[Node], list[str]]:
    """Wire the stages of a configuration.

    Args:
        config: Names the stages and what they consume.
        suites: What `evaluate` measures.
        tables: Declared tables that `ingest` may read an export as.
        stages: What each stage is.

    Returns:
        The nodes in the order they run, and the problems found, each naming its configuration key. With problems the
        nodes are incomplete.
    """
    problems: list[str] = []
    known = [*(name for name in stages if name not in {"samples", "report"}), EVALUATE]
    chain: list[str] = []
    for stage in config.stages:
        if stage not in known:
            problems.append(f"stages: there is no stage {stage!r}. Stages: {', '.join(known)}.")
        elif stage in chain:
            problems.append(f"stages: {stage!r} is named twice.")
        else:
            chain.append(stage)
    if not config.stages:
        problems.append("stages: none is named. Add an experiment, for example `+experiment=sft`.")
    chain = [stage for stage in with_evaluation(chain) if stage not in skipped_stages(config)]
    problems += _unread_exports(config, chain)
    if EVALUATE in chain and chain[-1] != EVALUATE:
        problems.append(f"stages: {EVALUATE!r} comes last, because it compares what the others made.")
    problems += [
        f"force: {stage!r} is not among the stages of this run ({', '.join(chain)})."
        for stage in config.force
        if stage not in chain
    ]
    wiring = _Wiring(config, stages, chain, problems)
    nodes = [wiring.node(stages[stage]) for stage in chain if stage != EVALUATE]
    nodes = [_with_tables(node, config, tables) if node.stage == INGEST else node for node in nodes]
    if EVALUATE in chain:
        nodes += _evaluation(wiring, suites)
    return nodes, problems


def _unread_exports(config: Config, chain: list[str]) -> list[str]:
    """Find annotation exports whose votes would be lost."""
    exports = [index for index, source in enumerate(config.data.sources) if source.table is TableName.exports]
    if not exports or CURATE not in chain or INGEST in chain or config.inputs.curate.labels is not None:
        return []
    return [f"stages: data.sources[{exports[0]}] is an annotation export. Name {INGEST!r} before {CURATE!r}."]


def _with_tables(node: Node, config: Config, tables: Mapping[str, TableConfig]) -> Node:
    """Give `ingest` the declared tables: those that sources name, or all where a source leaves the choice open."""
    wanted = {source.importer for source in config.data.sources if source.table is TableName.exports}
    seen = dict(tables) if "auto" in wanted else {name: tables[name] for name in tables if name in wanted}
    return replace(node, params={"tables": seen}, identity={"tables": seen})


class _Wiring:
    """The chain of one run, and what is wrong with it so far."""

    def __init__(self, config: Config, stages: Mapping[str, StageSpec], chain: list[str], problems: list[str]) -> None:
        self.config, self.stages, self.chain, self.problems = config, stages, chain, problems

    def node(self, spec: StageSpec) -> Node:
        """Wire one ordinary stage."""
        return Node(
            name=spec.name,
            stage=spec.name,
            spec=spec,
            inputs={consumed.role: self.sources(spec.name, consumed) for consumed in spec.consumes},
            reads={consumed.role: consumed.parts for consumed in spec.consumes},
            required={consumed.role: consumed.required for consumed in spec.consumes},
            needed_by=f"the stage {spec.name!r}",
        )

    def sources(self, stage: str, consumed: Consumes) -> tuple[Source, ...]:
        """Return where a stage's input comes from; nothing for an optional one that is absent."""
        key = f"inputs.{stage}.{consumed.role}"
        named = self.override(stage, consumed.role)
        if named is not None:
            return self.named(stage, consumed.kind, str(named), key)
        default = next((producer for producer in consumed.default if producer in self.before(stage)), None)
        if default is not None:
            return (Source(label=default, node=default),)
        if not consumed.optional:
            producers = " or ".join(repr(name) for name in consumed.default) or f"one that makes a {consumed.kind}"
            self.problems.append(
                f"{key}: {stage!r} needs a {consumed.kind}. Name the stage {producers} before it in `stages`, or "
                f"write `{key}=` and an artifact's id or path."
            )
        return ()

    def named(self, stage: str, kind: ArtifactKind, value: str, key: str) -> tuple[Source, ...]:
        """Return the source that a configuration value names; nothing for the base and for a problem."""
        if value == BASE and kind == ArtifactKind.policy:
            return ()
        if value not in self.stages and value != EVALUATE:
            return (Source(label=Path(value).name, reference=value, key=key),)
        if value not in self.before(stage):
            self.problems.append(f"{key}={value}: {value!r} does not run before {stage!r}. Add it to `stages`.")
        elif self.stages[value].kind != kind:
            self.problems.append(f"{key}={value}: {value!r} makes a {self.stages[value].kind}, and a {kind} is needed.")
        else:
            return (Source(label=value, node=value),)
        return ()

    def override(self, stage: str, role: str) -> Any:
        """Return the value of ``inputs.<stage>.<role>``, or None where nothing is said."""
        return getattr(getattr(self.config.inputs, stage, None), role, None)

    def before(self, stage: str) -> list[str]:
        """Return the stages of the chain before one of them."""
        return self.chain[: self.chain.index(stage)]


def _evaluation(wiring: _Wiring, suites: Mapping[str, SuiteConfig]) -> list[Node]:
    """Expand ``evaluate``: every policy on every suite, then one report that joins them."""
    config, problems, stages = wiring.config, wiring.problems, wiring.stages
    dataset = wiring.sources(EVALUATE, next(c for c in stages["samples"].consumes if c.role == "dataset"))
    policies = _policies(wiring)
    if config.evaluate.baseline not in policies:
        problems.append(
            f"evaluate.baseline={config.evaluate.baseline}: it is not among the policies that are evaluated "
            f"({', '.join(policies)}). Add it to `inputs.evaluate.policy`, or name one of those."
        )
    if not suites:
        problems.append("evaluate.suites: none is named. Write `evaluate.suites=[NAME]`, a file of configs/suite/.")
    limited = {name: _limited(suite, config.evaluate.limit) for name, suite in suites.items()}
    samples = [
        _samples_node(stages["samples"], policy, source, suite, dataset)
        for suite in limited.values()
        for policy, source in policies.items()
    ]
    # In the order of the inputs: which policy and which suite each artifact of samples belongs to.
    pairs = [{"policy": node.params["policy_name"], "suite": node.params["suite"].name} for node in samples]
    labels = [f"{pair['suite']}/{pair['policy']}" for pair in pairs]
    joined = tuple(Source(label=label, node=node.name) for label, node in zip(labels, samples, strict=True))
    report = Node(
        name="report",
        stage=EVALUATE,
        spec=stages["report"],
        inputs={"samples": joined},
        reads={"samples": ("*",)},
        params={"suites": limited, "policies": list(policies), "samples": pairs},
        identity={"policies": list(policies), "samples": pairs, "suite": dict(limited)},
    )
    return [*samples, report]


def _policies(wiring: _Wiring) -> dict[str, tuple[Source, ...]]:
    """Return the policies to evaluate by name: those asked for, else the base and every policy of the chain."""
    asked = wiring.override(EVALUATE, "policy") or []
    produced = [s for s in wiring.before(EVALUATE) if wiring.stages[s].kind == ArtifactKind.policy]
    policies: dict[str, tuple[Source, ...]] = {}
    for value in asked or [BASE, *produced]:
        found = len(wiring.problems)
        source = wiring.named(EVALUATE, ArtifactKind.policy, str(value), "inputs.evaluate.policy")
        name = source[0].label if source else str(value)
        if len(wiring.problems) > found:
            continue
        if name in policies:
            wiring.problems.append(f"inputs.evaluate.policy: two of them are called {name!r}; rename one folder.")
        policies[name] = source
    return policies


def _samples_node(
    spec: StageSpec, policy: str, source: tuple[Source, ...], suite: SuiteConfig, dataset: tuple[Source, ...]
) -> Node:
    part = f"{suite.table}/{suite.split}"
    drawn = {"kind": suite.kind, "table": suite.table, "split": suite.split, "limit": suite.limit}
    return Node(
        name=f"samples-{_safe(suite.name)}-{_safe(policy)}",
        stage=EVALUATE,
        spec=spec,
        inputs={"dataset": dataset, "policy": source},
        reads={"dataset": (part,), "policy": ("policy",)},
        required={"dataset": (part,)},
        needed_by=f"the suite {suite.name!r}",
        params={"suite": suite, "policy_name": policy},
        # Names, descriptions and checks do not move what a policy writes, so changing them samples nothing again.
        identity={"suite": {**drawn, "sampling": suite.sampling, "batch_size": suite.batch_size}},
    )


def _limited(suite: SuiteConfig, limit: int | None) -> SuiteConfig:
    """Apply ``evaluate.limit`` on top of the suite's own."""
    limits = [bound for bound in (suite.limit, limit) if bound is not None]
    return replace(suite, limit=min(limits, default=None))


def _safe(name: str) -> str:
    """Return a name that is one plain path component."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
