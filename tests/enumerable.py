"""A language of 216 sentences: six tokens, three places. Everything about a policy can be summed over all of them."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.checks.registry import CheckItem
from pipeline.config.evaluation import SamplingConfig
from pipeline.config.ppo import PPOConfig
from pipeline.config.shared import OptimizerConfig, Schedule
from pipeline.models.generation import Completion
from pipeline.models.logprobs import supervised_logprobs
from pipeline.models.value import ValueHead
from pipeline.ppo.divergence import KLController
from pipeline.ppo.loop import Loop, Scores
from pipeline.ppo.roles import ActorCritic
from pipeline.ppo.rollout import PromptItem, Rollout
from pipeline.ppo.update import Learner

VOCABULARY, LENGTH, KL_COEF = 6, 3, 0.5
SENTENCES = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))
NUMBER = {tuple(sentence): number for number, sentence in enumerate(SENTENCES.tolist())}
PROMPT = PromptItem(id="p", ids=[0], item=CheckItem(prompt=[]))


def make_model(seed: int = 0) -> LlamaForCausalLM:
    """A Llama of one layer with random weights, far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, initializer_range=0.2, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1,
        pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def sentence_logprobs(model: nn.Module, temperature: float = 1.0) -> Tensor:
    """Log-probability of each sentence, token by token: ``[216, 3]``."""
    ids = torch.cat([torch.zeros(len(SENTENCES), 1, dtype=torch.int64), SENTENCES], dim=1)
    completion = torch.ones_like(ids, dtype=torch.bool)
    completion[:, 0] = False
    scored = supervised_logprobs(model, ids, torch.ones_like(completion), completion, temperature=temperature)
    return scored.logprobs.reshape(-1, LENGTH)


@dataclass
class SeparateModels:
    """Policy, reference and value model as models of their own: no adapter, nothing shared."""

    policy_model: nn.Module
    reference_model: nn.Module
    value_model: nn.Module
    value_head: ValueHead
    shares_trunk: bool = False

    @contextmanager
    def policy(self, *, train: bool = False) -> Iterator[nn.Module]:
        yield self.policy_model

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        yield self.reference_model

    @contextmanager
    def value(self, *, train: bool = False) -> Iterator[nn.Module]:
        yield self.value_model

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.policy_model.named_parameters())

    def value_parameters(self) -> dict[str, nn.Parameter]:
        head = {f"head.{name}": parameter for name, parameter in self.value_head.named_parameters()}
        return head if self.shares_trunk else {**dict(self.value_model.named_parameters()), **head}


def separate_models(*, shares_trunk: bool = False) -> SeparateModels:
    """The policy starts as the reference."""
    model = make_model()
    return SeparateModels(
        model, copy.deepcopy(model).requires_grad_(False), copy.deepcopy(model), ValueHead(64), shares_trunk
    )


@dataclass
class ExactSampler:
    """Draws whole sentences from the table of their probabilities, at a temperature that may be a wrong one."""

    temperature: float | None = None

    def sample(
        self, model: nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        temperature = sampling.temperature if self.temperature is None else self.temperature
        table = sentence_logprobs(model, temperature)
        seed = int.from_bytes(hashlib.sha256(f"{sampling.seed}/{keys[0]}".encode()).digest()[:6], "big")
        drawn = torch.multinomial(
            table.sum(dim=1).exp(), len(prompts), replacement=True, generator=torch.Generator().manual_seed(seed)
        )
        return [
            Completion(ids=SENTENCES[number].tolist(), text="", finish_reason="stop", logprobs=table[number].tolist())
            for number in drawn.tolist()
        ]


@dataclass
class Problem:
    """A random score for each sentence, and the policy that is best for it."""

    scores: Tensor  # [216]
    reference: Tensor  # [216] log-probabilities

    @property
    def best(self) -> Tensor:
        """``log pi* = log ref + score / beta - log Z``: the optimum in closed form."""
        return (self.reference + self.scores / KL_COEF).log_softmax(dim=0)

    def objective(self, policy: Tensor) -> float:
        """``E[score] - beta KL(pi || ref)``, exactly."""
        return float((policy.exp() * (self.scores - KL_COEF * (policy - self.reference))).sum())

    def divergence(self, policy: Tensor) -> float:
        """``KL(pi || pi*)``, exactly."""
        return float((policy.exp() * (policy - self.best)).sum())

    def score(self, rollout: Rollout) -> Scores:
        numbers = [NUMBER[tuple(completion.ids)] for completion in rollout.completions]
        return Scores(total=self.scores[numbers], by_name={"score": self.scores[numbers]})


def make_problem() -> Problem:
    """A problem whose optimum is another model of the same shape, so that it is certain to be within reach."""
    start, other = make_model(0), make_model(1)
    reference = sentence_logprobs(start).sum(dim=1)
    with torch.no_grad():
        for ours, theirs in zip(start.parameters(), other.parameters(), strict=True):
            ours.lerp_(theirs, 0.3)
    return Problem(scores=KL_COEF * (sentence_logprobs(start).sum(dim=1) - reference), reference=reference)


def make_config(**changes: object) -> PPOConfig:
    """Large rollouts and a rate that decays to zero, so that what is left is not noise."""
    values: dict[str, object] = {
        "optimizer": OptimizerConfig(learning_rate=2e-3, schedule=Schedule.linear, warmup_fraction=0.0),
        "value_learning_rate": 3e-3, "num_rollouts": 150, "rollout_size": 512, "minibatch_size": 128,
        "microbatch_size": 128, "max_new_tokens": LENGTH, "kl_coef": KL_COEF, "value_warmup": 0,
        "update_kl_target": None, "missing_eos_penalty": 0.0, "value_clip_range": None, "gae_lambda": 1.0,
    }  # fmt: skip
    return PPOConfig(**{**values, **changes})  # type: ignore[arg-type]


def make_loop(models: ActorCritic, config: PPOConfig, problem: Problem, sampler: ExactSampler | None = None) -> Loop:
    """The loop over the one prompt of this language."""
    return Loop(
        config=config, models=models, learner=Learner(models, config), sampler=sampler or ExactSampler(),
        scorer=problem.score, prompts=lambda number: [PROMPT] * config.rollout_size,
        controller=KLController(coef=config.kl_coef),
    )  # fmt: skip


def run(loop: Loop, each: Callable[[dict[str, float | int]], None] = lambda row: None) -> dict[str, float | int]:
    """Train to the end and return the last row of the record."""
    row: dict[str, float | int] = {}
    for number in range(loop.config.num_rollouts):
        row = loop.iterate(number)
        each(row)
    return row
