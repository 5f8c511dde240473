"""What a PPO run may say that it has shown: decided by intervals, with margin, number of items and power."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.config.ppo import MonitorConfig, PPOConfig
from pipeline.ppo.monitor import Measurement, Monitor
from pipeline.ppo.watch import Watchdog
from pipeline.stages import ppo_course
from pipeline.stages.ppo_course import PPOCourse
from pipeline.stages.ppo_sealing import decide_gates

STANDARD_ERROR = 0.1 / 3**0.5  # of the mean of four changes that are 0.1 above or below it
T, Z = 3.182446, 0.841621  # quantiles: 97.5 % of t with three degrees of freedom, 80 % of the normal


def course(changes: Sequence[float], *, margin: float, told_apart: Sequence[float] = (0.5,)) -> PPOCourse:
    """Four prompts, measured before training and at rollout 5: the gold changed by this much, the score by as much."""
    monitor = Monitor(margin=margin, confidence=0.95, kl_budget=None)
    for step, scores in ((0, [0.0] * 4), (5, list(changes))):
        monitor.add(
            Measurement(step=step, prompts=list("abcd"), kl=0.0, proxy=scores, gold=scores, completion_tokens=[1] * 4,
                        finished_rate=1.0, distinct_2=1.0)
        )  # fmt: skip
    config = PPOConfig(rollout_size=8, monitor=MonitorConfig(margin=margin))
    stands_in = SimpleNamespace(told_apart=list(told_apart), monitor=monitor, loop=SimpleNamespace(config=config))
    return cast(PPOCourse, stands_in)


def decided(*given: Any, step: int = 5, **named: Any) -> dict[str, dict[str, Any]]:
    return {gate["name"]: gate for gate in decide_gates(course(*given, **named), step)}


@pytest.mark.parametrize(
    ("mean", "margin", "holds", "rises"),
    [
        (0.3, 0.05, "PASS", "PASS"),  # 0.116 to 0.484
        (0.1, 0.05, "INCONCLUSIVE", "INCONCLUSIVE"),  # -0.084 to 0.284
        (0.1, 0.1, "PASS", "INCONCLUSIVE"),  # a wider margin is met by the same numbers
        (-0.3, 0.05, "FAIL", "FAIL"),
    ],
)
def test_the_whole_interval_decides_against_the_margin(mean: float, margin: float, holds: str, rises: str) -> None:
    gates = decided([mean - 0.1, mean + 0.1] * 2, margin=margin)
    gold = gates["gold_holds"]
    assert (gold["outcome"], gates["score_rises"]["outcome"]) == (holds, rises)
    assert gold["low"] == pytest.approx(mean - T * STANDARD_ERROR, abs=1e-6)
    assert gold["minimum_detectable"] == pytest.approx((T + Z) * STANDARD_ERROR, abs=1e-6)
    for said in (
        f"gold may fall by {margin:g}",
        "4 completions of 4 prompts",
        "0.232 would be seen four times in five",
    ):
        assert said in gold["reason"]


def test_a_policy_that_was_rolled_back_to_the_start_has_kept_its_gold_and_won_nothing() -> None:
    gates = decided([-0.5] * 4, margin=0.05, step=0)
    assert (gates["gold_holds"]["outcome"], gates["score_rises"]["outcome"]) == ("PASS", "FAIL")
    assert "the policy delivered is the one that came in" in gates["score_rises"]["reason"]


def test_where_no_score_moved_nothing_is_shown() -> None:
    gates = decided([0.0] * 4, margin=0.05)
    assert gates["score_rises"]["outcome"] == "INCONCLUSIVE"


@pytest.mark.parametrize(("shares", "outcome"), [((0.0, 0.06), "FAIL"), ((0.0, 0.2), "PASS")])
def test_rewards_that_tell_too_few_completions_apart_fail_the_run(shares: tuple[float, ...], outcome: str) -> None:
    """The mean over two rollouts of eight: 3 % and 10 % of 16."""
    gate = decided([0.0] * 4, margin=0.05, told_apart=shares)["rewards_tell_apart"]
    assert (gate["outcome"], gate["n"]) == (outcome, 16)


@pytest.mark.parametrize(("gold", "told"), [(-1.0, ["ppo: over-optimisation"]), (1.0, [])])
def test_a_gold_score_that_falls_while_the_score_rises_calls_for_attention(
    monkeypatch: pytest.MonkeyPatch, gold: float, told: list[str]
) -> None:
    def measured(loop: Any, held_out: Any, scorer: Any, step: int, keep: Any) -> Measurement:
        around = [0.9, 1.1] * 4 if step else [0.0] * 8
        return Measurement(
            step=step, prompts=list("abcdefgh"), kl=0.0, proxy=[n + rise for n, rise in enumerate(around)],
            gold=[gold * rise for rise in around], completion_tokens=[1] * 8, finished_rate=1.0, distinct_2=1.0,
        )  # fmt: skip

    monkeypatch.setattr(ppo_course, "measure", measured)
    probe = SimpleNamespace(drift=lambda loop: 0.0)
    monkeypatch.setattr(ppo_course, "ReferenceProbe", SimpleNamespace(of=lambda loop, prompts: probe))
    alerts: list[tuple[str, str]] = []
    run = SimpleNamespace(name="ppo", alert=lambda *told: alerts.append(told), notice=lambda text: None)
    config = PPOConfig(rollout_size=8, monitor=MonitorConfig(every=2))
    job, loop = (cast(Any, SimpleNamespace(**held)) for held in ({"run": run}, {"config": config}))
    watchdog = Watchdog(warmup=0, in_fp32=True)
    running = PPOCourse(job=job, loop=loop, held_out=[cast(Any, None)], gold=None, watchdog=watchdog)
    for step in (0, 2):
        running._measure(step)
    assert [title for title, _ in alerts] == told
    assert all("Since rollout 0 the score rose by 1.000 and the gold score fell by 1.000" in text for _, text in alerts)
