"""Learning from one rollout: epochs over minibatches, one optimizer step each."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.config.ppo import PPOConfig
from pipeline.config.shared import Schedule
from pipeline.errors import TrainingDivergedError
from pipeline.losses.ppo import clipped_policy_loss, clipped_value_loss
from pipeline.ppo.experience import Experience, Microbatch, forward, states_of
from pipeline.ppo.processes import sum_over_processes
from pipeline.ppo.roles import ActorCritic

EARLY_STOP_FACTOR = 1.5  # as in Spinning Up: one minibatch beyond this multiple of the target ends the update
MAX_MEAN_RATIO = 10.0  # a minibatch beyond it is no sample of the policy any more; the threshold of TRL 0.11


@dataclass(kw_only=True)
class StepSums:
    """Sums over the tokens of one minibatch on this process."""

    tokens: int
    sums: dict[str, float] = field(default_factory=dict)
    ratio_gap: float = 0.0  # largest |ratio - 1|

    def add(self, name: str, value: Tensor) -> None:
        """Add a sum over the tokens of a microbatch."""
        self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def mean(self, name: str, num_tokens: int) -> float:
        """Return the mean over the tokens of all processes."""
        return float(sum_over_processes(torch.tensor(self.sums.get(name, 0.0), dtype=torch.float64))) / num_tokens


@dataclass(kw_only=True)
class UpdateRecord:
    """Sums over the tokens of the optimizer steps that were made, and what happened before the first of them.

    A step that was skipped is counted and in no sum: one that is not finite would be in all of them.
    """

    tokens: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    policy_grad_norms: list[float] = field(default_factory=list)
    value_grad_norms: list[float] = field(default_factory=list)
    first_ratio_gap: float = 0.0  # largest |ratio - 1| before any update
    first_clipped: float = 0.0  # tokens clipped before any update
    ratio_gap: float = 0.0
    steps: int = 0
    skipped: int = 0  # of these: a loss or gradient was not finite
    skipped_ratio: int = 0  # of these: the mean ratio was beyond all bounds
    ended_early: bool = False

    def add(self, step: StepSums) -> None:
        """Add the sums of a step that was made."""
        self.tokens += step.tokens
        self.ratio_gap = max(self.ratio_gap, step.ratio_gap)
        for name, value in step.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str) -> float:
        """Return a sum over tokens as their mean."""
        return self.sums.get(name, 0.0) / max(self.tokens, 1)


class Learner:
    """The optimizer of policy and value model: AdamW, a group and a clipped gradient norm for each of the two."""

    def __init__(self, models: ActorCritic, config: PPOConfig) -> None:
        """Take the parameters by name, whatever requires a gradient at the moment."""
        self.models, self.config = models, config
        self.policy = models.policy_parameters()
        self.value = models.value_parameters()
        shared = set(map(id, self.policy.values())) & set(map(id, self.value.values()))
        if not self.policy or not self.value or shared:
            raise ValueError("policy and value model must have parameters of their own")
        optimizer = config.optimizer
        self.rates = (optimizer.learning_rate, config.value_learning_rate)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(group.values()), "lr": rate} for group, rate in zip(self.groups, self.rates, strict=True)],
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )
        self.skipped_in_a_row = 0

    @property
    def groups(self) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """Policy and value parameters by name."""
        return self.policy, self.value

    def set_rate(self, done: int, total: int) -> float:
        """Follow the schedule after ``done`` of ``total`` rollouts; returns the policy's rate."""
        optimizer = self.config.optimizer
        factor = schedule_factor(optimizer.schedule, optimizer.warmup_fraction, done, total)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return self.rates[0] * factor

    def step(self, record: UpdateRecord, *, train_policy: bool) -> bool:
        """Clip and apply the gradients, unless they are not finite; returns whether they were applied.

        Raises:
            TrainingDivergedError: That happened too often in a row.
        """
        for parameter in [*self.policy.values(), *self.value.values()]:
            if parameter.grad is not None:
                sum_over_processes(parameter.grad)
        limit = self.config.optimizer.max_grad_norm
        norms = [float(nn.utils.clip_grad_norm_(list(group.values()), limit)) for group in self.groups]
        applied = all(map(math.isfinite, norms))
        if applied:
            self.optimizer.step()
            self.skipped_in_a_row = 0
            record.policy_grad_norms += [norms[0]] if train_policy else []
            record.value_grad_norms.append(norms[1])
        else:
            self.skipped_in_a_row += 1
            record.skipped += 1
        record.steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.skipped_in_a_row >= self.config.max_nonfinite_steps:
            raise TrainingDivergedError(
                f"{self.skipped_in_a_row} optimizer steps in a row had a loss or gradient that is not finite. Lower "
                "`ppo.optimizer.learning_rate` or `ppo.value_learning_rate`, or set `model.dtype=float32`."
            )
        return applied


def schedule_factor(schedule: Schedule, warmup_fraction: float, done: int, total: int) -> float:
    """Return what the learning rate is multiplied by after ``done`` of ``total`` rollouts."""
    warmup = math.ceil(warmup_fraction * total)
    if done < warmup:
        return (done + 1) / warmup
    rest = (done - warmup) / max(total - warmup, 1)
    if schedule is Schedule.linear:
        return 1.0 - rest
    return 0.5 * (1.0 + math.cos(math.pi * rest)) if schedule is Schedule.cosine else 1.0


def update(learner: Learner, experience: Experience, *, rollout: int, train_policy: bool) -> UpdateRecord:
    """Make the optimizer steps that one rollout is good for.

    Every epoch passes over the minibatches in an order of its own, a pure function of the seed and the number of the
    rollout, so nothing about it has to be saved. Which completions share a minibatch stays as drawn: elsewhere every
    epoch draws anew, but then a microbatch would have another shape than the one in which it was scored, and the ratio
    would not be 1 to the last bit before the first update.
    """
    config, record = learner.config, UpdateRecord()
    for epoch in range(config.ppo_epochs):
        order = list(experience.minibatches)
        random.Random(f"{config.seed}/{rollout}/{epoch}").shuffle(order)
        for minibatch in order:
            kl = _minibatch(learner, minibatch, record, train_policy=train_policy)
            limit = config.update_kl_target
            if train_policy and limit is not None and kl > EARLY_STOP_FACTOR * limit:
                record.ended_early = True
                return record
    return record


def _minibatch(learner: Learner, batches: Sequence[Microbatch], record: UpdateRecord, *, train_policy: bool) -> float:
    """Make one optimizer step; returns the mean k3 between old and new policy, in nats per token."""
    step = StepSums(tokens=sum(batch.num_tokens for batch in batches))
    total = int(sum_over_processes(torch.tensor(float(step.tokens))))
    models, is_first = learner.models, record.steps == record.skipped
    if train_policy or models.shares_trunk:
        with models.policy(train=True) as policy:
            for batch in batches:
                _backward_policy(learner, policy, batch, step, total, train_policy=train_policy)
    if not models.shares_trunk:
        with models.value(train=True) as trunk:
            for batch in batches:
                values = models.value_head(states_of(trunk, batch).hidden)
                _value_loss(learner, values, batch, step, total).backward()  # type: ignore[no-untyped-call]
    if is_first:
        record.first_ratio_gap = max(record.first_ratio_gap, step.ratio_gap)
        record.first_clipped += step.sums.get("clipped", 0.0)
    if step.mean("ratio", total) > MAX_MEAN_RATIO:
        learner.optimizer.zero_grad(set_to_none=True)
        record.steps += 1
        record.skipped_ratio += 1
    elif learner.step(record, train_policy=train_policy):
        record.add(step)
    return step.mean("update_kl", total)


def _backward_policy(
    learner: Learner, policy: nn.Module, batch: Microbatch, step: StepSums, total: int, *, train_policy: bool
) -> None:
    config, models = learner.config, learner.models
    logprobs, values = forward(policy, batch, models, config.temperature, detach_values=not train_policy)
    losses: list[Tensor] = []
    if train_policy:
        result = clipped_policy_loss(
            logprobs, batch.logprobs, batch.advantages, num_tokens=total, clip_range=config.clip_range,
            clip_range_high=config.clip_range_high, dual_clip=config.dual_clip, weights=batch.weights,
        )  # fmt: skip
        losses.append(result.loss)
        step.add("policy_loss", result.loss.detach() * total)
        step.add("clipped", result.clipped)
        step.add("update_kl", result.kl)
        step.add("ratio", result.ratio)
        step.ratio_gap = max(step.ratio_gap, float(result.ratio_peak))
    if values is not None:
        # In the warm-up too, where nothing else is in the sum: Adam's second moments are of one scale all along.
        losses.append(config.value_coef * _value_loss(learner, values, batch, step, total))
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]


def _value_loss(learner: Learner, values: Tensor, batch: Microbatch, step: StepSums, total: int) -> Tensor:
    result = clipped_value_loss(
        values, batch.values, batch.returns, num_tokens=total, clip_range=learner.config.value_clip_range
    )
    step.add("value_loss", result.loss.detach() * total)
    step.add("value_clipped", result.clipped)
    return result.loss
