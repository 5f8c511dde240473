"""What `plan` says about the stages that learn from comparisons."""

from __future__ import annotations

from pipeline.commands.plan_tables import print_training
from pipeline.commands.runs import print_table
from pipeline.config.dpo import DPOConfig
from pipeline.config.reward import RewardConfig
from pipeline.data.encode import load_chat
from pipeline.data.pairs import PairCounts, encode_pairs
from pipeline.data.rows import Comparison
from pipeline.data.tables import part_name, read_table
from pipeline.graph.fingerprint import section_of
from pipeline.graph.nodes import Node
from pipeline.graph.resolution import Resolution

SECTIONS = (DPOConfig, RewardConfig)


def learns_from_pairs(node: Node) -> bool:
    """Whether the node trains on comparisons."""
    return any(section in node.spec.sections for section in SECTIONS)


def print_pairs(node: Node, resolution: Resolution) -> None:
    """Print pairs, tokens, steps, memory and time, counted by the code that the stage runs."""
    base = resolution.base_for(node)
    if base is None or any(source.node and source.node not in resolution.made for source in node.inputs["dataset"]):
        return
    _, section = next(section_of(resolution.config, kind) for kind in SECTIONS if kind in node.spec.sections)
    source = node.inputs["dataset"][0]
    dataset = resolution.reference(source.reference) if source.reference else resolution.made[source.node or ""]
    chat = load_chat(base.folder, resolution.config.model)
    folds = node.params.get("folds", section.folds)  # a gold judge has others than its section says
    counts: dict[str, PairCounts] = {}
    for split in ("train", "validation"):
        if part_name("comparisons", split) in dataset.manifest.parts:
            rows = read_table(dataset, "comparisons", split, Comparison)
            counts[split] = encode_pairs(rows, chat, max_length=section.max_length, folds=folds).counts
    cells = [
        [node.name, split, *(f"{number:,}" for number in (count.given, count.encoded, count.total_tokens))]
        + [f"{count.completion_tokens:,}", f"{count.longest:,}"]
        for split, count in counts.items()
    ]
    print_table("STAGE SPLIT PAIRS KEPT TOKENS SUPERVISED LONGEST", cells)
    for split, count in counts.items():
        if count.dropped:
            reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(count.dropped.items()))
            print(f"{node.name}: dropped of {split}: {reasons}")
    train = counts.get("train")
    if train is None or not train.encoded:
        print(f"{node.name}: no train pair is left\n")
        return
    upper = section.upper_layers if isinstance(section, RewardConfig) else None
    tokens = sum(count.total_tokens for count in counts.values())
    print_training(node, resolution, base, section, train, sides=2, upper_layers=upper, num_tokens=tokens)
