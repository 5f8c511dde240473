"""Named rewards of the stages that learn from them: what is wrong with them, and what they read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.checks.rewards import build_reward, files_read, is_from_plugin
from pipeline.config.ppo import REWARD_MODEL, NamedReward, PPOConfig
from pipeline.config.root import Config
from pipeline.errors import ConfigError
from pipeline.graph.nodes import Node

PPO = "ppo"
GOLD = "gold"  # the role of the reward model that watches
SECTIONS = (PPO, "grpo")  # of the configuration that name rewards


def named_rewards(config: Config, stage: str) -> Iterator[tuple[str, NamedReward]]:
    """Yield the rewards of a stage with their keys."""
    for index, entry in enumerate(getattr(config, stage).rewards):
        yield f"{stage}.rewards[{index}]", entry
    yield from _monitored(config, stage)


def _monitored(config: Config, stage: str) -> Iterator[tuple[str, NamedReward]]:
    """Yield what watches a stage, and is not learned from, with its keys."""
    section = getattr(config, stage)
    if isinstance(section, PPOConfig):
        for index, entry in enumerate(section.monitor.gold):
            yield f"{stage}.monitor.gold[{index}]", entry


def reward_files(config: Config, stage: str) -> dict[str, Path]:
    """Return the files that a stage's rewards judge by, such as a sheet of facts."""
    return {
        f"reward {where}: {path.name}": path
        for where, entry in named_rewards(config, stage)
        for path in files_read(entry.name, entry.params, where=where)
    }


def plugins_reward(config: Config, stage: str) -> bool:
    """Whether a plugin defines one of the stage's rewards."""
    return any(is_from_plugin(entry.name, where=where) for where, entry in named_rewards(config, stage))


def reward_problems(config: Config, nodes: list[Node]) -> Iterator[str]:
    """Yield what is wrong with the rewards of the stages that run."""
    for node in nodes:
        if node.stage not in SECTIONS or node.spec.name not in SECTIONS:
            continue
        learned = {"rewards": bool(node.inputs["reward_model"]), "monitor": bool(node.inputs.get(GOLD))}
        for where, entry in named_rewards(config, node.stage):
            place = where.split(".")[1].partition("[")[0]
            if entry.name == REWARD_MODEL:
                if not learned[place]:
                    role = "reward_model" if place == "rewards" else GOLD
                    yield (
                        f"{where}: no reward model is wired. Name the stage 'reward' before it, or set "
                        f"`inputs.{node.stage}.{role}`."
                    )
                continue
            try:
                build_reward(entry.name, entry.params, where=where)
            except ConfigError as error:
                yield str(error)
        gold = [entry.name for _, entry in _monitored(config, node.stage)]
        if learned["monitor"] and gold and REWARD_MODEL not in gold:
            yield (
                f"inputs.{node.stage}.gold: {node.stage}.monitor.gold names {', '.join(gold)} and not the reward model "
                f"that is wired here, so it would watch nothing. Write '{node.stage}.monitor.gold=[]' for the reward "
                f"model alone, or name {REWARD_MODEL} among them."
            )
        if not getattr(config, node.stage).rewards and not learned["rewards"]:
            yield (
                f"{node.stage}.rewards: none is named and no reward model is wired. Name the stage 'reward' before it, "
                f"set `inputs.{node.stage}.reward_model`, or write {node.stage}.rewards=[{{name: …}}]."
            )
