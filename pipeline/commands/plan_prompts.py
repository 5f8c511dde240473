"""What `plan` says about the stages that learn from rewards on what the policy writes itself."""

from __future__ import annotations

from pipeline.artifacts.base_model import BaseModel
from pipeline.commands.plan_tables import count_part, expected_time, find_dataset, print_counts, print_memory
from pipeline.config.data import TableName
from pipeline.config.grpo import GRPOConfig
from pipeline.config.ppo import REWARD_MODEL, PPOConfig, longest_prompt
from pipeline.data.encode import EncodingCounts, load_chat
from pipeline.data.tables import part_name
from pipeline.graph.estimates import ppo_memory
from pipeline.graph.nodes import Node
from pipeline.graph.resolution import Resolution


def print_prompts(node: Node, resolution: Resolution) -> None:
    """Print prompts, episodes, optimizer steps and time of PPO and GRPO, and the memory of PPO."""
    config, base, dataset = resolution.config, resolution.base_for(node), find_dataset(node, resolution)
    if base is None or dataset is None:
        return
    section: PPOConfig | GRPOConfig = config.grpo if GRPOConfig in node.spec.sections else config.ppo
    chat, counts = load_chat(base.folder, config.model), {}
    for split in ("train", "validation"):
        if part_name(TableName.prompts, split) in dataset.manifest.parts:
            longest = longest_prompt(section, base.context_length)
            step, parts = count_part(dataset, TableName.prompts, split, chat, longest)
            counts[split] = parts["prompts"]
            if step > 1:
                print(f"{node.name}: one prompt in {step} of {split} was counted")
    cells = {
        split: [f"{number:,}" for number in (count.given, count.encoded, count.total_tokens, count.longest)]
        for split, count in counts.items()
    }
    print_counts(node.name, "PROMPTS KEPT TOKENS LONGEST", cells, counts)
    train = counts.get("train")
    if train is None or not train.encoded:
        print(f"{node.name}: no train prompt is left; raise {node.name}.max_prompt_length\n")
        return
    _print_course(node, section, train)
    if isinstance(section, PPOConfig):
        frozen = sum(bool(node.inputs.get(role)) for role in ("policy", "reward_model", "gold"))
        print_memory(node.name, ppo_memory(base.folder, section, config.model, train.longest, num_frozen=frozen))
    print(f"{node.name}: {_time(node, section, base, resolution)}\n")


def _print_course(node: Node, section: PPOConfig | GRPOConfig, train: EncodingCounts) -> None:
    episodes = section.num_rollouts * section.rollout_size
    rewards = ", ".join(entry.name for entry in section.rewards) or REWARD_MODEL
    steps, size, groups = section.num_rollouts, section.rollout_size, ""
    if isinstance(section, PPOConfig):
        steps, size = steps * section.ppo_epochs * (size // section.minibatch_size), section.minibatch_size
    else:
        groups = f"in groups of {section.group_size}, "
    print(
        f"{node.name}: {episodes:,} episodes of at most {section.max_new_tokens} tokens {groups}in "
        f"{section.num_rollouts:,} rollouts, each prompt about {episodes / train.encoded:.1f} times; at most {steps:,} "
        f"optimizer steps of {size} episodes; scored by {rewards}"
    )


def _time(node: Node, ppo: PPOConfig | GRPOConfig, base: BaseModel, resolution: Resolution) -> str:
    if node.name in resolution.made:
        return "cached, so nothing is trained"
    episodes = ppo.num_rollouts * ppo.rollout_size
    return expected_time(node, resolution, base, "episodes", episodes, lambda rate: f"{60 * rate:,.1f} a minute")
