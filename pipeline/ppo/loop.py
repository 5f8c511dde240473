"""One iteration of PPO: sample, score, estimate, update, record. The whole algorithm in one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.ppo import PPOConfig
from pipeline.ppo.divergence import KLController, effective_sample_share, importance_weights, k3
from pipeline.ppo.experience import Experience, make_experience
from pipeline.ppo.processes import sum_over_processes
from pipeline.ppo.roles import ActorCritic
from pipeline.ppo.rollout import PromptItem, Rollout, Sampler
from pipeline.ppo.update import Learner, UpdateRecord, update
from pipeline.ppo.watch import told_apart
from pipeline.runtime.precision import float64

Row = dict[str, float | int]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the rewards said about a rollout."""

    total: Tensor  # [B] weighted sum, fp64
    by_name: Mapping[str, Tensor]  # [B] each, unweighted
    spread: Tensor | None = None  # [B] standard deviation between the members of an ensemble of reward models
    pattern_timeouts: int = 0  # verdicts of rules that took too long and count as not followed


Scorer = Callable[[Rollout], Scores]


@dataclass(kw_only=True)
class Loop:
    """Everything that an iteration needs. What changes from one to the next: weights, optimizer and controller."""

    config: PPOConfig
    models: ActorCritic
    learner: Learner
    sampler: Sampler
    scorer: Scorer
    prompts: Callable[[int], Sequence[PromptItem]]  # of rollout number n: a pure function of it
    controller: KLController

    def sample(self, prompts: Sequence[PromptItem], name: str) -> Rollout:
        """Sample one completion for each prompt from the policy; the name decides what is drawn."""
        sampling = SamplingConfig(
            max_new_tokens=self.config.max_new_tokens, temperature=self.config.temperature, top_p=1.0, top_k=0,
            seed=self.config.seed,
        )  # fmt: skip
        keys = [f"{name}/{number}" for number in range(len(prompts))]
        with self.models.policy() as policy:
            completions = self.sampler.sample(policy, prompts, sampling, keys)
        return Rollout(prompts=list(prompts), completions=completions)

    def iterate(self, number: int) -> Row:
        """Learn from rollout ``number``, counted from 0, and return its row of the record."""
        config, start = self.config, time.perf_counter()
        rate = self.learner.set_rate(number, config.num_rollouts)
        rollout = self.sample(self.prompts(number), f"rollout-{number}")
        sampled = time.perf_counter()
        scores, kl_coef = self.scorer(rollout), self.controller.coef
        experience = make_experience(rollout, scores.total, self.models, config, kl_coef, number=number)
        scored = time.perf_counter()
        record = update(self.learner, experience, rollout=number, train_policy=number >= config.value_warmup)
        self.controller.update(*_over_processes(experience.kl))
        updated = time.perf_counter()
        return {
            **_sampled(rollout, scores, experience, kl_coef),
            **_estimated(experience),
            **_learned(record),
            "learning_rate": rate,
            "episodes": (number + 1) * len(rollout.prompts),
            "seconds_rollout": sampled - start,
            "seconds_scoring": scored - sampled,
            "seconds_update": updated - scored,
        }


def _over_processes(kl: Tensor) -> tuple[float, int]:
    """Return mean and number of completions over all processes, which must all follow the same coefficient."""
    summed = float64(kl).sum()
    sums = torch.stack([summed, summed.new_tensor(len(kl))])
    total, count = sum_over_processes(sums).tolist()
    return total / count, int(count)


def _sampled(rollout: Rollout, scores: Scores, experience: Experience, kl_coef: float) -> Row:
    """What the policy wrote and how it was judged."""
    lengths = torch.tensor([float(completion.num_tokens) for completion in rollout.completions])
    total, kl = experience.scores.float().mean(), experience.kl.mean()
    k3s = k3(experience.joined("logprobs"), experience.joined("reference_logprobs")).sum() / len(rollout.prompts)
    return {
        "score": float(total),
        "score_std": float(experience.scores.float().std(correction=0)),
        "objective": float(total - kl_coef * kl),
        "told_apart": max(map(told_apart, scores.by_name.values())),
        **{f"reward_{name}": float(values.float().mean()) for name, values in scores.by_name.items()},
        **({} if scores.spread is None else {"reward_spread": float(scores.spread.float().mean())}),
        "pattern_timeouts": scores.pattern_timeouts,
        "kl": float(kl),
        "kl_k3": float(k3s),
        "kl_coef": kl_coef,
        "entropy": float(-experience.joined("logprobs").mean()),
        "completion_tokens": float(lengths.mean()),
        "finished_rate": rollout.finish_reasons.count("stop") / len(rollout.prompts),
    }


def _estimated(experience: Experience) -> Row:
    """How good the value model is, and how far the sampler is from the policy."""
    values, returns = experience.joined("values"), experience.joined("returns")
    spread = returns.var(correction=0)
    row: Row = {
        "advantage_mean": experience.advantage_mean,
        "advantage_std": experience.advantage_std,
        "explained_variance": float(1 - (returns - values).var(correction=0) / spread) if spread > 0 else 0.0,
    }
    if all(batch.engine_logprobs is not None for batch in experience.microbatches):
        ours, engine = experience.joined("logprobs"), experience.joined("engine_logprobs")
        gaps, weights = (ours - engine).abs(), importance_weights(ours, engine)
        row |= {
            "mismatch_mean": float(gaps.mean()),
            "mismatch_max": float(gaps.max()),
            "engine_kl": float(k3(engine, ours).mean()),
            "importance_weight_mean": float(weights.mean()),
            "importance_weight_max": float(weights.max()),
        }
    if all(batch.weights is not None for batch in experience.microbatches):
        row["effective_sample_share"] = effective_sample_share(experience.joined("weights"))
    return row


def _learned(record: UpdateRecord) -> Row:
    """What the optimizer steps did."""
    row: Row = {
        "value_loss": record.mean("value_loss"),
        "value_clip_fraction": record.mean("value_clipped"),
        "value_grad_norm": _mean(record.value_grad_norms),
        "optimizer_steps": record.steps,
        "skipped_steps": record.skipped,
        "skipped_ratio_steps": record.skipped_ratio,
        "update_ended_early": int(record.ended_early),
    }
    if record.policy_grad_norms:
        row |= {
            "policy_loss": record.mean("policy_loss"),
            "clip_fraction": record.mean("clipped"),
            "update_kl": record.mean("update_kl"),
            "ratio_mean": record.mean("ratio"),
            "ratio_gap": record.ratio_gap,
            "first_ratio_gap": record.first_ratio_gap,
            "first_clipped_tokens": record.first_clipped,
            "policy_grad_norm": _mean(record.policy_grad_norms),
        }
    return row


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
