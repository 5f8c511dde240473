"""The score of a completion: a weighted sum of named rewards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from peft import PeftModel
from torch import Tensor

from pipeline.checks.rewards import Reward, build_reward
from pipeline.config.ppo import REWARD_MODEL, NamedReward
from pipeline.errors import ConfigError, DataError
from pipeline.models.reward import RewardModel, RewardScores, load_reward
from pipeline.ppo.loop import Scorer, Scores
from pipeline.ppo.rollout import Rollout
from pipeline.tracking.job import StageJob

Rule = Callable[[Rollout], Tensor]  # [B]
Learned = Callable[[Rollout], RewardScores]  # [K, B] scores of a reward model's members, normalised


def make_scorer(entries: Sequence[NamedReward], *, learned: Learned | None, where: str) -> Scorer:
    """Build every reward once; the scorer returns their weighted sum and each by name; an ensemble scores by its mean.

    Args:
        entries: Empty means the learned reward model alone.
        learned: Scores by the reward model that `inputs` wires, where there is one.
        where: The configuration key of the entries; error messages begin with it.

    Raises:
        ConfigError: There is nothing to score with, or a reward cannot be built.
    """
    if not entries and learned is not None:
        entries = [NamedReward(name=REWARD_MODEL)]
    if not entries:
        raise ConfigError(f"{where}: no reward is named and no reward model is wired. Name one, or train one.")
    built: list[tuple[str, float, Rule | Learned]] = []
    for name, entry in zip(reward_names(entries), entries, strict=True):
        if entry.name == REWARD_MODEL:
            if learned is None:
                raise ConfigError(f"{where}: `{REWARD_MODEL}` is named and no reward model is wired.")
            built.append((name, entry.weight, learned))
        else:
            reward = build_reward(entry.name, entry.params, where=where)
            built.append((name, entry.weight, _rule(reward, entry.name, where)))

    def score(rollout: Rollout) -> Scores:
        by_name: dict[str, Tensor] = {}
        spread: Tensor | None = None
        for name, _, function in built:
            said = function(rollout)
            if isinstance(said, RewardScores):
                spread = said.spread if len(said.members) > 1 else None
                said = said.mean
            by_name[name] = said
        total = torch.zeros(len(rollout.prompts), dtype=torch.float64)
        for name, weight, _ in built:
            total = total + weight * by_name[name].cpu().double()
        return Scores(total=total, by_name=by_name, spread=spread)

    return score


def reward_names(entries: Sequence[NamedReward]) -> list[str]:
    """Return one name per reward; those that occur several times are numbered from 1."""
    total, seen, names = Counter(entry.name for entry in entries), Counter[str](), []
    for entry in entries:
        seen[entry.name] += 1
        names.append(f"{entry.name}_{seen[entry.name]}" if total[entry.name] > 1 else entry.name)
    return names


def reads_reward_model(entries: Sequence[NamedReward]) -> bool:
    """Whether the learned reward model is among the rewards; where none is named it is the only one."""
    return not entries or any(entry.name == REWARD_MODEL for entry in entries)


def learned_rewards(
    job: StageJob, model: PeftModel, roles: Mapping[str, bool], *, allow_failed: Sequence[str]
) -> dict[str, RewardModel]:
    """Put the wired reward models on the backbone, by role; one whose audit failed is refused.

    Args:
        job: Its inputs hold them.
        model: The backbone.
        roles: Whether something reads the role. What nothing reads is named and neither loaded nor asked for its audit.
        allow_failed: Gates that may have failed.

    Raises:
        ConfigError: A gate of a reward model failed, and the configuration does not allow it by name.
    """
    loaded: dict[str, RewardModel] = {}
    for role, is_read in roles.items():
        artifact = job.one(role)
        if artifact is None:
            continue
        if not is_read:
            job.run.notice(f"the {role} {artifact.id} is wired and scores nothing: other rewards are named, and not it")
            continue
        for gate in artifact.manifest.gates:
            text = f"{role} {artifact.id}: gate {gate['name']} is {gate['outcome']}: {gate.get('reason', '')}"
            if gate["outcome"] == "FAIL" and gate["name"] not in allow_failed:
                raise ConfigError(
                    f"{text}\nA policy would learn what this reward model gets wrong. Train a better one, or learn "
                    f"from it all the same: {job.run.stage}.allow_failed_reward=[{gate['name']}]."
                )
            if gate["outcome"] != "PASS":
                job.run.notice(text)
        loaded[role] = load_reward(model, artifact.path, name=role)
    return loaded


def score_with(reward: RewardModel | None, batch_size: int) -> Learned | None:
    """Score whole conversations with a reward model."""
    if reward is None:
        return None

    def score(rollout: Rollout) -> RewardScores:
        pairs = zip(rollout.prompts, rollout.completions, strict=True)
        return reward.score([[*prompt.ids, *completion.ids] for prompt, completion in pairs], batch_size)

    return score


def _rule(reward: Reward, name: str, where: str) -> Rule:
    def score(rollout: Rollout) -> Tensor:
        values = []
        for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
            value = float(reward(completion.text, prompt.item))
            if not math.isfinite(value):
                raise DataError(f"{where}: the reward `{name}` gave {value} to a completion of prompt {prompt.id!r}.")
            values.append(value)
        return torch.tensor(values, dtype=torch.float64)

    return score
