"""What a policy samples from, and what it sampled: token ids in, token ids out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from pipeline.checks.registry import CheckItem
from pipeline.config.evaluation import SamplingConfig
from pipeline.models.generation import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptItem:
    """A prompt as tokens, and as what a reward looks at."""

    id: str
    ids: list[int]  # ends with the generation prompt
    item: CheckItem


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """What one version of the policy sampled, ragged. Completions hold their stop token, where they have one."""

    prompts: list[PromptItem]
    completions: list[Completion]  # one for each prompt, in order

    @property
    def finish_reasons(self) -> list[str]:
        """``stop`` or ``length``, for each completion."""
        return [completion.finish_reason for completion in self.completions]

    def texts(self, scores: Sequence[float], limit: int) -> list[dict[str, str | float]]:
        """Return the first prompts and completions with their scores, to be read."""
        answered = zip(self.prompts, self.completions, scores, strict=True)
        return [
            {"prompt": prompt.item.user_text, "completion": completion.text, "score": score}
            for prompt, completion, score in itertools.islice(answered, limit)
        ]


class Sampler(Protocol):
    """An engine that samples completions. `tests/unit/ppo/test_samplers.py` says what every one of them must do."""

    def sample(
        self, model: nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        """Sample one completion for each prompt, in order, from the policy as it is now.

        Args:
            model: The policy, in its role and in evaluation mode.
            prompts: May name the same prompt several times.
            sampling: What is asked for is what is done: nothing comes from the model's own defaults.
            keys: Name the random stream of each completion: the same key gives the same draw.
        """
        ...
