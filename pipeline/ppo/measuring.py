"""One measurement of the policy on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.models.attention import as_in_training
from pipeline.models.generation import Completion
from pipeline.ppo.divergence import k1
from pipeline.ppo.experience import Microbatch, make_microbatches, states_of
from pipeline.ppo.loop import Loop, Scorer
from pipeline.ppo.monitor import Measurement, distinct_pairs
from pipeline.ppo.rollout import PromptItem, Rollout


@torch.no_grad()
def measure(
    loop: Loop,
    prompts: Sequence[PromptItem],
    gold: Scorer | None,
    step: int,
    keep: Callable[[Rollout, Sequence[float]], None] | None = None,
) -> Measurement:
    """Answer the prompts with the policy of now. The random streams are the same at every step.

    Scores are the bare sums of the rewards: neither clipped nor with a penalty for a missing end. ``keep`` is given
    what was written, with the scores.
    """
    rollout = loop.sample(prompts, "monitor")
    scores = loop.scorer(rollout)
    if keep is not None:
        keep(rollout, scores.total.tolist())
    return Measurement(
        step=step,
        prompts=[prompt.id for prompt in prompts],
        kl=_kl(loop, rollout),
        proxy=scores.total.tolist(),
        gold=None if gold is None else gold(rollout).total.tolist(),
        completion_tokens=[completion.num_tokens for completion in rollout.completions],
        finished_rate=rollout.finish_reasons.count("stop") / len(prompts),
        distinct_2=distinct_pairs([completion.ids for completion in rollout.completions]),
    )


def _kl(loop: Loop, rollout: Rollout) -> float:
    """Return the mean of k1 per completion."""
    models, temperature = loop.models, loop.config.temperature
    device, size = models.value_head.linear.weight.device, loop.config.microbatch_size
    batches = make_microbatches(rollout, range(len(rollout.prompts)), size, device)
    with models.policy() as policy:
        for batch in batches:
            batch.logprobs = states_of(policy, batch).logprobs(policy, temperature=temperature)
    with models.reference() as reference:
        total = sum(
            float(k1(batch.logprobs, states_of(reference, batch).logprobs(reference, temperature=temperature)).sum())
            for batch in batches
        )
    return total / len(rollout.prompts)


@dataclass(kw_only=True)
class ReferenceProbe:
    """Fixed tokens whose log-probabilities under the reference must stay what they were, on a CPU to the last bit."""

    batch: Microbatch
    logprobs: Tensor  # [N] at the start of the process, when the reference is fresh from its artifact

    @classmethod
    def of(cls, loop: Loop, prompts: Sequence[PromptItem]) -> ReferenceProbe:
        """Take the later half of each prompt as what is scored."""
        halves = [len(prompt.ids) // 2 for prompt in prompts]
        rollout = Rollout(
            prompts=[replace(prompt, ids=prompt.ids[:half]) for prompt, half in zip(prompts, halves, strict=True)],
            completions=[
                Completion(ids=prompt.ids[half:], text="", finish_reason="stop", logprobs=None)
                for prompt, half in zip(prompts, halves, strict=True)
            ],
        )
        device = loop.models.value_head.linear.weight.device
        [batch] = make_microbatches(rollout, range(len(prompts)), len(prompts), device)
        return cls(batch=batch, logprobs=_reference_logprobs(loop, batch))

    def drift(self, loop: Loop) -> float:
        """Return the largest difference since the start, in nats."""
        return float((_reference_logprobs(loop, self.batch) - self.logprobs).abs().max())


@torch.no_grad()
@as_in_training()
def _reference_logprobs(loop: Loop, batch: Microbatch) -> Tensor:
    with loop.models.reference() as reference:
        return states_of(reference, batch).logprobs(reference, temperature=loop.config.temperature)
