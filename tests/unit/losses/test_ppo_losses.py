"""PPO's losses against numbers worked out by hand and a plain loop over tokens."""

from __future__ import annotations

import math
import random

import pytest
import torch

from pipeline.losses.ppo import clipped_policy_loss, clipped_value_loss


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_worked_by_hand() -> None:
    """Ratios 1, 1.5, 0.5 and 0.5; clipped at 0.8 and 1.2.

    Token by token: -2 * 1; max(-1 * 1.5, -1 * 1.2) = -1.2; A < 0: max(1 * 0.5, 1 * 0.8) = 0.8; max(-3 * 0.5, -3 * 0.8)
    = -1.5. Their sum is -3.9; over 8 tokens of the step -0.4875. The second and the third are clipped.
    """
    ratios = tensor(1.0, 1.5, 0.5, 0.5)
    result = clipped_policy_loss(
        ratios.log(), tensor(0, 0, 0, 0), tensor(2.0, 1.0, -1.0, 3.0), num_tokens=8, clip_range=0.2
    )
    assert result.loss.item() == pytest.approx(-0.4875, abs=1e-12)
    assert result.clipped.item() == 2
    assert result.ratio.item() == pytest.approx(3.5)
    assert result.ratio_peak.item() == pytest.approx(0.5)
    # k3 = rho - 1 - log rho: 0, 0.5 - log 1.5, and twice -0.5 + log 2.
    assert result.kl.item() == pytest.approx(0.5 - math.log(1.5) + 2 * (-0.5 + math.log(2)), abs=1e-12)


def naive(
    logprobs: list[float], old: list[float], advantages: list[float], weights: list[float], low: float, high: float,
    dual: float | None, total: int,
) -> float:  # fmt: skip
    """The definition, token by token, in Python's floats."""
    loss = 0.0
    for new, before, advantage, weight in zip(logprobs, old, advantages, weights, strict=True):
        ratio = math.exp(new - before)
        gain = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
        if dual is not None and advantage < 0:
            gain = max(gain, dual * advantage)
        loss -= weight * gain
    return loss / total


@pytest.mark.parametrize(("high", "dual"), [(None, None), (0.28, None), (None, 1.5), (0.4, 3.0)])
def test_equals_the_definition(high: float | None, dual: float | None) -> None:
    generator = random.Random(3)
    columns = [[generator.gauss(mean, 1.2) for _ in range(200)] for mean in (-2.0, -2.0, 0.0)]
    weights = [generator.uniform(0.3, 2.0) for _ in range(200)]
    result = clipped_policy_loss(
        *map(lambda column: tensor(*column), columns), num_tokens=200, clip_range=0.2, clip_range_high=high,
        dual_clip=dual, weights=tensor(*weights),
    )  # fmt: skip
    expected = naive(*columns, weights, 0.2, 0.2 if high is None else high, dual, 200)
    assert result.loss.item() == pytest.approx(expected, abs=1e-10)
    # The control: the same numbers with the other side of the range, or with another divisor, are something else.
    assert result.loss.item() != pytest.approx(naive(*columns, weights, 0.3, 0.3, dual, 200), abs=1e-3)


def test_gradient_is_the_policy_gradient_at_the_start_and_zero_where_clipped() -> None:
    logprobs = tensor(-1.0, -2.0, -3.0 + 0.5, -3.0 - 0.5).requires_grad_()
    loss = clipped_policy_loss(
        logprobs, tensor(-1.0, -2.0, -3.0, -3.0), tensor(2.0, -1.0, 1.0, -1.0), num_tokens=4, clip_range=0.2
    )
    loss.loss.backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, tensor(-0.5, 0.25, 0.0, 0.0))


def test_value_loss_worked_by_hand() -> None:
    """Values 1.0, 0.5 and 0.1 that were 0.5, 0.5 and 0; returns 2, 1 and 0.1; at most 0.2 from where they were.

    Clipped values 0.7, 0.5, 0.1: larger squares are 1.69, 0.25, 0. Half their sum over 4 tokens is 0.2425.
    """
    arguments = (tensor(1.0, 0.5, 0.1), tensor(0.5, 0.5, 0.0), tensor(2.0, 1.0, 0.1))
    result = clipped_value_loss(*arguments, num_tokens=4, clip_range=0.2)
    assert result.loss.item() == pytest.approx(0.2425, abs=1e-12)
    assert result.clipped.item() == 1
    unclipped = clipped_value_loss(*arguments, num_tokens=4, clip_range=None)
    assert unclipped.loss.item() == pytest.approx(0.5 * (1.0 + 0.25) / 4, abs=1e-12)


def test_rounding_is_not_counted_as_clipping() -> None:
    """In single precision ``old + (new - old)`` is not always ``new``, which makes one of two equal errors larger."""
    generator = torch.Generator().manual_seed(2)
    old, new, returns = (scale * torch.randn(1000, generator=generator) for scale in (0.01, 1.0, 1.0))
    assert ((old + (new - old) - returns) ** 2 > (new - returns) ** 2).any(), "else nothing is shown"
    assert clipped_value_loss(new, old, returns, num_tokens=1000, clip_range=10.0).clipped.item() == 0


@pytest.mark.parametrize("sizes", [[12], [6, 6], [1, 4, 7], [1] * 12])
def test_microbatches_add_up_to_one_gradient(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    columns = torch.randn(5, 12, generator=generator, dtype=torch.float64)

    def gradients(parts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, values = (columns[row].clone().requires_grad_() for row in (0, 1))
        for part in torch.arange(12).split(parts):
            policy = clipped_policy_loss(
                logprobs[part], columns[2, part], columns[3, part], num_tokens=12, clip_range=0.2
            )
            value = clipped_value_loss(values[part], columns[2, part], columns[4, part], num_tokens=12, clip_range=0.2)
            (policy.loss + value.loss).backward()  # type: ignore[no-untyped-call]
        assert logprobs.grad is not None
        assert values.grad is not None
        return logprobs.grad, values.grad

    for ours, whole in zip(gradients(sizes), gradients([12]), strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-12, rtol=0)


def test_a_mean_of_means_would_be_another_gradient() -> None:
    """The control for the test above: dividing by each microbatch's own tokens weighs short completions more."""
    logprobs = torch.zeros(4, requires_grad=True)
    for part in torch.arange(4).split([1, 3]):
        loss = clipped_policy_loss(logprobs[part], torch.zeros(len(part)), torch.ones(len(part)), num_tokens=len(part),
                                   clip_range=0.2)  # fmt: skip
        (loss.loss / 2).backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0].item() == pytest.approx(-0.5)  # where -0.25 is right


def test_huge_ratios_stay_finite_and_too_few_tokens_are_refused() -> None:
    logprobs = torch.tensor([0.0, -500.0], requires_grad=True)
    result = clipped_policy_loss(
        logprobs, torch.tensor([-500.0, 0.0]), torch.tensor([-1.0, 1.0]), num_tokens=2, clip_range=0.2
    )
    result.loss.backward()
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
    with pytest.raises(ValueError, match="2 tokens"):
        clipped_policy_loss(logprobs, logprobs, logprobs, num_tokens=1, clip_range=0.2)
