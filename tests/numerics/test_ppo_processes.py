"""A rollout that is spread over two processes gives the advantages, gradients and steps that it gives in one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from enumerable import PROMPT, SENTENCES, make_config, make_loop, make_problem, sentence_logprobs, separate_models
from torch import Tensor

from pipeline.models.generation import Completion
from pipeline.ppo.experience import draw_minibatches
from pipeline.ppo.loop import Loop, Scores
from pipeline.ppo.rollout import Rollout

pytestmark = pytest.mark.slow
NUM_COMPLETIONS, EPOCHS, KL_TARGET = 12, 3, 0.05


class FixedSampler:
    """Hands out its share of completions that were drawn beforehand, of one to three tokens."""

    def __init__(self, rows: Sequence[int]) -> None:
        generator = random.Random(8)
        drawn = [generator.choice(SENTENCES.tolist())[: 1 + number % 3] for number in range(NUM_COMPLETIONS)]
        self.completions = [Completion(ids=drawn[row], text="", finish_reason="stop", logprobs=None) for row in rows]

    def sample(self, *_: object) -> list[Completion]:
        """Return them whatever is asked."""
        return self.completions


def score(rollout: Rollout) -> Scores:
    """Any function of the tokens."""
    total = [sum((place + 1) * token for place, token in enumerate(c.ids)) / 4 for c in rollout.completions]
    scores = torch.tensor(total, dtype=torch.float64)
    return Scores(total=scores, by_name={"score": scores})


def learn(
    rows: Sequence[int], microbatch_size: int, *, shares_trunk: bool, num_minibatches: int = 1
) -> dict[str, Tensor]:
    """Learn from a share of the rollout; returns the gradient of every optimizer step and what came of them."""
    config = make_config(
        rollout_size=len(rows), minibatch_size=len(rows) // num_minibatches, microbatch_size=microbatch_size,
        ppo_epochs=EPOCHS, num_rollouts=1, kl_target=KL_TARGET, kl_horizon=NUM_COMPLETIONS,
    )  # fmt: skip
    config.optimizer.max_grad_norm = 1e9  # the gradients are compared, and clipping would hide their scale
    models = separate_models(shares_trunk=shares_trunk)
    with torch.no_grad():  # off the reference, so that there is a KL
        for parameter in models.policy_model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    loop: Loop = make_loop(models, config, make_problem())
    loop.sampler, loop.scorer, loop.prompts = FixedSampler(rows), score, lambda number: [PROMPT] * len(rows)
    seen: dict[str, Tensor] = {}

    def note(*_: Any) -> None:
        step = len(seen)
        gradients = [p.grad.flatten() for group in loop.learner.groups for p in group.values() if p.grad is not None]
        seen[f"gradient-{step}"] = torch.cat(gradients).clone()

    loop.learner.optimizer.register_step_pre_hook(note)
    loop.iterate(0)
    seen["policy"] = sentence_logprobs(models.policy_model)
    seen["kl_coef"] = torch.tensor(loop.controller.coef, dtype=torch.float64)
    return seen


def require_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Equal but for rounding, which nine steps of Adam carry on: other minibatches differ by far more, see below."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= 2e-4 * value.norm(), name


def share(rank: int, num_minibatches: int) -> list[int]:
    """Five completions of nine tokens in all, and seven of fifteen; of several minibatches, half of each."""
    if num_minibatches == 1:
        return [row for row in range(NUM_COMPLETIONS) if (row in (0, 1, 3, 5, 6)) == (rank == 0)]
    size, half = NUM_COMPLETIONS // num_minibatches, NUM_COMPLETIONS // num_minibatches // 2
    whole = draw_minibatches(NUM_COMPLETIONS, size, seed=make_config().seed, rollout=0)
    ours = draw_minibatches(NUM_COMPLETIONS // 2, half, seed=make_config().seed, rollout=0)
    placed = {
        place: row
        for all_rows, places in zip(whole, ours, strict=True)
        for place, row in zip(places, all_rows[rank * half : (rank + 1) * half], strict=True)
    }
    return [placed[place] for place in sorted(placed)]


def _learn_in_process(rank: int, folder: str, shares_trunk: bool, num_minibatches: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = share(rank, num_minibatches)
    torch.save(learn(rows, 1, shares_trunk=shares_trunk, num_minibatches=num_minibatches), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("shares_trunk", "num_minibatches"),
    [
        pytest.param(True, 1, id="head"),
        pytest.param(True, 3, id="three minibatches"),
        pytest.param(False, 1, id="own model", marks=pytest.mark.integration),
    ],
)
def test_two_processes_learn_as_one(tmp_path: Path, shares_trunk: bool, num_minibatches: int) -> None:
    torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
        _learn_in_process, (str(tmp_path), shares_trunk, num_minibatches), nprocs=2
    )
    size = NUM_COMPLETIONS // num_minibatches
    one = learn(range(NUM_COMPLETIONS), size, shares_trunk=shares_trunk, num_minibatches=num_minibatches)
    assert sum(name.startswith("gradient") for name in one) == EPOCHS * num_minibatches
    for rank in range(2):
        both = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        require_equal(both, one)


def test_each_with_its_own_counts_and_whitening_would_learn_something_else() -> None:
    """The control: the mean of what two processes compute that know nothing of each other."""
    one = learn(range(NUM_COMPLETIONS), NUM_COMPLETIONS, shares_trunk=True)["gradient-0"]
    halves = [learn(share(rank, 1), 1, shares_trunk=True)["gradient-0"] for rank in range(2)]
    assert (torch.stack(halves).mean(dim=0) - one).norm() > 0.05 * one.norm()


@pytest.mark.parametrize("num_minibatches", [1, 3])
def test_microbatches_of_any_size_learn_as_one(num_minibatches: int) -> None:
    rows, minibatch = range(NUM_COMPLETIONS), NUM_COMPLETIONS // num_minibatches
    one = learn(rows, minibatch, shares_trunk=True, num_minibatches=num_minibatches)
    for size in (1, 2, 4):
        small = learn(rows, size, shares_trunk=True, num_minibatches=num_minibatches)
        require_equal(small, one)


def test_other_completions_in_a_minibatch_would_be_another_gradient() -> None:
    """The control: the same completions in another order fall into other minibatches."""
    straight = learn(range(NUM_COMPLETIONS), 4, shares_trunk=True, num_minibatches=3)["gradient-0"]
    turned = learn(range(NUM_COMPLETIONS)[::-1], 4, shares_trunk=True, num_minibatches=3)["gradient-0"]
    assert (turned - straight).norm() > 0.05 * straight.norm()
