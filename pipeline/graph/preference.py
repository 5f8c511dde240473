"""``dpo`` and ``kto`` as nodes: the reference's log-probabilities, which many runs share, and the training.

Those of a stage depend on what it starts from and on the rows that it reads, and on nothing that a sweep changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.kto import ThumbRows
from pipeline.config.preference import uses_reference
from pipeline.config.root import Config
from pipeline.graph.chain import Wiring
from pipeline.graph.nodes import Node, Source
from pipeline.graph.spec import COMPARISONS, UNPAIRED

DPO, KTO = "dpo", "kto"
SCORED_BY = {DPO: "reference_logprobs", KTO: "thumb_logprobs"}  # the stage that scores the reference for each
TABLES_READ = {  # by `kto.rows`; what stands first is read alone where the data set has it
    ThumbRows.auto: (UNPAIRED, COMPARISONS),
    ThumbRows.unpaired: (UNPAIRED,),
    ThumbRows.comparisons: (COMPARISONS,),
    ThumbRows.both: (UNPAIRED, COMPARISONS),
}


def with_rows(node: Node, config: Config) -> Node:
    """Narrow what `kto` reads to the tables that its rows come from; any other node stays as it is."""
    if node.stage != KTO:
        return node
    rows = config.kto.rows
    tables = TABLES_READ[rows]
    return replace(
        node,
        reads={**node.reads, "dataset": tuple(part for table in tables for part in table)},
        preferred={"dataset": UNPAIRED} if rows is ThumbRows.auto else {},
        required={**node.required, "dataset": () if rows is ThumbRows.auto else tuple(table[0] for table in tables)},
    )


def with_reference(node: Node, wiring: Wiring) -> list[Node]:
    """Return a node, after the one that scores its rows with the policy it starts from, where it needs that."""
    takes_one = any(consumed.kind == ArtifactKind.reference_logprobs for consumed in node.spec.consumes)
    if not takes_one or node.inputs["reference"] or not _needs_reference(node.stage, wiring.config):
        return [node]
    seen = _seen(node.stage, wiring.config)
    spec = wiring.stages[SCORED_BY[node.stage]]
    roles = ("dataset", "policy")
    reference = Node(
        name=spec.name,
        stage=node.stage,
        spec=spec,
        inputs={role: node.inputs[role] for role in roles},
        reads={role: node.reads[role] for role in roles},
        preferred=node.preferred,
        required={"dataset": node.required["dataset"]},
        needed_by=node.needed_by,
        params=seen,
        identity=seen,
    )
    source = Source(label=spec.name, node=reference.name)
    return [reference, replace(node, inputs={**node.inputs, "reference": (source,)})]


def _needs_reference(stage: str, config: Config) -> bool:
    return stage == KTO or uses_reference(config.dpo.loss)


def _seen(stage: str, config: Config) -> Mapping[str, Any]:
    """Return what of a stage's section decides which rows the reference scores."""
    if stage == KTO:
        kto = config.kto
        folds = {} if kto.rows is ThumbRows.unpaired else {"folds": sorted(kto.folds)}
        return {"rows": kto.rows, "max_length": kto.max_length, **folds}
    return {"folds": sorted(config.dpo.folds), "max_length": config.dpo.max_length}
