"""One measurement of the policy on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline.ppo.divergence import k1
from pipeline.ppo.experience import make_microbatches, states_of
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
    batches = make_microbatches(rollout, loop.config.microbatch_size, models.value_head.linear.weight.device)
    with models.policy() as policy:
        for batch in batches:
            batch.logprobs = states_of(policy, batch).logprobs(policy, temperature=temperature)
    with models.reference() as reference:
        total = sum(
            float(k1(batch.logprobs, states_of(reference, batch).logprobs(reference, temperature=temperature)).sum())
            for batch in batches
        )
    return total / len(rollout.prompts)
