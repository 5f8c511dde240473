"""GRPO and RLOO against the optimum in closed form, on a language whose 216 sentences can all be summed over.

RLOO takes ``beta`` times the k1 of a whole sentence off its score, so that it maximises ``J = E[score] - beta KL`` and
its optimum is ``pi* = ref exp(score / beta) / Z``. GRPO differs twice. A completion is compared with a mean that it is
part of, which shrinks the score's pull by ``(G - 1) / G``. And its KL is the mean of k3 token by token, whose gradient
knows nothing of what a token costs later: where it stops moving, each token weighs the score that it leads to and not
the KL. That point can be computed backwards from the last token, and it is not ``pi*``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from enumerable import (
    KL_COEF,
    LENGTH,
    PROMPT,
    VOCABULARY,
    ExactSampler,
    Problem,
    make_model,
    make_problem,
    sentence_logprobs,
)
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import make_tiny_model

from pipeline.config.grpo import GroupAlgorithm, GRPOConfig, training_config
from pipeline.config.shared import DType, ModelConfig, OptimizerConfig, Schedule
from pipeline.data.encode import load_chat
from pipeline.models.loading import POLICY
from pipeline.ppo.loop import Scores
from pipeline.ppo.rollout import Rollout
from pipeline.stages.arguments import trainer_arguments
from pipeline.stages.finite import StepMeter
from pipeline.stages.group_rollouts import GroupSampler
from pipeline.stages.grpo import make_trainer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
SIZE = 512
RATES = {GroupAlgorithm.rloo: 1e-2, GroupAlgorithm.grpo: 4e-3}
NUM_ROLLOUTS = {GroupAlgorithm.rloo: 60, GroupAlgorithm.grpo: 150}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def train(
    problem: Problem, folder: Path, algorithm: GroupAlgorithm, num_rollouts: int, *, sign: float = 1.0
) -> torch.Tensor:
    """Return the trained policy's log-probability of each sentence."""
    base = make_model().requires_grad_(False)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, init_lora_weights=True,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )  # fmt: skip
    torch.manual_seed(3)
    model: PeftModel = get_peft_model(base, lora, adapter_name=POLICY)
    coefficient = KL_COEF * (SIZE - 1) / SIZE if algorithm is GroupAlgorithm.grpo else KL_COEF
    config = GRPOConfig(
        algorithm=algorithm, num_rollouts=num_rollouts, rollout_size=SIZE, group_size=SIZE, microbatch_size=SIZE,
        max_new_tokens=3, kl_coef=coefficient, scale_scores=False, missing_eos_penalty=0.0, score_clip=None,
        optimizer=OptimizerConfig(learning_rate=RATES[algorithm], schedule=Schedule.linear, warmup_fraction=0.0),
    )  # fmt: skip

    def scorer(rollout: Rollout) -> Scores:
        return Scores(total=sign * problem.score(rollout).total.double(), by_name={})

    chat = load_chat(make_tiny_model(folder / "tokenizer"), ModelConfig())
    rollouts = GroupSampler(
        config=config, chat=chat, prompts=[PROMPT] * num_rollouts, scorer=scorer, sampler=ExactSampler()
    )
    arguments = trainer_arguments(
        training_config(config), section="grpo", output_dir=folder / "out", num_steps=num_rollouts,
        device=torch.device("cpu"), dtype=DType.float32,
    )  # fmt: skip
    meter: Any = StepMeter()
    trainer = make_trainer(model, rollouts, arguments, meter)
    trainer.train()
    return sentence_logprobs(model.eval()).sum(dim=1)


def end_of_grpo(problem: Problem) -> torch.Tensor:
    """Return where GRPO stops moving: ``ref exp(E[score | tokens so far] / beta)`` at each token, the last first."""
    words = torch.stack([sentence_logprobs(make_model())[:, place] for place in range(LENGTH)]).view(
        LENGTH, *[VOCABULARY] * LENGTH
    )
    reference = [words[0][:, 0, 0], words[1][:, :, 0], words[2]]
    value, policy = problem.scores.view([VOCABULARY] * LENGTH), torch.zeros([VOCABULARY] * LENGTH)
    for place in reversed(range(LENGTH)):
        chosen = (reference[place] + value / KL_COEF).log_softmax(dim=-1)
        policy = policy + chosen.reshape(*chosen.shape, *[1] * (LENGTH - 1 - place))
        value = (chosen.exp() * value).sum(dim=-1)
    return policy.flatten()


def test_rloo_finds_the_optimum(problem: Problem, tmp_path: Path) -> None:
    """The bound is that of PPO with adapters."""
    algorithm = GroupAlgorithm.rloo
    policy = train(problem, tmp_path, algorithm, NUM_ROLLOUTS[algorithm])
    assert problem.divergence(policy) < 0.1 < 1.0 < problem.divergence(problem.reference)


def test_grpo_wins_more_than_half_of_what_can_be_won(problem: Problem, tmp_path: Path) -> None:
    """It goes to its own end, from which the model's shape and the noise of k3 keep it a little away."""
    algorithm, end = GroupAlgorithm.grpo, end_of_grpo(problem)
    policy = train(problem, tmp_path, algorithm, NUM_ROLLOUTS[algorithm])
    best, start = problem.objective(problem.best), problem.objective(problem.reference)
    assert problem.objective(policy) - start > 0.5 * (best - start)
    to_end = float((policy.exp() * (policy - end)).sum())
    from_reference = float((problem.reference.exp() * (problem.reference - end)).sum())
    assert to_end < 0.2 * from_reference
    assert to_end < problem.divergence(policy)


@pytest.mark.parametrize("algorithm", list(GroupAlgorithm))
def test_a_flipped_score_lands_elsewhere(problem: Problem, tmp_path: Path, algorithm: GroupAlgorithm) -> None:
    """The control: further away than where it began."""
    flipped = train(problem, tmp_path, algorithm, 25, sign=-1.0)
    assert problem.divergence(flipped) > problem.divergence(problem.reference)
    assert problem.objective(flipped) < problem.objective(problem.reference)


def test_grpo_ends_elsewhere_than_at_the_optimum(problem: Problem) -> None:
    """Its end is a policy, worse than the best one and better than the reference."""
    end = end_of_grpo(problem)
    assert float(end.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert problem.divergence(end) > 0.5
    assert problem.objective(problem.reference) < problem.objective(end) < problem.objective(problem.best) - 0.2
