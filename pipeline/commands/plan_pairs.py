"""What `plan` says about the stages that learn from comparisons."""

from __future__ import annotations

from pipeline.commands.plan_tables import find_dataset, print_counts, print_training
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
    base, dataset = resolution.base_for(node), find_dataset(node, resolution)
    if base is None or dataset is None:
        return
    _, section = next(section_of(resolution.config, kind) for kind in SECTIONS if kind in node.spec.sections)
    chat = load_chat(base.folder, resolution.config.model)
    folds = node.params.get("folds", section.folds)  # a gold judge has others than its section says
    counts: dict[str, PairCounts] = {}
    for split in ("train", "validation"):
        if part_name("comparisons", split) in dataset.manifest.parts:
            rows = read_table(dataset, "comparisons", split, Comparison)
            counts[split] = encode_pairs(rows, chat, max_length=section.max_length, folds=folds).counts
    cells = {
        split: [f"{n:,}" for n in (c.given, c.encoded, c.total_tokens, c.completion_tokens, c.longest)]
        for split, c in counts.items()
    }
    print_counts(node.name, "PAIRS KEPT TOKENS SUPERVISED LONGEST", cells, counts)
    train = counts.get("train")
    if train is None or not train.encoded:
        print(f"{node.name}: no train pair is left\n")
        return
    upper = section.upper_layers if isinstance(section, RewardConfig) else None
    tokens = sum(count.total_tokens for count in counts.values())
    print_training(node, resolution, base, section, train, sides=2, upper_layers=upper, num_tokens=tokens)
