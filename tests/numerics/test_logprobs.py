"""`completion_logprobs` against the definition of a log-softmax, and the whole model against its own logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.models.logprobs import completion_logprobs

NUM_ROWS, HIDDEN, VOCAB = 37, 24, 211


def problem(num_rows: int = NUM_ROWS, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(num_rows, HIDDEN, generator=generator).to(dtype)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator).to(dtype)
    targets = torch.randint(VOCAB, (num_rows,), generator=generator)
    upstream = torch.randn(num_rows, generator=generator)
    return hidden, weight, targets, upstream


def definition(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """The textbook formula, all logits at once."""
    logits = hidden @ weight.t()
    logits = scale * (logits if bias is None else logits + bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1)


def values_and_gradients(function: Callable[..., Tensor], train_weight: bool = True, **options: object) -> list[Tensor]:
    hidden, weight, targets, upstream = problem()
    hidden.requires_grad_()
    weight.requires_grad_(train_weight)
    logprobs = function(hidden, weight, targets, **options)
    logprobs.backward(upstream)
    assert hidden.grad is not None
    return [logprobs.detach(), hidden.grad, *([weight.grad] if weight.grad is not None else [])]


@pytest.mark.parametrize("chunk_size", [1, 8, 37, 128])  # one row; uneven; exact; one chunk that is not full
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"bias": torch.linspace(-1, 1, VOCAB)},
        {"scale": 0.25, "softcap": 5.0},
        {"temperature": 1.3, "bias": torch.linspace(-1, 1, VOCAB), "scale": 2.0, "softcap": 3.0},
    ],
)
def test_values_and_both_gradients_are_those_of_the_definition(options: dict[str, object], chunk_size: int) -> None:
    ours = values_and_gradients(completion_logprobs, chunk_size=chunk_size, **options)
    expected = values_and_gradients(definition, **options)
    assert len(ours) == 3
    for value, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_changes_nothing_else() -> None:
    ours = values_and_gradients(completion_logprobs, train_weight=False)
    expected = values_and_gradients(definition, train_weight=False)
    assert len(ours) == len(expected) == 2
    for value, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_finite_differences_in_double_precision() -> None:
    hidden, weight, targets, _ = problem(num_rows=5, dtype=torch.float64)
    hidden, weight, targets = hidden.requires_grad_(), weight[:17].clone().requires_grad_(), targets % 17

    def function(hidden: Tensor, weight: Tensor) -> Tensor:
        return completion_logprobs(hidden, weight, targets, chunk_size=2, temperature=0.8, scale=0.5, softcap=4.0)

    assert torch.autograd.gradcheck(function, (hidden, weight))


def test_two_tokens_by_hand() -> None:
    # Logits (ln 3, 0) give probabilities 3/4 and 1/4; d log p0 / d logits = (1/4, -1/4), and the head is the identity.
    hidden = torch.tensor([[3.0, 1.0]]).log().requires_grad_()
    logprobs = completion_logprobs(hidden, torch.eye(2), torch.tensor([0]))
    logprobs.backward(torch.ones(1))
    torch.testing.assert_close(logprobs.detach(), torch.tensor([0.75]).log())
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.25, -0.25]]))


def test_bfloat16_stays_within_its_own_rounding() -> None:
    """Logits of a spread of 5 carry a rounding of 2^-9 of their size in bf16: about 0.03 nats at the largest ones."""
    hidden, weight, targets, upstream = problem(dtype=torch.bfloat16)
    hidden.requires_grad_()
    logprobs = completion_logprobs(hidden, weight, targets, chunk_size=16)
    logprobs.backward(upstream)
    assert logprobs.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16
    exact_hidden = hidden.detach().float().requires_grad_()
    expected = definition(exact_hidden, weight.float(), targets)
    expected.backward(upstream)
    torch.testing.assert_close(logprobs.detach(), expected.detach(), rtol=0, atol=0.06)
    torch.testing.assert_close(hidden.grad.float(), exact_hidden.grad, rtol=0.03, atol=0.03)


def test_a_shifted_target_would_be_noticed() -> None:
    """Negative control: the tolerances above see a wrong token and a wrong temperature."""
    hidden, weight, targets, _ = problem()
    ours = completion_logprobs(hidden, weight, targets)
    assert (ours - definition(hidden, weight, targets.roll(1))).abs().median() > 1.0
    assert (ours - definition(hidden, weight, targets, temperature=1.01)).abs().median() > 1e-3


def test_logits_far_outside_the_range_of_exp_stay_finite() -> None:
    hidden, weight, targets, _ = problem()
    ours = completion_logprobs(1e3 * hidden, weight, targets)
    torch.testing.assert_close(ours, definition(1e3 * hidden, weight, targets), rtol=1e-5, atol=1e-2)
    assert ours.isfinite().all()


def test_no_rows_give_no_values_and_a_zero_gradient() -> None:
    hidden, weight, targets, _ = problem(num_rows=0)
    hidden.requires_grad_()
    logprobs = completion_logprobs(hidden, weight, targets)
    logprobs.sum().backward()
    assert logprobs.shape == (0,)
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, HIDDEN)


def test_differentiating_twice_is_refused() -> None:
    hidden, weight, targets, _ = problem()
    hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(
        completion_logprobs(hidden, weight, targets).square().sum(), hidden, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"bias": torch.zeros(VOCAB, requires_grad=True)}])
def test_what_has_no_answer_is_refused(options: dict[str, object]) -> None:
    hidden, weight, targets, _ = problem()
    with pytest.raises(ValueError, match=r"temperature|bias"):
        completion_logprobs(hidden, weight, targets, **options)  # type: ignore[arg-type]
