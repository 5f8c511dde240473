"""Token rewards, advantages and whitening against hand-worked numbers and the definitions."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from pipeline.ppo.advantages import estimate_advantages, whiten
from pipeline.ppo.rewards import token_rewards, with_penalty_for_length

LENGTHS = [1, 4, 7, 7, 2, 1]


def ragged(lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and mask of completions of these lengths; the padding holds numbers that must not matter."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(lengths), max(lengths))
    mask = torch.arange(size[1]) < torch.tensor(lengths).unsqueeze(1)
    rewards, values = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))
    return rewards.masked_fill(~mask, 1e6), values.masked_fill(~mask, -1e6), mask


def naive_advantages(rewards: list[float], values: list[float], discount: float, lambda_: float) -> list[float]:
    """The sum over all later temporal differences, each from its own definition: O(T^2)."""
    length = len(rewards)
    deltas = [rewards[t] + discount * (values[t + 1] if t + 1 < length else 0.0) - values[t] for t in range(length)]
    return [sum((discount * lambda_) ** (s - t) * deltas[s] for s in range(t, length)) for t in range(length)]


def test_worked_by_hand() -> None:
    """Rewards 1, 0, 2; values 0.5, 1, 0.25; discount 0.9, lambda 0.5.

    delta_2 = 2 - 0.25 = 1.75; delta_1 = 0.9 * 0.25 - 1 = -0.775; delta_0 = 1 + 0.9 * 1 - 0.5 = 1.4.
    A_2 = 1.75; A_1 = -0.775 + 0.45 * 1.75 = 0.0125; A_0 = 1.4 + 0.45 * 0.0125 = 1.405625.
    """
    advantages, returns = estimate_advantages(
        torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 0.25]]), torch.ones(1, 3, dtype=torch.bool),
        discount=0.9, gae_lambda=0.5,
    )  # fmt: skip
    torch.testing.assert_close(advantages, torch.tensor([[1.405625, 0.0125, 1.75]]))
    torch.testing.assert_close(returns, torch.tensor([[1.905625, 1.0125, 2.0]]))


@pytest.mark.parametrize(("discount", "lambda_"), list(product([1.0, 0.9], [1.0, 0.95, 0.0])))
def test_equals_the_definition(discount: float, lambda_: float) -> None:
    rewards, values, mask = ragged(LENGTHS, seed=2)
    advantages, returns = estimate_advantages(rewards, values, mask, discount=discount, gae_lambda=lambda_)
    for row, length in enumerate(LENGTHS):
        expected = naive_advantages(rewards[row, :length].tolist(), values[row, :length].tolist(), discount, lambda_)
        assert advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()
    torch.testing.assert_close(returns[mask], advantages[mask] + values[mask])


@pytest.mark.parametrize("fault", ["sign", "slice"])
def test_the_comparison_sees_a_wrong_sign_and_a_slice_off_by_one(fault: str) -> None:
    """The controls: the definition with the sign of the value turned, and with the values one token late."""
    rewards, values, mask = ragged([5], seed=4)
    advantages, _ = estimate_advantages(rewards, values, mask, discount=1.0, gae_lambda=0.95)
    wrong = (-values if fault == "sign" else torch.cat([values[:, 1:], torch.zeros(1, 1)], dim=1))[0].tolist()
    assert advantages[0].tolist() != pytest.approx(naive_advantages(rewards[0].tolist(), wrong, 1.0, 0.95), abs=1e-3)


def test_without_discount_it_is_what_was_won_less_what_was_expected() -> None:
    rewards, values, mask = ragged(LENGTHS, seed=5)
    advantages, _ = estimate_advantages(rewards, values, mask, discount=1.0, gae_lambda=1.0)
    for row, length in enumerate(LENGTHS):
        for token in range(length):
            assert advantages[row, token].item() == pytest.approx(
                rewards[row, token:length].sum().item() - values[row, token].item(), abs=1e-9
            )


def test_token_rewards_worked_by_hand() -> None:
    """Two completions of three and one tokens, a coefficient of 0.5: the score lies on the last real token."""
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = token_rewards(
        torch.tensor([2.0, -1.0]), torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 9.0, 9.0]]),
        torch.tensor([[-2.0, -2.0, -2.5], [-3.0, float("nan"), float("nan")]]), mask, kl_coef=0.5,
    )  # fmt: skip
    torch.testing.assert_close(rewards, torch.tensor([[-0.5, 0.0, 0.25 + 2.0], [-1.0 - 1.0, 0.0, 0.0]]))


def test_only_a_completion_that_ran_into_the_limit_is_penalised() -> None:
    scores = with_penalty_for_length(torch.tensor([1.0, 2.0]), ["length", "stop"], 0.75)
    assert scores.tolist() == [0.25, 2.0]


@pytest.mark.parametrize("mask", [[[False, True]], [[True, False, True]]])
def test_masks_that_are_not_right_padded_are_refused(mask: list[list[bool]]) -> None:
    zeros = torch.zeros(1, len(mask[0]))
    with pytest.raises(ValueError, match="completion_mask"):
        estimate_advantages(zeros, zeros, torch.tensor(mask), discount=1.0, gae_lambda=1.0)


def test_whitening_centres_and_scales() -> None:
    """1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5."""
    whitened = whiten(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    torch.testing.assert_close(whitened, torch.tensor([-2.0, -1.0, 0.0, 3.0]) / 3.5**0.5)
    assert whitened.mean().item() == pytest.approx(0.0, abs=1e-6), "advantages that are not centred"
    assert whiten(torch.tensor([4.0])).tolist() == [4.0], "one token has no deviation"


def _whiten_in_process(rank: int, folder: str, values: list[float]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    share = torch.tensor(values[: len(values) // 3] if rank == 0 else values[len(values) // 3 :])
    torch.save(whiten(share), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_whiten_as_one(tmp_path: Path) -> None:
    generator = random.Random(6)
    values = [generator.gauss(3.0, 2.0) for _ in range(30)]
    torch.multiprocessing.spawn(_whiten_in_process, (str(tmp_path), values), nprocs=2)  # type: ignore[no-untyped-call]
    joined = torch.cat([torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)])
    torch.testing.assert_close(joined, whiten(torch.tensor(values)))
    alone = torch.cat([whiten(torch.tensor(values[:10])), whiten(torch.tensor(values[10:]))])
    assert not torch.allclose(alone, joined, atol=1e-2), "whitening each share alone would give something else"
