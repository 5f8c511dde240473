"""Estimates of the divergence, the controller of its coefficient, and importance weights."""

from __future__ import annotations

import pytest
import torch

from pipeline.ppo.divergence import KLController, effective_sample_share, k1, k3, truncated_importance_weights


@pytest.fixture
def policies() -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of two distributions over eight tokens."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    return tuple(logits.log_softmax(dim=-1))  # type: ignore[return-value]


def test_estimates_have_the_divergence_as_their_mean(policies: tuple[torch.Tensor, torch.Tensor]) -> None:
    policy, reference = policies
    exact = (policy.exp() * (policy - reference)).sum().item()
    assert exact > 0.1
    for estimate in (k1, k3):
        assert (policy.exp() * estimate(policy, reference)).sum().item() == pytest.approx(exact, abs=1e-12)
    turned = (policy.exp() * k3(reference, policy)).sum().item()
    assert turned != pytest.approx(exact, abs=1e-2), "k3 with the sign turned is no estimate of it"
    assert (k3(policy, reference) >= 0).all()


def test_only_k1_as_a_penalty_has_the_gradient_of_the_divergence() -> None:
    """The score-function gradient of E[estimate] against that of the exact divergence."""
    generator = torch.Generator().manual_seed(8)
    logits, other = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    reference, policy = other.log_softmax(dim=-1), logits.log_softmax(dim=-1)
    exact = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)[0]

    def cosine(penalty: torch.Tensor) -> float:
        surrogate = (policy.exp().detach() * penalty.detach() * policy).sum()
        gradient = torch.autograd.grad(surrogate, logits, retain_graph=True)[0]
        return torch.cosine_similarity(gradient, exact, dim=0).item()

    assert cosine(k1(policy, reference)) == pytest.approx(1.0, abs=1e-9)
    assert cosine(k3(policy, reference)) < 0.9


def test_controller_worked_by_hand() -> None:
    """Half as much again as the target is an error of 0.5, cut to 0.2; 64 of 128 episodes are half of it."""
    controller = KLController(coef=0.1, target=4.0, horizon=128)
    controller.update(6.0, 64)
    assert controller.coef == pytest.approx(0.11)
    controller.update(3.6, 64)
    assert controller.coef == pytest.approx(0.11 * 0.95)
    fixed = KLController(coef=0.1)
    fixed.update(100.0, 64)
    assert fixed.coef == 0.1


def test_controller_finds_a_coefficient_that_holds_the_target() -> None:
    """A policy whose divergence is 0.6 / coefficient is held at 4 nats by 0.15."""
    controller = KLController(coef=0.02, target=4.0, horizon=500)
    for _ in range(400):
        controller.update(0.6 / controller.coef, 64)
    assert controller.coef == pytest.approx(0.15, rel=0.1)


def test_importance_weights_are_cut_and_carry_no_gradient() -> None:
    logprobs = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    weights = truncated_importance_weights(logprobs, torch.tensor([-1.0, -3.0, -0.5]), cap=2.0)
    assert weights.tolist() == pytest.approx([1.0, 2.0, 0.6065307], abs=1e-6)
    assert not weights.requires_grad
    assert effective_sample_share(torch.tensor([1.0, 1.0, 1.0, 1.0])) == pytest.approx(1.0)
    assert effective_sample_share(torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
