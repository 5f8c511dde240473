"""From what was sampled to what is learned from: old and reference log-probabilities, values, rewards, advantages."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.config.ppo import PPOConfig
from pipeline.models.attention import as_in_training
from pipeline.models.logprobs import PredictingStates, predicting_states
from pipeline.ppo.advantages import estimate_advantages, whiten
from pipeline.ppo.divergence import k1, truncated_importance_weights
from pipeline.ppo.rewards import token_rewards, with_penalty_for_length
from pipeline.ppo.roles import ActorCritic
from pipeline.ppo.rollout import Rollout


@dataclass(kw_only=True)
class Microbatch:
    """Completions that go through a model together, trimmed to the longest of them.

    B rows of L tokens, N real completion tokens, T of them in the longest completion. The same microbatches are scored
    and trained, so that before the first update the new log-probabilities are the old ones to the last bit, also in
    low precision, where another shape of batch rounds differently. That is why the minibatches of a rollout are drawn
    once, and its epochs differ in their order alone.
    """

    rows: list[int]  # of the rollout
    input_ids: Tensor  # [B, L], prompt and completion, right-padded
    attention_mask: Tensor  # [B, L] bool
    completion_mask: Tensor  # [B, L] bool, on the tokens of the completion
    token_mask: Tensor  # [B, T] bool, the same tokens moved to the left
    logprobs: Tensor = field(init=False)  # [N] of the policy that sampled, by the forward pass that trains
    reference_logprobs: Tensor = field(init=False)  # [N]
    values: Tensor = field(init=False)  # [N]
    advantages: Tensor = field(init=False)  # [N]
    returns: Tensor = field(init=False)  # [N]
    engine_logprobs: Tensor | None = None  # [N] as the sampler reported them
    weights: Tensor | None = None  # [N] importance weights

    @property
    def num_tokens(self) -> int:
        """Real completion tokens."""
        return int(self.token_mask.sum())

    def padded(self, flat: Tensor) -> Tensor:
        """Spread ``[N]`` over ``[B, T]``, with zeros on padding."""
        spread = torch.zeros(self.token_mask.shape, dtype=flat.dtype, device=flat.device)
        spread[self.token_mask] = flat
        return spread

    def sums(self, flat: Tensor) -> Tensor:
        """Add ``[N]`` up over each completion: ``[B]``."""
        return self.padded(flat).sum(dim=1)


@dataclass(kw_only=True)
class Experience:
    """A rollout, ready to learn from."""

    minibatches: list[list[Microbatch]]  # one optimizer step each
    scores: Tensor  # [B] in the order of the rollout: clipped, with the penalty for a missing end
    kl: Tensor  # [B] k1, nats per completion
    advantage_mean: float  # before whitening
    advantage_std: float

    @property
    def microbatches(self) -> list[Microbatch]:
        """Those of all minibatches."""
        return [batch for minibatch in self.minibatches for batch in minibatch]

    def joined(self, name: str) -> Tensor:
        """Join a ``[N]`` field of all microbatches."""
        return torch.cat([getattr(microbatch, name) for microbatch in self.microbatches])


def draw_minibatches(num_completions: int, size: int, *, seed: int, rollout: int) -> list[list[int]]:
    """Draw which completions of a rollout share an optimizer step.

    A pure function of seed and rollout: how many completions go through the model together changes no gradient but by
    rounding, and nothing has to be saved.

    Returns:
        Places of completions, ``size`` in each but perhaps the last.
    """
    rows = list(range(num_completions))
    random.Random(f"{seed}/{rollout}").shuffle(rows)
    return [rows[start : start + size] for start in range(0, num_completions, size)]


def make_microbatches(rollout: Rollout, rows: Iterable[int], size: int, device: torch.device) -> list[Microbatch]:
    """Sort completions of a rollout by length and cut them into microbatches, so that little of one is padding."""
    lengths = [len(p.ids) + len(c.ids) for p, c in zip(rollout.prompts, rollout.completions, strict=True)]
    order = sorted(rows, key=lambda row: (-lengths[row], row))
    return [_collate(rollout, order[start : start + size], device) for start in range(0, len(order), size)]


def _collate(rollout: Rollout, rows: Sequence[int], device: torch.device) -> Microbatch:
    pairs = [(rollout.prompts[row].ids, rollout.completions[row].ids) for row in rows]
    size = (len(rows), max(len(prompt) + len(completion) for prompt, completion in pairs))
    ids = torch.zeros(size, dtype=torch.int64)  # padding is masked everywhere, so any id will do
    attention, completions = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    tokens = torch.zeros((len(rows), max(len(completion) for _, completion in pairs)), dtype=torch.bool)
    for number, (prompt, completion) in enumerate(pairs):
        start, end = len(prompt), len(prompt) + len(completion)
        ids[number, :end] = torch.tensor([*prompt, *completion])
        attention[number, :end], completions[number, start:end] = True, True
        tokens[number, : len(completion)] = True
    engine = [rollout.completions[row].logprobs for row in rows]
    known = [value for values in engine if values is not None for value in values]
    return Microbatch(
        rows=list(rows),
        input_ids=ids.to(device),
        attention_mask=attention.to(device),
        completion_mask=completions.to(device),
        token_mask=tokens.to(device),
        engine_logprobs=None if None in engine else torch.tensor(known, device=device),
    )


@torch.no_grad()
@as_in_training()
def make_experience(
    rollout: Rollout, scores: Tensor, models: ActorCritic, config: PPOConfig, kl_coef: float, *, number: int
) -> Experience:
    """Score a rollout under every role, each in one pass over all microbatches, and estimate advantages.

    Args:
        rollout: What the policy sampled.
        scores: ``[B]`` the sum of the rewards, in the order of the rollout.
        models: The roles.
        config: The hyperparameters.
        kl_coef: The coefficient in force.
        number: Of the rollout; it decides which completions share a minibatch.
    """
    device = models.value_head.linear.weight.device
    drawn = draw_minibatches(len(rollout.prompts), config.minibatch_size, seed=config.seed, rollout=number)
    minibatches = [make_microbatches(rollout, rows, config.microbatch_size, device) for rows in drawn]
    microbatches = [batch for minibatch in minibatches for batch in minibatch]
    with models.policy() as policy:
        for batch in microbatches:
            batch.logprobs, values = forward(policy, batch, models, config.temperature)
            if values is not None:
                batch.values = values
    with models.reference() as reference:
        for batch in microbatches:
            batch.reference_logprobs = states_of(reference, batch).logprobs(reference, temperature=config.temperature)
    if not models.shares_trunk:
        with models.value() as trunk:
            for batch in microbatches:
                batch.values = models.value_head(states_of(trunk, batch).hidden)
    scores = scores.float()
    if config.score_clip is not None:
        scores = scores.clamp(-config.score_clip, config.score_clip)
    scores = with_penalty_for_length(scores, rollout.finish_reasons, config.missing_eos_penalty).to(device)
    for batch in microbatches:
        _reward(batch, scores, config, kl_coef)
    advantages = torch.cat([batch.advantages for batch in microbatches])
    whitened = whiten(advantages) if config.whiten_advantages else advantages
    kl = torch.zeros(len(rollout.prompts), device=device)
    for batch, part in zip(microbatches, torch.split(whitened, [b.num_tokens for b in microbatches]), strict=True):
        batch.advantages = part
        kl[batch.rows] = batch.sums(k1(batch.logprobs, batch.reference_logprobs))
    return Experience(
        minibatches=minibatches,
        scores=scores,
        kl=kl,
        advantage_mean=float(advantages.mean()),
        advantage_std=float(advantages.std(correction=0)),
    )


def _reward(batch: Microbatch, scores: Tensor, config: PPOConfig, kl_coef: float) -> None:
    """Fill in advantages, returns and importance weights."""
    mask = batch.token_mask
    rewards = token_rewards(
        scores[batch.rows], batch.padded(batch.logprobs), batch.padded(batch.reference_logprobs), mask, kl_coef=kl_coef
    )
    advantages, returns = estimate_advantages(
        rewards, batch.padded(batch.values), mask, discount=config.discount, gae_lambda=config.gae_lambda
    )
    batch.advantages, batch.returns = advantages[mask], returns[mask]
    if config.importance_cap is not None and batch.engine_logprobs is not None:
        batch.weights = truncated_importance_weights(batch.logprobs, batch.engine_logprobs, cap=config.importance_cap)


def states_of(model: nn.Module, batch: Microbatch) -> PredictingStates:
    """Run a role over a microbatch."""
    return predicting_states(model, batch.input_ids, batch.attention_mask, batch.completion_mask)


def forward(
    policy: nn.Module, batch: Microbatch, models: ActorCritic, temperature: float, *, detach_values: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return ``[N]`` log-probabilities, and values where the value head reads the policy's states."""
    states = states_of(policy, batch)
    logprobs = states.logprobs(policy, temperature=temperature)
    if not models.shares_trunk:
        return logprobs, None
    return logprobs, models.value_head(states.hidden.detach() if detach_values else states.hidden)
