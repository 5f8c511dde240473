"""GRPO and RLOO against the optimum in closed form, on a language whose 216 sentences can all be summed over.

RLOO takes ``beta`` times the k1 of a whole sentence off its score, so that it maximises ``J = E[score] - beta KL`` and
its optimum is ``pi* = ref exp(score / beta) / Z``. GRPO differs twice. A completion is compared with a mean that it is
part of, which shrinks the score's pull by ``(G - 1) / G``; and its KL is the mean of k3 token by token, whose gradient
knows nothing of what a token does to the tokens after it. Its fixed point is near ``pi*`` and is not ``pi*``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from enumerable import KL_COEF, PROMPT, ExactSampler, Problem, make_model, make_problem, sentence_logprobs
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
NUM_ROLLOUTS, SIZE = 100, 512
# Fixed before the first run: how far from the optimum a trained policy may be, and what of the gap in J may be left.
MOST_DIVERGENCE = {GroupAlgorithm.rloo: 0.1, GroupAlgorithm.grpo: 0.3}
MOST_GAP_LEFT = {GroupAlgorithm.rloo: 0.1, GroupAlgorithm.grpo: 0.3}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def train(problem: Problem, folder: Path, algorithm: GroupAlgorithm, *, sign: float = 1.0) -> torch.Tensor:
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
        algorithm=algorithm, num_rollouts=NUM_ROLLOUTS, rollout_size=SIZE, group_size=SIZE, microbatch_size=SIZE,
        max_new_tokens=3, kl_coef=coefficient, scale_scores=False, missing_eos_penalty=0.0, score_clip=None,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule=Schedule.linear, warmup_fraction=0.0),
    )  # fmt: skip

    def scorer(rollout: Rollout) -> Scores:
        return Scores(total=sign * problem.score(rollout).total.double(), by_name={})

    chat = load_chat(make_tiny_model(folder / "tokenizer"), ModelConfig())
    rollouts = GroupSampler(
        config=config, chat=chat, prompts=[PROMPT] * NUM_ROLLOUTS, scorer=scorer, sampler=ExactSampler()
    )
    arguments = trainer_arguments(
        training_config(config), section="grpo", output_dir=folder / "out", num_steps=NUM_ROLLOUTS,
        device=torch.device("cpu"), dtype=DType.float32,
    )  # fmt: skip
    meter: Any = StepMeter()
    trainer = make_trainer(model, rollouts, arguments, meter)
    trainer.train()
    return sentence_logprobs(model.eval()).sum(dim=1)


@pytest.mark.parametrize("algorithm", list(GroupAlgorithm))
def test_the_objective_comes_near_its_optimum(problem: Problem, tmp_path: Path, algorithm: GroupAlgorithm) -> None:
    """A flipped sign of the score, as the control, ends further away than where it began."""
    best, start = problem.objective(problem.best), problem.objective(problem.reference)
    policy = train(problem, tmp_path / "right", algorithm)
    assert problem.divergence(policy) < MOST_DIVERGENCE[algorithm] < problem.divergence(problem.reference)
    assert best - problem.objective(policy) < MOST_GAP_LEFT[algorithm] * (best - start)
    flipped = train(problem, tmp_path / "flipped", algorithm, sign=-1.0)
    assert problem.divergence(flipped) > problem.divergence(problem.reference)
    assert problem.objective(flipped) < start
