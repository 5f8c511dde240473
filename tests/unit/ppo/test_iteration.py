"""One iteration on a ragged rollout against the definitions: plain loops over the logits of the whole model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from enumerable import PROMPT, SENTENCES, SeparateModels, make_config, make_loop, make_problem, separate_models

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.ppo import PPOConfig
from pipeline.config.shared import OptimizerConfig, Schedule
from pipeline.errors import TrainingDivergedError
from pipeline.losses.ppo import clipped_policy_loss
from pipeline.models.generation import Completion
from pipeline.ppo.experience import Experience, Microbatch, draw_minibatches, forward, make_experience
from pipeline.ppo.loop import Loop, Scores
from pipeline.ppo.measuring import measure
from pipeline.ppo.rollout import PromptItem, Rollout
from pipeline.ppo.update import Learner, schedule_factor, update

TEMPERATURE, KL_COEF, DISCOUNT, LAMBDA = 0.7, 0.4, 0.9, 0.8
CLIP, PENALTY, CAP = 2.0, 0.75, 1.5
LENGTHS, FINISHES = (1, 3, 2, 3), ("stop", "length", "stop", "length")  # sorted by length they stand in another order
SCORES = (0.5, 2.5, -3.0, -1.0)
CLIPPED = (0.5, 2.0 - PENALTY, -2.0, -1.0 - PENALTY)  # the penalty comes after the clipping
MISMATCH = (0.5, -0.25, 0.0, 0.125)  # how much likelier than the engine the policy finds each token of a row


def config(**changes: object) -> PPOConfig:
    values = {
        "temperature": TEMPERATURE, "discount": DISCOUNT, "gae_lambda": LAMBDA, "score_clip": CLIP, "ppo_epochs": 2,
        "missing_eos_penalty": PENALTY, "importance_cap": CAP, "whiten_advantages": False, "rollout_size": 4,
        "minibatch_size": 2, "microbatch_size": 1, "num_rollouts": 4, "kl_coef": KL_COEF, **changes,
    }  # fmt: skip
    return make_config(**values)


def models(*, shares_trunk: bool = False) -> SeparateModels:
    """A policy off its reference, and a value model that says something."""
    made = separate_models(shares_trunk=shares_trunk)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.policy_model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        made.value_head.linear.weight.copy_(0.3 * torch.randn(1, 64, generator=generator))
        made.value_head.linear.bias.fill_(0.25)
    return made


IDS = [SENTENCES[number].tolist()[:length] for number, length in zip((7, 61, 130, 215), LENGTHS, strict=True)]


def token_logprobs(model: torch.nn.Module, ids: Sequence[int]) -> list[float]:
    """From the logits of one row, without padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[0, *ids]])).logits[0, :-1].double() / TEMPERATURE
    return [float(row.log_softmax(dim=0)[token]) for row, token in zip(logits, ids, strict=True)]


def token_values(made: SeparateModels, ids: Sequence[int], *, trunk: torch.nn.Module) -> list[float]:
    """What is predicted before each token is drawn."""
    head = made.value_head.linear
    with torch.no_grad():
        states = trunk.model(input_ids=torch.tensor([[0, *ids]])).last_hidden_state[0, :-1].double()  # type: ignore[operator]
        return [float(state @ head.weight[0].double() + head.bias[0].double()) for state in states]


@cache
def rows() -> tuple[tuple[list[float], list[float], list[float]], ...]:
    """Log-probabilities of policy and reference, and values, of each completion."""
    made = models()
    return tuple(
        (token_logprobs(made.policy_model, ids), token_logprobs(made.reference_model, ids),
         token_values(made, ids, trunk=made.value_model))
        for ids in IDS
    )  # fmt: skip


def rollout() -> Rollout:
    completions = [
        Completion(ids=ids, text="", finish_reason=finish, logprobs=[value - gap for value in row[0]])
        for ids, finish, gap, row in zip(IDS, FINISHES, MISMATCH, rows(), strict=True)
    ]
    return Rollout(prompts=[PROMPT] * 4, completions=completions)


def expected(row: int) -> tuple[list[float], list[float]]:
    """Advantages and returns of a completion: each the sum over all later temporal differences."""
    ours, theirs, values = rows()[row]
    rewards = [-KL_COEF * (a - b) for a, b in zip(ours, theirs, strict=True)]
    rewards[-1] += CLIPPED[row]
    length = len(rewards)
    deltas = [r + DISCOUNT * v_next - v for r, v, v_next in zip(rewards, values, [*values[1:], 0.0], strict=True)]
    advantages = [sum((DISCOUNT * LAMBDA) ** (s - t) * deltas[s] for s in range(t, length)) for t in range(length)]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def scored(made: SeparateModels, settings: PPOConfig, number: int = 0) -> Experience:
    return make_experience(rollout(), torch.tensor(SCORES, dtype=torch.float64), made, settings, KL_COEF, number=number)


def by_row(experience: Experience, name: str) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for batch in experience.microbatches:
        spread = batch.padded(getattr(batch, name))
        found |= {row: spread[place, : LENGTHS[row]].tolist() for place, row in enumerate(batch.rows)}
    return [found[row] for row in range(4)]


@pytest.mark.parametrize("microbatch_size", [1, 2, 4])
def test_what_is_learned_from_equals_the_definitions(microbatch_size: int) -> None:
    experience = scored(models(), config(microbatch_size=microbatch_size, minibatch_size=4))
    assert [row for batch in experience.microbatches for row in batch.rows] == [1, 3, 2, 0], "else no order is tested"
    assert experience.scores.tolist() == pytest.approx(CLIPPED)
    for row in range(4):
        ours, theirs, values = rows()[row]
        advantages, returns = expected(row)
        for name, wanted in (
            ("logprobs", ours), ("reference_logprobs", theirs), ("values", values), ("advantages", advantages),
            ("returns", returns), ("weights", [min(math.exp(MISMATCH[row]), CAP)] * LENGTHS[row]),
        ):  # fmt: skip
            assert by_row(experience, name)[row] == pytest.approx(wanted, abs=2e-5), name
        assert experience.kl[row].item() == pytest.approx(sum(ours) - sum(theirs), abs=2e-5)
    plain = [value for row in range(4) for value in expected(row)[0]]
    assert experience.advantage_mean == pytest.approx(statistics.fmean(plain), abs=2e-5)
    assert experience.advantage_std == pytest.approx(statistics.pstdev(plain), abs=2e-5)


def test_whitened_advantages_leave_returns_and_the_record_as_they_were() -> None:
    plain, white = scored(models(), config()), scored(models(), config(whiten_advantages=True))
    values = [value for row in range(4) for value in expected(row)[0]]
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    for row in range(4):
        assert by_row(white, "advantages")[row] == pytest.approx(
            [(value - mean) / deviation for value in expected(row)[0]], abs=1e-4
        )
        assert by_row(white, "returns")[row] == by_row(plain, "returns")[row]
    assert (white.advantage_mean, white.advantage_std) == (plain.advantage_mean, plain.advantage_std)


class Fixed:
    """Hands out the rollout, and remembers what it was asked."""

    def sample(
        self, model: torch.nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        self.sampling, self.keys = sampling, list(keys)
        return rollout().completions


def make_fixed(made: SeparateModels, settings: PPOConfig) -> tuple[Loop, Fixed]:
    loop, sampler = make_loop(made, settings, make_problem()), Fixed()
    total = torch.tensor(SCORES, dtype=torch.float64)
    loop.sampler, loop.prompts = sampler, lambda number: [PROMPT] * 4
    spread = torch.tensor([0.1, 0.2, 0.3, 0.6])
    loop.scorer = lambda given: Scores(total=total, by_name={"sum": total, "same": torch.ones(4)}, spread=spread)
    return loop, sampler


def test_the_row_of_the_record_says_what_happened() -> None:
    loop, sampler = make_fixed(models(), config(num_rollouts=4, seed=23))
    row = loop.iterate(2)
    assert sampler.sampling == SamplingConfig(max_new_tokens=3, temperature=TEMPERATURE, top_p=1.0, top_k=0, seed=23)
    assert sampler.keys == [f"rollout-2/{number}" for number in range(4)]
    gaps = [a - b for ours, theirs, _ in rows() for a, b in zip(ours, theirs, strict=True)]
    logprobs = [value for ours, _, _ in rows() for value in ours]
    values, returns = [v for row in rows() for v in row[2]], [v for row in range(4) for v in expected(row)[1]]
    errors = [r - v for r, v in zip(returns, values, strict=True)]
    signed = [gap for gap, length in zip(MISMATCH, LENGTHS, strict=True) for _ in range(length)]
    mismatch = [abs(gap) for gap in signed]
    weights = [min(math.exp(gap), CAP) for gap, length in zip(MISMATCH, LENGTHS, strict=True) for _ in range(length)]
    wanted = {
        "score": statistics.fmean(CLIPPED),
        "score_std": statistics.pstdev(CLIPPED),
        "objective": statistics.fmean(CLIPPED) - KL_COEF * sum(gaps) / 4,
        "told_apart": 0.75,
        "reward_sum": statistics.fmean(SCORES),
        "reward_same": 1.0,
        "reward_spread": 0.3,
        "kl": sum(gaps) / 4,
        "kl_k3": sum(math.exp(-gap) - 1 + gap for gap in gaps) / 4,
        "kl_coef": KL_COEF,
        "entropy": -statistics.fmean(logprobs),
        "completion_tokens": 9 / 4,
        "finished_rate": 0.5,
        "explained_variance": 1 - statistics.pvariance(errors) / statistics.pvariance(returns),
        "mismatch_mean": statistics.fmean(mismatch),
        "mismatch_max": 0.5,
        "engine_kl": statistics.fmean(math.exp(gap) - 1 - gap for gap in signed),
        "importance_weight_mean": statistics.fmean(math.exp(gap) for gap in signed),
        "importance_weight_max": math.exp(0.5),
        "effective_sample_share": sum(weights) ** 2 / (9 * sum(weight**2 for weight in weights)),
        "learning_rate": 2e-3 * 0.5,  # two of four rollouts are done, and the schedule is linear
        "episodes": 12,
        "optimizer_steps": 4,  # two epochs of two minibatches
        "skipped_steps": 0,
        "skipped_ratio_steps": 0,
        "pattern_timeouts": 0,
        "update_ended_early": 0,
    }
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)


def test_a_measurement_is_the_bare_score_and_the_divergence_at_the_temperature_of_sampling() -> None:
    loop, sampler = make_fixed(models(), config())
    kept: list[Sequence[float]] = []
    found = measure(loop, [PROMPT] * 4, loop.scorer, 7, lambda _, scores: kept.append(scores))
    gaps = [a - b for ours, theirs, _ in rows() for a, b in zip(ours, theirs, strict=True)]
    assert sampler.keys == [f"monitor/{number}" for number in range(4)]
    assert found.kl == pytest.approx(sum(gaps) / 4, abs=1e-4)
    assert found.proxy == found.gold == kept[0] == list(SCORES), "neither clipped nor with a penalty"
    assert (found.step, found.finished_rate, found.completion_tokens) == (7, 0.5, list(LENGTHS))
    assert measure(loop, [PROMPT] * 4, None, 7).gold is None


def test_the_losses_of_one_step_are_those_of_the_settings() -> None:
    """One minibatch of all, so every ratio is 1: the loss is minus the mean of weight times advantage."""
    loop, _ = make_fixed(models(), config(ppo_epochs=1, minibatch_size=4, microbatch_size=2))
    row = loop.iterate(0)
    weighted = [min(math.exp(MISMATCH[row]), CAP) * value for row in range(4) for value in expected(row)[0]]
    assert row["policy_loss"] == pytest.approx(-statistics.fmean(weighted), abs=1e-4)
    squares = [value**2 for row in range(4) for value in expected(row)[0]]  # the value's error is the advantage
    assert row["value_loss"] == pytest.approx(0.5 * statistics.fmean(squares), abs=1e-4)
    assert row["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert row["clip_fraction"] == row["update_kl"] == row["ratio_gap"] == 0.0
    # Without weights it is another number.
    assert row["policy_loss"] != pytest.approx(-statistics.fmean(v for r in range(4) for v in expected(r)[0]), abs=1e-3)


@pytest.mark.parametrize("shares_trunk", [True, False])
def test_while_the_values_warm_up_the_policy_stays(shares_trunk: bool) -> None:
    made = models(shares_trunk=shares_trunk)
    loop, _ = make_fixed(made, config(value_warmup=2))
    before = [parameter.clone() for parameter in made.policy_model.parameters()]
    head = made.value_head.linear.weight.clone()

    def moved() -> bool:
        return any(not torch.equal(a, b) for a, b in zip(before, made.policy_model.parameters(), strict=True))

    for number in range(2):
        assert "policy_loss" not in loop.iterate(number)
    assert not moved()
    assert not torch.equal(head, made.value_head.linear.weight)
    assert "policy_loss" in loop.iterate(2)
    assert moved()


def test_where_the_trunk_is_shared_the_value_loss_counts_by_its_coefficient() -> None:
    """Gradients add up, so each doubling of the coefficient adds twice what the one before has added."""

    def gradient(value_coef: float) -> torch.Tensor:
        made = models(shares_trunk=True)
        settings = config(ppo_epochs=1, minibatch_size=4, value_coef=value_coef)
        settings.optimizer.max_grad_norm = 1e9
        learner, seen = Learner(made, settings), []
        learner.optimizer.register_step_pre_hook(
            lambda *_: seen.append(torch.cat([p.grad.flatten() for p in learner.policy.values() if p.grad is not None]))
        )
        update(learner, scored(made, settings), rollout=0, train_policy=True)
        return seen[0]

    half, one, two = gradient(0.5), gradient(1.0), gradient(2.0)
    torch.testing.assert_close(two - one, 2 * (one - half), rtol=1e-3, atol=1e-6)
    assert (two - one).norm() > 0.1 * one.norm()


@pytest.mark.parametrize(("limit", "steps", "early"), [(None, 12, False), (1e6, 12, False), (1e-9, 2, True)])
def test_an_update_that_went_too_far_ends(limit: float | None, steps: int, early: bool) -> None:
    """The first minibatch is at a ratio of 1; with a rate so large the second is beyond any small limit."""
    settings = config(ppo_epochs=6, update_kl_target=limit, optimizer=OptimizerConfig(learning_rate=1e-2))
    made = models()
    learner = Learner(made, settings)
    record = update(learner, scored(made, settings), rollout=0, train_policy=True)
    assert (record.steps, record.ended_early) == (steps, early)


def test_the_limit_of_an_update_is_one_and_a_half_times_the_target() -> None:
    """The divergence of the first step that has one lies between the target and its one and a half fold, or beyond."""
    made, settings = models(), config(ppo_epochs=2, minibatch_size=4, optimizer=OptimizerConfig(learning_rate=2e-3))
    free = update(Learner(made, settings), scored(made, settings), rollout=0, train_policy=True)
    reached = free.sums["update_kl"] / 9  # of the second step; the first one has none
    for target, early in ((reached / 1.25, False), (reached / 1.75, True)):
        made, limited = models(), replace(settings, update_kl_target=target)
        assert update(Learner(made, limited), scored(made, limited), rollout=0, train_policy=True).ended_early is early


def test_ratios_before_and_after_the_first_update_are_told_apart() -> None:
    made, settings = models(), config(ppo_epochs=4, optimizer=OptimizerConfig(learning_rate=1e-2))
    record = update(Learner(made, settings), scored(made, settings), rollout=0, train_policy=True)
    assert record.first_ratio_gap == record.first_clipped == 0.0
    assert record.ratio_gap > 0.2
    assert record.sums["clipped"] > 0


@pytest.mark.parametrize(
    ("schedule", "warmup", "factors"),
    [
        (Schedule.constant, 0.0, [1, 1, 1, 1, 1]),
        (Schedule.constant, 0.3, [0.5, 1, 1, 1, 1]),  # 1.5 rollouts are rounded up
        (Schedule.linear, 0.0, [1, 0.8, 0.6, 0.4, 0.2]),
        (Schedule.linear, 0.4, [0.5, 1, 1, 2 / 3, 1 / 3]),
        (Schedule.cosine, 0.2, [1, 1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]),
    ],
)
def test_schedules_by_hand(schedule: Schedule, warmup: float, factors: list[float]) -> None:
    assert [schedule_factor(schedule, warmup, done, 5) for done in range(5)] == pytest.approx(factors)


def test_the_optimizer_has_the_settings_and_a_rate_for_each_of_the_two() -> None:
    optimizer = OptimizerConfig(
        learning_rate=0.01, beta1=0.7, beta2=0.8, epsilon=1e-3, weight_decay=0.05, schedule=Schedule.linear,
        warmup_fraction=0.0,
    )  # fmt: skip
    learner = Learner(models(), config(optimizer=optimizer, value_learning_rate=0.04))
    assert learner.set_rate(1, 4) == pytest.approx(0.0075)
    assert [group["lr"] for group in learner.optimizer.param_groups] == pytest.approx([0.0075, 0.03])
    for group in learner.optimizer.param_groups:
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.7, 0.8), 1e-3, 0.05)


def test_policy_and_value_are_clipped_each_by_itself_and_what_is_not_finite_is_skipped() -> None:
    """With a gradient of norm 30 and one of norm 0.4 and a limit of 1 only the first is scaled."""
    made = models()
    learner = Learner(made, config(max_nonfinite_steps=2))
    applied: list[tuple[float, float]] = []

    def norm(group: dict[str, torch.nn.Parameter]) -> float:
        return math.sqrt(sum(float((p.grad**2).sum()) for p in group.values() if p.grad is not None))

    learner.optimizer.register_step_pre_hook(lambda *_: applied.append((norm(learner.policy), norm(learner.value))))
    learner.config.optimizer.max_grad_norm = 1.0
    settings = learner.config
    record = update(learner, scored(made, settings), rollout=0, train_policy=True)
    applied.clear()

    def step(policy: float, value: float) -> None:
        for group, size in ((learner.policy, policy), (learner.value, value)):
            first = next(iter(group.values()))
            first.grad = torch.zeros_like(first)
            first.grad.view(-1)[0] = size
        learner.step(record, train_policy=True)

    step(30.0, 0.4)
    assert applied == [pytest.approx((1.0, 0.4), rel=1e-4)]
    steps = record.steps
    step(math.nan, 0.4)
    step(30.0, 0.4)  # between two that are skipped: they are no row
    step(30.0, math.inf)
    assert (len(applied), record.skipped, record.steps) == (2, 2, steps + 3)
    with pytest.raises(TrainingDivergedError, match="2 optimizer steps in a row"):
        step(math.inf, 0.4)


def test_every_epoch_of_every_rollout_has_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def note(policy: torch.nn.Module, batch: Microbatch, *rest: Any, **more: Any) -> Any:
        seen.append(batch.rows[0])
        return forward(policy, batch, *rest, **more)

    monkeypatch.setattr("pipeline.ppo.update.forward", note)
    made, settings = models(), config(minibatch_size=1, ppo_epochs=3)
    for number in range(4):
        update(Learner(made, settings), scored(made, settings, number), rollout=number, train_policy=True)
    orders = [tuple(seen[start : start + 4]) for start in range(0, len(seen), 4)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len(set(orders[:3])) > 1, "the epochs of a rollout"
    assert len({tuple(orders[start : start + 3]) for start in range(0, 12, 3)}) == 4, "the rollouts"


def test_which_completions_share_a_step_is_drawn_for_every_rollout_and_seed() -> None:
    drawn = [draw_minibatches(12, 4, seed=seed, rollout=number) for seed, number in ((1, 0), (1, 1), (2, 0), (1, 0))]
    assert all(sorted(row for part in parts for row in part) == list(range(12)) for parts in drawn)
    assert all([len(part) for part in parts] == [4, 4, 4] for parts in drawn)
    together = [{frozenset(part) for part in parts} for parts in drawn]
    assert together[0] == together[3]
    assert together[0] != together[1] != together[2] != together[0]
    assert frozenset(range(4)) not in together[0], "else it is no draw"


@pytest.mark.parametrize("microbatch_size", [1, 2])
def test_the_microbatches_of_a_minibatch_are_sorted_by_length_and_hold_what_was_drawn(microbatch_size: int) -> None:
    settings = config(microbatch_size=microbatch_size)
    experience = scored(models(), settings, 3)
    found = [[row for batch in minibatch for row in batch.rows] for minibatch in experience.minibatches]
    drawn = draw_minibatches(4, 2, seed=settings.seed, rollout=3)
    assert [set(part) for part in found] == [set(part) for part in drawn]
    assert all([LENGTHS[row] for row in part] == sorted((LENGTHS[row] for row in part), reverse=True) for part in found)
    assert all(len(batch.rows) == microbatch_size for batch in experience.microbatches)


def broken_first(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the new log-probabilities of the very first microbatch."""
    calls: list[int] = []

    def change_one(logprobs: torch.Tensor, *rest: Any, **more: Any) -> Any:
        calls.append(1)
        return clipped_policy_loss(change(logprobs) if len(calls) == 1 else logprobs, *rest, **more)

    monkeypatch.setattr("pipeline.ppo.update.clipped_policy_loss", change_one)


def test_a_step_that_is_not_finite_is_in_no_mean_and_leaves_the_early_stop_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first minibatch is skipped, the second is the first update, and the third is beyond the limit."""
    settings = config(ppo_epochs=6, update_kl_target=1e-9, optimizer=OptimizerConfig(learning_rate=1e-2))
    made = models()
    experience = scored(made, settings)
    broken_first(monkeypatch, lambda logprobs: logprobs * math.nan)
    record = update(Learner(made, settings), experience, rollout=0, train_policy=True)
    assert (record.steps, record.skipped, record.ended_early) == (3, 1, True)
    assert record.tokens in {a + b for a in LENGTHS for b in LENGTHS} | {9}, "of the two that were made"
    assert all(math.isfinite(value) for value in record.sums.values())
    assert record.mean("update_kl") > 1e-9
    assert record.first_ratio_gap == 0.0, "of the first minibatch after which something moved"


@pytest.mark.parametrize(("factor", "skipped"), [(1e3, 1), (5.0, 0)])
def test_a_minibatch_whose_samples_say_nothing_about_the_policy_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, factor: float, skipped: int
) -> None:
    settings = config(ppo_epochs=1, minibatch_size=4, microbatch_size=4, update_kl_target=None)
    made = models()
    experience = scored(made, settings)
    before = [parameter.clone() for parameter in made.policy_model.parameters()]
    broken_first(monkeypatch, lambda logprobs: logprobs + math.log(factor))
    record = update(Learner(made, settings), experience, rollout=0, train_policy=True)
    assert (record.steps, record.skipped, record.skipped_ratio) == (1, 0, skipped)
    moved = any(not torch.equal(a, b) for a, b in zip(before, made.policy_model.parameters(), strict=True))
    assert moved is not bool(skipped)
    assert all(parameter.grad is None for parameter in made.policy_model.parameters())
    assert record.mean("ratio") == pytest.approx(0.0 if skipped else factor, rel=1e-4)


def test_the_head_on_the_policys_states_learns_from_a_loss_of_one_scale_all_along() -> None:
    """Adam has one memory of the head's gradients: what is scaled after the warm-up is scaled in it."""

    def gradient(*, train_policy: bool) -> torch.Tensor:
        made, seen = models(shares_trunk=True), []
        settings = config(ppo_epochs=1, minibatch_size=4, value_coef=0.25)
        settings.optimizer.max_grad_norm = 1e9
        learner = Learner(made, settings)
        learner.optimizer.register_step_pre_hook(lambda *_: seen.append(made.value_head.linear.weight.grad.clone()))
        update(learner, scored(made, settings), rollout=0, train_policy=train_policy)
        return seen[0]

    torch.testing.assert_close(gradient(train_policy=False), gradient(train_policy=True))


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({}, (-1.2 + 1.4) / 2),  # a ratio of 1.4: gain capped at 1.2, loss kept
        ({"clip_range_high": 0.3}, (-1.3 + 1.4) / 2),
        ({"clip_range": 0.5}, 0.0),
        ({"dual_clip": 1.1}, (-1.2 + 1.1) / 2),
    ],
)
def test_the_clipping_of_the_policy_is_that_of_the_settings(changes: dict[str, float], loss: float) -> None:
    """Two completions of three tokens with advantages 1 and -1, 1.4 times as likely as when they were sampled."""
    made, settings = models(), config(ppo_epochs=1, minibatch_size=4, importance_cap=None, **changes)
    experience = scored(made, settings)
    experience.minibatches = [[batch for batch in experience.microbatches if batch.num_tokens == 3]]
    for batch, advantage in zip(experience.microbatches, (1.0, -1.0), strict=True):
        batch.logprobs = batch.logprobs - math.log(1.4)
        batch.advantages = torch.full_like(batch.advantages, advantage)
    record = update(Learner(made, settings), experience, rollout=0, train_policy=True)
    assert record.mean("policy_loss") == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(("clip_range", "value_clip_range", "clips"), [(0.5, 1e-4, True), (1e-4, 1e3, False)])
def test_values_are_clipped_by_a_range_of_their_own(clip_range: float, value_clip_range: float, clips: bool) -> None:
    made, settings = models(), config(clip_range=clip_range, value_clip_range=value_clip_range)
    settings.optimizer.learning_rate = 1e-4
    record = update(Learner(made, settings), scored(made, settings), rollout=0, train_policy=True)
    assert (record.sums["value_clipped"] > 0) is clips
    assert (record.sums["clipped"] > 0) is not clips
