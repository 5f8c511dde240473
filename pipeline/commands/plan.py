"""`plan`: what `train` would do with the same configuration, without training.

The data set is made, because it needs no weights and everything after it depends on it. No model is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import resolve_base
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.commands.plan_pairs import learns_from_pairs, print_pairs
from pipeline.commands.plan_prompts import print_prompts
from pipeline.commands.plan_tables import print_other_tables, print_rows, print_samples, print_sft
from pipeline.commands.plan_thumbs import learns_from_thumbs, print_thumbs
from pipeline.commands.runs import print_table
from pipeline.config.grpo import GRPOConfig
from pipeline.config.ppo import PPOConfig
from pipeline.config.shared import TrackingMode
from pipeline.config.stages import SFTConfig
from pipeline.graph.execution import Execution
from pipeline.graph.fingerprint import fingerprint
from pipeline.graph.nodes import Node
from pipeline.graph.reasons import FORCED, REUSED, reason_to_run
from pipeline.graph.resolution import Resolution
from pipeline.graph.wiring import skipped_stages
from pipeline.tracking.session import TrackingSession

if TYPE_CHECKING:
    from pipeline.commands.train import Prepared

CACHED, TO_RUN, UNKNOWN, MADE = "cached", "to run", "unknown", "made now"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What would become of a node, and why."""

    node: Node
    state: str
    reason: str


def plan(prepared: Prepared) -> int:
    """Print stages, rows, tokens, memory and time; return the exit status."""
    config = prepared.composed.config
    resolution = Resolution(
        config=config,
        store=prepared.store,
        hashes=FileHashes(prepared.cache / "file-hashes.json"),
        base=lambda model: resolve_base(model, prepared.cache),
        plugins=prepared.plugins,
        say=lambda text: print(text, flush=True),
    )
    planned = walk(prepared.nodes, resolution)
    print()
    skipped = [[stage, "skipped", reason] for stage, reason in skipped_stages(config).items()]
    rows = [[entry.node.name, entry.state, entry.reason] for entry in planned]
    print_table("NODE STATE WHY", [*skipped, *rows])
    datasets = {artifact.id: artifact for artifact in _datasets(planned, resolution)}
    for dataset in datasets.values():
        print_rows(dataset)
        print_other_tables(dataset, prepared.nodes, resolution)
    for entry in planned:
        if SFTConfig in entry.node.spec.sections:
            print_sft(entry.node, resolution)
        if learns_from_pairs(entry.node):
            print_pairs(entry.node, resolution)
        if learns_from_thumbs(entry.node):
            print_thumbs(entry.node, resolution)
        if {PPOConfig, GRPOConfig} & set(entry.node.spec.sections):
            print_prompts(entry.node, resolution)
    asked = [entry for entry in planned if entry.node.spec.kind == ArtifactKind.samples]
    print_samples([entry.node for entry in asked], [entry.state for entry in asked], resolution)
    return 0


def walk(nodes: Sequence[Node], resolution: Resolution) -> list[Planned]:
    """Decide for each node whether it is cached, would run, or cannot be known yet; run those that need no weights."""
    resolution.require_references(nodes)
    planned: list[Planned] = []
    unmade: dict[str, Node] = {}
    for index, node in enumerate(nodes):
        upstream = [source.node for sources in node.inputs.values() for source in sources if source.node in unmade]
        if upstream:
            unmade[node.name] = node
            more = f" and {len(upstream) - 1} more" if len(upstream) > 1 else ""
            planned.append(Planned(node=node, state=UNKNOWN, reason=f"until {upstream[0]}{more} has run"))
            continue
        table = resolution.table(node, resolution.inputs(node))
        digest = fingerprint(table)
        artifact = resolution.look_up(node, digest)
        forced = node.stage in resolution.config.force
        reason = FORCED if forced else reason_to_run(resolution.store, node, table)
        if artifact is not None:
            resolution.made[node.name] = artifact
            planned.append(Planned(node=node, state=CACHED, reason=f"{REUSED} ({artifact.id})"))
        elif node.spec.runs_in_plan:
            artifact = run_now(node, nodes[index + 1 :], resolution)
            planned.append(Planned(node=node, state=MADE, reason=f"{reason} ({artifact.id})"))
        else:
            unmade[node.name] = node
            planned.append(Planned(node=node, state=TO_RUN, reason=reason))
        resolution.require_parts(nodes[index + 1 :])
    return planned


def run_now(node: Node, later: Sequence[Node], resolution: Resolution) -> Artifact:
    """Run and seal a node; it leaves no run folder and is not mirrored."""
    config = resolution.config
    silent = replace(config.tracking, mode=TrackingMode.disabled)
    with (
        tempfile.TemporaryDirectory() as folder,
        TrackingSession(silent, resolution.store.outputs, Path(folder), {}) as session,
    ):
        return Execution(resolution=resolution, session=session).run(node, later).artifact


def _datasets(planned: Sequence[Planned], resolution: Resolution) -> list[Artifact]:
    made = [resolution.made[entry.node.name] for entry in planned if entry.node.name in resolution.made]
    return [artifact for artifact in [*made, *resolution.opened.values()] if artifact.kind == ArtifactKind.dataset]
