"""What `plan` says about the stage that learns from labelled completions."""

from __future__ import annotations

from pipeline.commands.plan_tables import find_dataset, print_counts, print_training
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
    base, dataset = resolution.base_for(node), find_dataset(node, resolution)
    if base is None or dataset is None:
        return
    section, chat = resolution.config.kto, load_chat(base.folder, resolution.config.model)
    found = read_labelled(dataset, chat, rows=section.rows, folds=section.folds, max_length=section.max_length)
    counts = {split: labelled.counts for split, labelled in found.items() if labelled.counts.given}
    cells = {
        split: [
            f"{number:,}"
            for number in (count.given, count.encoded, count.good, count.bad, count.total_tokens)
            + (count.supervised_tokens, count.longest)
        ]
        for split, count in counts.items()
    }
    print_counts(node.name, "ROWS KEPT GOOD BAD TOKENS SUPERVISED LONGEST", cells, counts)
    train = counts.get("train")
    if train is None or not train.encoded:
        print(f"{node.name}: no train row is left\n")
        return
    if section.loss is ThumbLoss.kto:
        print(f"{node.name}: every step also scores as many unrelated completions, without gradients")
    print_training(node, resolution, base, section, train, sides=1)
