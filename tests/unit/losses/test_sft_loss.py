from __future__ import annotations

import pytest
import torch

from pipeline.losses.sft import sft_loss


def test_microbatches_of_different_fill_add_up_to_the_mean_over_the_step() -> None:
    # Three tokens of 1, 2 and 6 nats in one microbatch and one of 3 in the other: 12 / 4, not (9 / 3 + 3 / 1) / 2.
    large, small = torch.tensor([-1.0, -2.0, -6.0]), torch.tensor([-3.0])
    total = sft_loss(large, 4) + sft_loss(small, 4)
    assert total.item() == pytest.approx(3.0)
    assert sft_loss(large, 3).item() == pytest.approx(3.0)


def test_every_token_of_the_step_pulls_equally() -> None:
    logprobs = torch.tensor([-1.0, -5.0], requires_grad=True)
    sft_loss(logprobs, 8).backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.125, -0.125]


def test_a_microbatch_that_supervises_nothing_contributes_zero_and_a_gradient() -> None:
    logprobs = torch.zeros(0, requires_grad=True)
    loss = sft_loss(logprobs, 3)
    loss.backward()
    assert loss.item() == 0.0
    assert logprobs.grad is not None


@pytest.mark.parametrize("num_items", [0, 1])
def test_fewer_items_than_tokens_is_a_mistake_of_the_caller(num_items: int) -> None:
    with pytest.raises(ValueError, match="2 supervised tokens"):
        sft_loss(torch.zeros(2), num_items)
