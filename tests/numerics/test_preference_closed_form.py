"""Preference losses on a model whose 216 sequences can all be listed: they reach the policies that theory promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.losses.pairs import Pairs
from pipeline.losses.preference import preference_loss
from pipeline.models.logprobs import supervised_logprobs

pytestmark = pytest.mark.slow
VOCABULARY, LENGTH, BETA = 6, 3, 0.5
# Two different words as the prompt: after a single 0, attention cannot tell how many zeros have followed it.
PROMPT = [1, 0]
SEQUENCES = torch.tensor([[*PROMPT, *words] for words in itertools.product(range(VOCABULARY), repeat=LENGTH)])
FIRST, SECOND = torch.triu_indices(len(SEQUENCES), len(SEQUENCES), offset=1)


def make_model() -> LlamaForCausalLM:
    """A Llama of one layer in fp64; the first two tokens are the prompt."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=8, tie_word_embeddings=False, bos_token_id=0, eos_token_id=None, pad_token_id=None,
        initializer_range=0.1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).double()


def logprobs(model: LlamaForCausalLM) -> Tensor:
    """Log-probability of every sequence, by the function that training uses."""
    mask = torch.ones_like(SEQUENCES, dtype=torch.bool)
    completion = mask.clone()
    completion[:, : len(PROMPT)] = False
    scored = supervised_logprobs(model, SEQUENCES, mask, completion)
    return torch.zeros(len(SEQUENCES), dtype=scored.logprobs.dtype).index_add(0, scored.row, scored.logprobs)


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the reference, random rewards, and how probably the first of a pair is the better one."""
    with torch.no_grad():
        reference = logprobs(make_model())
    assert reference.exp().sum().item() == pytest.approx(1, abs=1e-9)
    reward = torch.randn(len(SEQUENCES), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return reference, reward, torch.sigmoid(reward[FIRST] - reward[SECOND])


def pairs_of(policy: Tensor, reference: Tensor) -> Pairs:
    """Every pair of sequences."""
    lengths = torch.full((len(FIRST),), LENGTH)
    return Pairs(
        chosen=policy[FIRST],
        rejected=policy[SECOND],
        chosen_lengths=lengths,
        rejected_lengths=lengths,
        reference_chosen=reference[FIRST],
        reference_rejected=reference[SECOND],
    )


def trained(loss: Callable[[Tensor], Tensor], num_steps: int) -> Tensor:
    """The log-probabilities of all sequences after that many steps on all pairs."""
    model = make_model()
    optimizer = torch.optim.LBFGS(
        model.parameters(), lr=1.0, max_iter=num_steps, history_size=30, line_search_fn="strong_wolfe",
        tolerance_grad=1e-9, tolerance_change=1e-12,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logprobs(model))
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return logprobs(model)


def divergence(policy: Tensor, target: Tensor) -> float:
    """KL(policy || target), with the target given up to a constant."""
    return float((policy.exp() * (policy - target.log_softmax(0))).sum())


def test_dpo_reaches_the_reference_times_the_exponential_of_the_reward(planted: tuple[Tensor, Tensor, Tensor]) -> None:
    reference, reward, better = planted
    target = reference + reward / BETA
    assert divergence(reference, target) > 0.5, "the reference is already there"
    policy = trained(
        lambda logs: preference_loss(pairs_of(logs, reference), {"sigmoid": 1}, beta=BETA, confidence=better).mean(),
        250,
    )
    assert divergence(policy, target) < 1e-3


@pytest.mark.parametrize("name", ["ipo_sum", "ipo_mean"])
def test_ipo_reaches_its_own_closed_form(planted: tuple[Tensor, Tensor, Tensor], name: str) -> None:
    """Least squares over all pairs: h_i = mean_j (2 P_ij - 1) / (2 beta); averaging over tokens multiplies by them."""
    reference, reward, better = planted
    advantage = 2 * torch.sigmoid(reward[:, None] - reward[None, :]) - 1
    target = reference + advantage.mean(1) / (2 * BETA) * (LENGTH if name == "ipo_mean" else 1)
    assert divergence(reference, target) > 0.05
    policy = trained(
        lambda logs: preference_loss(pairs_of(logs, reference), {name: 1}, beta=BETA, confidence=better).mean(), 150
    )
    assert divergence(policy, target) < 1e-3
    assert divergence(policy, reference + reward / BETA) > 0.01, "DPO's form is as near, so nothing is told apart"


MISTAKES: dict[str, Callable[[Pairs], Pairs]] = {
    "swapped pair": lambda pairs: pairs.swapped(),
    "dropped reference": lambda pairs: replace(
        pairs, reference_chosen=torch.zeros_like(pairs.chosen), reference_rejected=torch.zeros_like(pairs.chosen)
    ),
}


@pytest.mark.parametrize("mistake", [*MISTAKES, "wrong sign"])
def test_a_mistake_ends_elsewhere(planted: tuple[Tensor, Tensor, Tensor], mistake: str) -> None:
    reference, reward, better = planted
    change, sign = MISTAKES.get(mistake, lambda pairs: pairs), -1 if mistake == "wrong sign" else 1

    def loss(logs: Tensor) -> Tensor:
        pairs = change(pairs_of(logs, reference))
        return sign * preference_loss(pairs, {"sigmoid": 1}, beta=BETA, confidence=better).mean()

    assert divergence(trained(loss, 30), reference + reward / BETA) > 0.05
