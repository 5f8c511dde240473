"""The score of a completion: a weighted sum of named rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor

from pipeline.checks.patterns import PatternTimeoutError
from pipeline.checks.registry import CheckItem
from pipeline.checks.rewards import Reward, build_reward
from pipeline.config.ppo import REWARD_MODEL, NamedReward
from pipeline.errors import ConfigError, DataError
from pipeline.models.reward import RewardModel, RewardScores, load_reward
from pipeline.ppo.loop import Scorer, Scores
from pipeline.ppo.rollout import Rollout
from pipeline.tracking.job import StageJob

Rule = Callable[[Rollout], Tensor]  # [B]
Learned = Callable[[Rollout], RewardScores]  # [K, B] scores of a reward model's members, normalised


def make_scorer(
    entries: Sequence[NamedReward], *, learned: Learned | None, where: str, say: Callable[[str], None]
) -> Scorer:
    """Build every reward once; the scorer returns their weighted sum and each by name; an ensemble scores by its mean.

    A completion on which the pattern of a rule takes too long counts as not following it: what the policy writes must
    not be able to end the run. The scorer raises a `DataError` where a reward is not finite, whichever it is.

    Args:
        entries: Empty means the learned reward model alone.
        learned: Scores by the reward model that `inputs` wires, where there is one.
        where: The configuration key of the entries; error messages begin with it.
        say: Is told the first time that a pattern of a reward takes too long.

    Raises:
        ConfigError: There is nothing to score with, or a reward cannot be built.
    """
    if not entries and learned is not None:
        entries = [NamedReward(name=REWARD_MODEL)]
    if not entries:
        raise ConfigError(f"{where}: no reward is named and no reward model is wired. Name one, or train one.")
    built: list[tuple[str, float, Rule | Learned]] = []
    late: list[str] = []  # the reward of each verdict of the rollout in hand that took too long
    told: set[str] = set()

    def note(name: str, error: PatternTimeoutError) -> None:
        late.append(name)
        if name not in told:
            told.add(name)
            say(f"{where}: the reward `{name}` counts as not followed where its pattern takes too long. {error}")

    for name, entry in zip(reward_names(entries), entries, strict=True):
        if entry.name == REWARD_MODEL:
            if learned is None:
                raise ConfigError(f"{where}: `{REWARD_MODEL}` is named and no reward model is wired.")
            built.append((name, entry.weight, learned))
        else:
            reward = build_reward(entry.name, entry.params, where=where)
            built.append((name, entry.weight, _rule(reward, partial(note, name))))

    def score(rollout: Rollout) -> Scores:
        late.clear()
        by_name: dict[str, Tensor] = {}
        spread: Tensor | None = None
        for name, _, function in built:
            said = function(rollout)
            if isinstance(said, RewardScores):
                spread = said.spread if len(said.members) > 1 else None
                said = said.mean
            by_name[name] = _finite(said, name, rollout, where)
        total = torch.zeros(len(rollout.prompts), dtype=torch.float64)
        for name, weight, _ in built:
            total = total + weight * by_name[name].cpu().double()
        return Scores(total=total, by_name=by_name, spread=spread, pattern_timeouts=len(late))

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


def _rule(reward: Reward, too_late: Callable[[PatternTimeoutError], None]) -> Rule:
    def value(text: str, item: CheckItem) -> float:
        try:
            return float(reward(text, item))
        except PatternTimeoutError as error:
            too_late(error)
            return 0.0

    def score(rollout: Rollout) -> Tensor:
        pairs = zip(rollout.prompts, rollout.completions, strict=True)
        return torch.tensor([value(completion.text, prompt.item) for prompt, completion in pairs], dtype=torch.float64)

    return score


def _finite(values: Tensor, name: str, rollout: Rollout, where: str) -> Tensor:
    """Return the values of a reward; one that is not finite would reach every advantage of the rollout."""
    bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
    if bad:
        first = bad[0]
        raise DataError(
            f"{where}: the reward `{name}` gave {float(values[first])} to {len(bad)} of {len(values)} completions, the "
            f"first of them of prompt {rollout.prompts[first].id!r}: {rollout.completions[first].text[:60]!r}. Mend "
            "the reward; for a learned one set `model.dtype=float32`."
        )
    return values
