"""``dpo`` as nodes: the reference's log-probabilities, which many runs share, and the training that reads them."""

from __future__ import annotations

from dataclasses import replace

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.preference import uses_reference
from pipeline.graph.chain import Wiring
from pipeline.graph.nodes import Node, Source

DPO, REFERENCE = "dpo", "reference_logprobs"


def with_reference(node: Node, wiring: Wiring) -> list[Node]:
    """Return a node, after the one that scores its comparisons with the policy it starts from, where it needs that."""
    takes_one = any(consumed.kind == ArtifactKind.reference_logprobs for consumed in node.spec.consumes)
    if not takes_one or node.inputs["reference"] or not uses_reference(wiring.config.dpo.loss):
        return [node]
    dpo = wiring.config.dpo
    seen = {"folds": sorted(dpo.folds), "max_length": dpo.max_length}
    roles = ("dataset", "policy")
    reference = Node(
        name=REFERENCE,
        stage=DPO,
        spec=wiring.stages[REFERENCE],
        inputs={role: node.inputs[role] for role in roles},
        reads={role: node.reads[role] for role in roles},
        required={"dataset": node.required["dataset"]},
        needed_by=node.needed_by,
        params=seen,
        identity=seen,
    )
    source = Source(label=REFERENCE, node=reference.name)
    return [reference, replace(node, inputs={**node.inputs, "reference": (source,)})]
