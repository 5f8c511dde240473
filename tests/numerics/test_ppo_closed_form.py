"""PPO against the optimum in closed form, on a language whose 216 sentences can all be summed over.

With the k1 penalty in the reward and no discount, PPO maximises ``J = E[score] - beta KL(pi || ref)``, whose optimum is
``pi* = ref exp(score / beta) / Z``, and ``J(pi) = J* - beta KL(pi || pi*)`` holds for every policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from enumerable import (
    KL_COEF,
    ExactSampler,
    Problem,
    make_config,
    make_loop,
    make_model,
    make_problem,
    run,
    sentence_logprobs,
    separate_models,
)
from peft import LoraConfig, PeftModel, get_peft_model

from pipeline.models.loading import save_adapter
from pipeline.models.roles import POLICY, REFERENCE, VALUE, add_role, enter_role, load_role
from pipeline.models.value import ValueHead
from pipeline.ppo import experience
from pipeline.ppo.divergence import k3
from pipeline.ppo.rewards import token_rewards
from pipeline.ppo.roles import OneBackbone


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(
    problem: Problem, sampler: ExactSampler | None = None, **changes: object
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the trained policy's log-probability of each sentence, and the last row of the record."""
    models = separate_models()
    row = run(make_loop(models, make_config(**changes), problem, sampler))
    return sentence_logprobs(models.policy_model).sum(dim=1), row


def test_the_identity_holds_for_any_policy(problem: Problem) -> None:
    best = problem.objective(problem.best)
    for seed in (1, 2):
        policy = sentence_logprobs(make_model(seed)).sum(dim=1)
        assert problem.divergence(policy) > 0.1
        assert problem.objective(policy) == pytest.approx(best - KL_COEF * problem.divergence(policy), abs=1e-4)


def test_ppo_finds_the_optimum(problem: Problem) -> None:
    start = problem.divergence(problem.reference)
    policy, row = train(problem)
    assert problem.divergence(policy) < 0.02 < 1.0 < start
    gap = problem.objective(problem.best) - problem.objective(policy)
    assert gap == pytest.approx(KL_COEF * problem.divergence(policy), abs=1e-4)
    # The record's last row is an estimate from 512 samples, of the policy before its last update.
    assert row["objective"] == pytest.approx(problem.objective(policy), abs=0.1)


FAULTS = ["k3 in the reward", "sign of the penalty", "temperature of sampling"]


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_land_elsewhere(problem: Problem, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controls: each of these runs, and ends far from the optimum."""
    sampler = None
    if fault == "k3 in the reward":

        def with_k3(scores: Any, logprobs: Any, reference: Any, mask: Any, *, kl_coef: float) -> torch.Tensor:
            return token_rewards(scores, reference + k3(logprobs, reference), reference, mask, kl_coef=kl_coef)

        monkeypatch.setattr(experience, "token_rewards", with_k3)
    elif fault == "sign of the penalty":

        def turned(scores: Any, logprobs: Any, reference: Any, mask: Any, *, kl_coef: float) -> torch.Tensor:
            return token_rewards(scores, logprobs, reference, mask, kl_coef=-kl_coef)

        monkeypatch.setattr(experience, "token_rewards", turned)
    else:
        sampler = ExactSampler(temperature=0.5)
    policy, _ = train(problem, sampler, importance_cap=None)
    assert problem.divergence(policy) > 0.1


@pytest.mark.integration
def test_roles_as_adapters_on_one_backbone_find_it_too(problem: Problem, tmp_path: Path) -> None:
    """Policy, reference and value as LoRA adapters on one frozen base, which ends as it began."""
    base = make_model().requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, init_lora_weights=True,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )  # fmt: skip
    torch.manual_seed(3)
    model: PeftModel = get_peft_model(base, lora, adapter_name=POLICY)
    save_adapter(model, tmp_path)
    load_role(model, REFERENCE, tmp_path)
    add_role(model, VALUE, like=POLICY, seed=4)
    models = OneBackbone(model=model.eval(), value_head=ValueHead(64), reference_adapter=REFERENCE, shares_trunk=False)
    with enter_role(model, REFERENCE):
        torch.testing.assert_close(sentence_logprobs(model).sum(dim=1), problem.reference)
        reference = sentence_logprobs(model)
    run(make_loop(models, make_config(), problem))
    with enter_role(model, REFERENCE):
        assert torch.equal(sentence_logprobs(model), reference)
    with enter_role(model, POLICY):
        policy = sentence_logprobs(model).sum(dim=1)
    assert problem.divergence(policy) < 0.1
    after = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): p for name, p in model.named_parameters()
    }
    assert all(torch.equal(after[name], value) for name, value in before.items())
