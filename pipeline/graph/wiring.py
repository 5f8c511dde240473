"""From the stages that a configuration names to nodes: who consumes whose output.

What is wrong is collected, not raised one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.data import TableName
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.judges import JudgeConfig
from pipeline.config.root import CURATE, EVALUATE, GOLD, INGEST, REWARD, Config, with_evaluation, with_gold
from pipeline.config.tables import TableConfig
from pipeline.graph.chain import Wiring
from pipeline.graph.evaluation import evaluation_nodes
from pipeline.graph.nodes import Node
from pipeline.graph.preference import with_reference, with_rows
from pipeline.graph.spec import STAGES, StageSpec

# What `evaluate` consists of, and what `dpo` and `kto` bring along.
INTERNAL = frozenset(
    {"samples", "benchmark", "verdicts", "scorecard", "costs", "report", "reference_logprobs", "thumb_logprobs"}
)


def skipped_stages(config: Config) -> dict[str, str]:
    """Return the stages that are named and have nothing to do, each with the reason."""
    tables = {source.table for source in config.data.sources}
    skipped = {}
    if INGEST in config.stages and TableName.exports not in tables:
        skipped[INGEST] = "`data` names no annotation exports"
    learns = [stage for stage in config.stages if stage in STAGES and STAGES[stage].runs_rewards]
    if REWARD in config.stages and learns and not tables & {TableName.exports, TableName.comparisons}:
        skipped[REWARD] = f"`data` names no comparisons, so {learns[0]!r} learns from its named rewards alone"
    return skipped


def nodes_for(
    config: Config,
    suites: Mapping[str, SuiteConfig],
    tables: Mapping[str, TableConfig],
    stages: Mapping[str, StageSpec] = STAGES,
    judges: Mapping[str, JudgeConfig] | None = None,
    endpoints: Mapping[str, EndpointConfig] | None = None,
) -> tuple[list[Node], list[str]]:
    """Wire the stages of a configuration.

    Args:
        config: Names the stages and what they consume.
        suites: What `evaluate` measures.
        tables: Declared tables that `ingest` may read an export as.
        stages: What each stage is.
        endpoints: Models behind HTTP that `inputs.evaluate.policy` names.
        judges: Those that suites and `evaluate.judges` name, and members of panels among them.

    Returns:
        The nodes in the order they run, and the problems found, each naming its configuration key. With problems the
        nodes are incomplete.
    """
    problems: list[str] = []
    known = [*(name for name in stages if name not in INTERNAL), EVALUATE]
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
    chain = [stage for stage in with_gold(with_evaluation(chain), config.inputs) if stage not in skipped_stages(config)]
    problems += _unread_exports(config, chain)
    if EVALUATE in chain and chain[-1] != EVALUATE:
        problems.append(f"stages: {EVALUATE!r} comes last, because it compares what the others made.")
    problems += [
        f"force: {stage!r} is not among the stages of this run ({', '.join(chain)})."
        for stage in config.force
        if stage not in chain
    ]
    wiring = Wiring(config, stages, chain, problems, endpoints)
    nodes = [wiring.node(stages[stage]) for stage in chain if stage != EVALUATE]
    nodes = [part for node in nodes for part in with_reference(with_rows(node, config), wiring)]
    nodes = [_with_tables(node, config, tables) if node.stage == INGEST else node for node in nodes]
    nodes = [_with_folds(node, config) if node.stage in (REWARD, GOLD) else node for node in nodes]
    if EVALUATE in chain:
        nodes += evaluation_nodes(wiring, suites, judges or {})
    return nodes, problems


def _unread_exports(config: Config, chain: list[str]) -> list[str]:
    """Find annotation exports whose votes would be lost."""
    exports = [index for index, source in enumerate(config.data.sources) if source.table is TableName.exports]
    if not exports or CURATE not in chain or INGEST in chain or config.inputs.curate.labels is not None:
        return []
    return [f"stages: data.sources[{exports[0]}] is an annotation export. Name {INGEST!r} before {CURATE!r}."]


def _with_folds(node: Node, config: Config) -> Node:
    """Say which comparisons a reward model learns from: a gold judge from those that the first never sees."""
    folds = {"folds": sorted(config.reward.gold_folds if node.stage == GOLD else config.reward.folds)}
    return replace(node, params=folds, identity=folds)


def _with_tables(node: Node, config: Config, tables: Mapping[str, TableConfig]) -> Node:
    """Give `ingest` the declared tables: those that sources name, or all where a source leaves the choice open."""
    wanted = {source.importer for source in config.data.sources if source.table is TableName.exports}
    seen = dict(tables) if "auto" in wanted else {name: tables[name] for name in tables if name in wanted}
    return replace(node, params={"tables": seen}, identity={"tables": seen})
