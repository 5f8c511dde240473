"""A policy that is paid for nothing but an end learns to end, as often as the closed form says.

Sentences of the small language are cut after their first end token: where there is none within three tokens, the
completion ran into the limit. With no reward and a penalty p for that, the optimum is ``ref`` with the mass of what is
unfinished divided by ``exp(p / beta)``, and normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from enumerable import (
    KL_COEF,
    SENTENCES,
    ExactSampler,
    make_config,
    make_loop,
    make_problem,
    run,
    sentence_logprobs,
    separate_models,
)

from pipeline.config.evaluation import SamplingConfig
from pipeline.models.generation import Completion
from pipeline.ppo.loop import Scores
from pipeline.ppo.rollout import PromptItem, Rollout

pytestmark = pytest.mark.slow
END = 1
ENDS = (SENTENCES == END).any(dim=1)


class CutSampler(ExactSampler):
    """Cuts a sentence after its first end token, which draws from the policy that stops there."""

    def sample(
        self, model: torch.nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        """Sample whole sentences and cut them."""
        return [cut(completion) for completion in super().sample(model, prompts, sampling, keys)]


def cut(completion: Completion) -> Completion:
    ids = completion.ids
    length = ids.index(END) + 1 if END in ids else len(ids)
    reason = "stop" if END in ids else "length"
    logprobs = None if completion.logprobs is None else completion.logprobs[:length]
    return Completion(ids=ids[:length], text="", finish_reason=reason, logprobs=logprobs)


def nothing(rollout: Rollout) -> Scores:
    zeros = torch.zeros(len(rollout.prompts), dtype=torch.float64)
    return Scores(total=zeros, by_name={"nothing": zeros})


def ending(model: torch.nn.Module) -> float:
    """The probability that a completion ends by itself."""
    return float(sentence_logprobs(model).sum(dim=1).exp()[ENDS].sum())


@pytest.mark.parametrize("penalty", [3.0, 0.0])
def test_ends_are_learned_as_far_as_the_penalty_outweighs_the_divergence(penalty: float) -> None:
    models = separate_models(shares_trunk=True)
    start = ending(models.reference_model)
    loop = make_loop(
        models, make_config(missing_eos_penalty=penalty, num_rollouts=40), make_problem(), CutSampler()
    )  # fmt: skip
    loop.scorer = nothing
    rows: list[dict[str, float | int]] = []
    run(loop, rows.append)
    unfinished = (1 - start) * math.exp(-penalty / KL_COEF)
    wanted = start / (start + unfinished)
    assert start < 0.6, "else there is little to learn"
    assert ending(models.policy_model) == pytest.approx(wanted, abs=0.02 if penalty else 0.05)
    assert (wanted > 0.95) is bool(penalty), "the control is no penalty, which leaves the reference as it is"
    assert rows[-1]["finished_rate"] == pytest.approx(wanted, abs=0.06)
