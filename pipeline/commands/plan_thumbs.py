"""What `plan` says about the stage that learns from labelled completions."""

from __future__ import annotations

from pipeline.commands.plan_tables import print_training
from pipeline.commands.runs import print_table
from pipeline.config.kto import KTOConfig, ThumbLoss
from pipeline.data.encode import load_chat
from pipeline.data.thumbs import read_labelled
from pipeline.graph.nodes import Node
from pipeline.graph.resolution import Resolution


def learns_from_thumbs(node: Node) -> bool:
    """Whether the node trains on labelled completions."""
    return KTOConfig in node.spec.sections


def print_thumbs(node: Node, resolution: Resolution) -> None:
    """Print completions, labels, tokens, steps, memory and time, counted by the code that the stage runs."""
    base, section = resolution.base_for(node), resolution.config.kto
    if base is None or any(source.node and source.node not in resolution.made for source in node.inputs["dataset"]):
        return
    source = node.inputs["dataset"][0]
    dataset = resolution.reference(source.reference) if source.reference else resolution.made[source.node or ""]
    chat = load_chat(base.folder, resolution.config.model)
    found = read_labelled(dataset, chat, rows=section.rows, folds=section.folds, max_length=section.max_length)
    counts = {split: labelled.counts for split, labelled in found.items() if labelled.counts.given}
    cells = [
        [node.name, split, *(f"{number:,}" for number in (count.given, count.encoded, count.good, count.bad))]
        + [f"{number:,}" for number in (count.total_tokens, count.supervised_tokens, count.longest)]
        for split, count in counts.items()
    ]
    print_table("STAGE SPLIT ROWS KEPT GOOD BAD TOKENS SUPERVISED LONGEST", cells)
    for split, count in counts.items():
        if count.dropped:
            reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(count.dropped.items()))
            print(f"{node.name}: dropped of {split}: {reasons}")
    train = counts.get("train")
    if train is None or not train.encoded:
        print(f"{node.name}: no train row is left\n")
        return
    if section.loss is ThumbLoss.kto:
        print(f"{node.name}: every step also scores as many unrelated completions, without gradients")
    print_training(node, resolution, base, section, train, sides=1)
