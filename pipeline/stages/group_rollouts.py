"""Rollouts in groups of the same prompt, sampled and scored as PPO does, in the form that TRL's trainers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.grpo import GRPOConfig
from pipeline.data.encode import Chat
from pipeline.ppo.loop import Scorer
from pipeline.ppo.rewards import with_penalty_for_length
from pipeline.ppo.rollout import PromptItem, Rollout, Sampler


class GroupSampler:
    """Samples and scores the rollouts of a run, and keeps the last one for whoever records it."""

    def __init__(
        self, *, config: GRPOConfig, chat: Chat, prompts: Sequence[PromptItem], scorer: Scorer, sampler: Sampler
    ) -> None:
        """Nothing is sampled yet.

        Args:
            config: How it is sampled and scored.
            chat: Tokenizer and template.
            prompts: Of all rollouts, one for each group, in their order.
            scorer: The weighted sum of the rewards.
            sampler: The engine, which gives the same draw for the same key.
        """
        self.config, self.chat, self.prompts, self.scorer = config, chat, prompts, scorer
        self._sampler = sampler
        self._rollout: Rollout | None = None
        self._measures: dict[str, Tensor] = {}
        self._is_new = False

    def sample(self, policy: nn.Module, places: Sequence[str], number: int) -> Rollout:
        """Sample one completion for each place in the order of prompts; ``number`` is that of the rollout."""
        prompts = [self.prompts[int(place)] for place in places]
        self._rollout = self.answer(policy, prompts, [f"rollout-{number}/{index}" for index in range(len(prompts))])
        self._is_new = True
        return self._rollout

    def answer(self, policy: nn.Module, prompts: Sequence[PromptItem], keys: Sequence[str]) -> Rollout:
        """Let the policy as it is now complete prompts; the same key gives the same draw."""
        sampling = SamplingConfig(
            max_new_tokens=self.config.max_new_tokens, temperature=self.config.temperature, top_p=1.0, top_k=0,
            seed=self.config.seed,
        )  # fmt: skip
        was_training = policy.training
        policy.eval()
        try:
            completions = self._sampler.sample(policy, prompts, sampling, keys)
        finally:
            policy.train(was_training)
        return Rollout(prompts=list(prompts), completions=completions)

    def reward(
        self, prompts: list[str], completions: list[Any], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:
        """Score the rollout that was just sampled, by its tokens; TRL calls this with what it was given back.

        Raises:
            ValueError: These are other completions.
        """
        rollout = self._rollout
        if rollout is None or completion_ids != [completion.ids for completion in rollout.completions]:
            raise ValueError("the completions to be scored are not those that were sampled")
        scores = self.scorer(rollout)
        total, clip = scores.total, self.config.score_clip
        if clip is not None:
            total = total.clamp(-clip, clip)
        total = with_penalty_for_length(total, rollout.finish_reasons, self.config.missing_eos_penalty)
        self._measures = {
            "score": total,
            **{f"reward_{name}": values.cpu().double() for name, values in scores.by_name.items()},
            **({} if scores.spread is None else {"reward_spread": scores.spread.cpu().double()}),
            "completion_tokens": torch.tensor([float(one.num_tokens) for one in rollout.completions]),
            "finished_rate": torch.tensor([float(reason == "stop") for reason in rollout.finish_reasons]),
        }
        return [float(value) for value in total]

    def take(self) -> tuple[Rollout | None, dict[str, Tensor]]:
        """Return the last rollout and its measures, a value for each completion, the first time that it is asked."""
        if not self._is_new:
            return None, {}
        self._is_new = False
        return self._rollout, self._measures


def sampled(rollout: Rollout) -> tuple[list[list[int]], list[list[int]], list[str]]:
    """Return the tokens of prompts and completions, and the text of completions."""
    return (
        [prompt.ids for prompt in rollout.prompts],
        [completion.ids for completion in rollout.completions],
        [completion.text for completion in rollout.completions],
    )
