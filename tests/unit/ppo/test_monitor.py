"""The monitor fires when the gold falls while the score rises, and says which policy to deliver."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.ppo import PPOConfig
from pipeline.ppo.monitor import Measurement, Monitor, distinct_pairs
from pipeline.ppo.signatures import SIGNATURES
from pipeline.ppo.watch import Watchdog, nothing_to_learn, told_apart


def measured(step: int, proxy: float, gold: float | None, kl: float = 1.0) -> Measurement:
    """Twenty prompts around a mean."""
    offsets = [0.01 * (number - 9.5) for number in range(20)]
    return Measurement(
        step=step, kl=kl, prompts=[str(number) for number in range(20)], proxy=[proxy + offset for offset in offsets],
        gold=None if gold is None else [gold - offset * (1 + step / 100) for offset in offsets],
        completion_tokens=list(range(20)), finished_rate=1.0, distinct_2=0.5,
    )  # fmt: skip


def monitor(**changes: float | None) -> Monitor:
    values = {"margin": 0.0, "confidence": 0.95, "kl_budget": None, **changes}
    return Monitor(**values)  # type: ignore[arg-type]


def test_changes_since_the_start_know_which_completions_share_a_prompt() -> None:
    """Four completions of two prompts; the gold rose by 1 for both of the first and by 3 for both of the second.

    Means of the prompts 1 and 3: 2 on average, standard error 1, and t with one degree of freedom is 12.706.
    """
    prompts = ["a", "b", "a", "b"]
    rest = {"kl": 0.0, "completion_tokens": [1] * 4, "finished_rate": 1.0, "distinct_2": 1.0}
    watched = monitor()
    for step, gold in ((0, [0.0, 0.0, 1.0, 1.0]), (5, [1.0, 3.0, 2.0, 4.0])):
        watched.add(Measurement(step=step, prompts=prompts, proxy=[float(step)] * 4, gold=gold, **rest))  # type: ignore[arg-type]
    changes = watched.changes(5)
    assert (changes["gold"].n, changes["gold"].clusters) == (4, 2)
    assert changes["gold"].estimate == pytest.approx(2.0)
    assert changes["gold"].low == pytest.approx(2.0 - 12.7062, abs=1e-3)
    assert changes["score"].estimate == 5.0


def test_it_fires_once_and_the_best_gold_is_delivered() -> None:
    watched = monitor()
    assert watched.add(measured(0, 0.0, 0.5)) is None
    assert watched.add(measured(5, 1.0, 0.9)) is None
    found = watched.add(measured(10, 2.0, 0.4))
    assert found is not None
    assert (found.step, found.best_step, found.n) == (10, 5, 20)
    assert found.gold_change == pytest.approx(-0.5, abs=1e-6)
    assert found.low <= found.gold_change <= found.high < 0
    assert watched.add(measured(15, 3.0, 0.1)) is None
    assert watched.chosen_step(rollback=True, last_step=15) == (5, "best gold score inside the budget")
    assert watched.chosen_step(rollback=False, last_step=15) == (15, "last step")


@pytest.mark.parametrize(
    ("proxy", "gold", "margin"), [(2.0, 0.95, 0.0), (-1.0, 0.4, 0.0), (2.0, 0.4, 0.6)], ids=["rose", "both", "margin"]
)
def test_it_is_silent_where_gold_rose_or_both_fell_or_the_fall_is_within_the_margin(
    proxy: float, gold: float, margin: float
) -> None:
    watched = monitor(margin=margin)
    watched.add(measured(0, 0.0, 0.5))
    watched.add(measured(5, 1.0, 0.9))
    assert watched.add(measured(10, proxy, gold)) is None


def test_what_is_beyond_the_budget_is_never_delivered() -> None:
    watched = monitor(kl_budget=5.0)
    for step, gold, kl in ((0, 0.5, 0.0), (5, 0.6, 3.0), (10, 0.9, 6.0)):
        watched.add(measured(step, 1.0, gold, kl))
    assert watched.chosen_step(rollback=True, last_step=10)[0] == 5
    assert watched.chosen_step(rollback=False, last_step=10) == (5, "last one inside the KL budget")


def test_without_a_gold_score_the_last_step_is_delivered_and_the_state_survives() -> None:
    watched = monitor()
    watched.add(measured(0, 0.0, None))
    watched.add(measured(5, 1.0, None))
    assert watched.chosen_step(rollback=True, last_step=7) == (7, "last step")
    again = monitor()
    again.restore(watched.facts())
    assert again == watched


def test_scores_by_length() -> None:
    """Twenty completions of 0 to 19 tokens: buckets of 7, 7 and 6."""
    buckets = measured(0, 0.0, 1.0).by_length()
    assert [(bucket["shortest"], bucket["longest"], bucket["n"]) for bucket in buckets] == [
        (0.0, 6.0, 7.0), (7.0, 13.0, 7.0), (14.0, 19.0, 6.0)
    ]  # fmt: skip
    assert buckets[0]["score"] == pytest.approx(-0.065)
    assert buckets[0]["score"] < buckets[2]["score"]


def test_distinct_pairs_worked_by_hand() -> None:
    assert distinct_pairs([[1, 2, 1, 2], [1, 2]]) == pytest.approx(2 / 4)
    assert distinct_pairs([[1]]) == 1.0


@pytest.mark.parametrize(
    ("values", "share"), [([0, 0, 0, 1], 0.25), ([1, 1, 1, 1], 0.0), ([0.1, 0.2, 0.3, 0.4], 0.75), ([0, 1, 1, 0], 0.5)]
)
def test_how_many_completions_a_reward_tells_from_the_rest(values: list[float], share: float) -> None:
    assert told_apart(torch.tensor(values)) == share


def test_scores_that_are_nearly_all_the_same_are_said_to_teach_nothing() -> None:
    scores = torch.zeros(40)
    assert nothing_to_learn(torch.arange(40.0), "grpo") is None
    scores[:2] = 1.0
    assert nothing_to_learn(scores, "grpo") is None, "two of forty are five in a hundred"
    scores[1] = 0.0
    said = nothing_to_learn(scores, "grpo")
    assert said is not None
    assert said.startswith("98% of 40 held-out completions have the score 0: ")
    assert "`grpo.rewards`" in said


HEALTHY = {
    "first_ratio_gap": 0.0, "kl": 3.0, "policy_grad_norm": 0.5, "mismatch_mean": 1e-5, "explained_variance": 0.4,
    "clip_fraction": 0.1, "finished_rate": 0.95, "entropy": 1.2, "score_std": 0.8, "skipped_steps": 0,
    "told_apart": 0.3, "reward_spread": 0.2, "skipped_ratio_steps": 0, "reference_drift": 0.0,
    "monitor_distinct_2_share": 0.9,
}  # fmt: skip
SICK = {
    "first_ratio": {"first_ratio_gap": 0.2},
    "negative_kl": {"kl": -3.0},
    "kl_stays_zero": {"kl": 0.0, "policy_grad_norm": 0.0},
    "kl_zero_despite_gradient": {"kl": 0.0, "policy_grad_norm": 0.5},
    "reference_drift": {"reference_drift": 1e-6},
    "mismatch": {"mismatch_mean": 0.3},
    "mismatch_in_fp32": {"mismatch_mean": 3e-4},
    "degenerate_text": {"monitor_distinct_2_share": 0.2},
    "ratio_too_far": {"skipped_ratio_steps": 1},
    "value_model_useless": {"explained_variance": -0.5},
    "clipping": {"clip_fraction": 0.5},
    "never_ends": {"finished_rate": 0.1},
    "entropy_collapse": {"entropy": 0.01},
    "constant_score": {"score_std": 0.0},
    "rewards_say_nothing": {"told_apart": 0.02},
    "members_part": {"reward_spread": 0.4},
    "skipped": {"skipped_steps": 2},
}


def watchdog_for(name: str = "") -> Watchdog:
    return Watchdog(warmup=2, in_fp32=name == "mismatch_in_fp32")


def test_every_signature_has_a_case() -> None:
    assert set(SICK) == {signature.name for signature in SIGNATURES}


@pytest.mark.parametrize("name", SICK)
def test_a_signature_is_told_once_with_its_cause_and_key(name: str) -> None:
    watchdog = watchdog_for(name)
    rows = [HEALTHY, *[{**HEALTHY, **SICK[name]}] * 30]
    told = [text for number, row in enumerate(rows) for text in watchdog.warnings(row, number)]
    assert [text.partition(":")[0] for text in told] == [name]
    for key in re.findall(r"`ppo\.([\w.]+)", told[0]):
        at: Any = PPOConfig()
        for part in key.split("."):
            assert part in {field.name for field in fields(at)}, f"ppo.{key} is no key"
            at = getattr(at, part)


def test_members_part_where_their_spread_grows_and_not_where_it_is_large() -> None:
    for spreads, told in (((0.2, 0.31, 0.31, 0.31), 1), ((0.2, 0.29, 0.29, 0.29), 0), ((0.9, 0.9, 0.9, 0.9), 0)):
        watchdog = watchdog_for()
        found = [watchdog.warnings({"reward_spread": spread}, number) for number, spread in enumerate(spreads)]
        assert [len(texts) for texts in found] == [0, 0, 0, told]


@pytest.mark.parametrize("name", ["mismatch", "mismatch_in_fp32"])
def test_a_healthy_run_says_nothing(name: str) -> None:
    watchdog = watchdog_for(name)
    assert [text for number in range(30) for text in watchdog.warnings(HEALTHY, number)] == []


def test_in_bfloat16_the_mismatch_of_rounding_is_healthy_and_in_fp32_it_is_not() -> None:
    row = {**HEALTHY, "mismatch_mean": 0.03}
    assert Watchdog(warmup=0, in_fp32=False).warnings(row, 9) == []
    [told] = Watchdog(warmup=0, in_fp32=True).warnings(row, 9)
    assert told.startswith("mismatch_in_fp32: ")


def test_a_useless_value_model_is_told_of_within_the_rollouts_that_presets_make() -> None:
    """With the default warm-up of two: rollouts 5, 6 and 7 of eight."""
    watchdog, row = Watchdog(warmup=2, in_fp32=True), {**HEALTHY, "explained_variance": -0.2}
    said = [number + 1 for number in range(8) if watchdog.warnings(row, number)]
    assert said == [7]


def test_a_policy_that_has_just_begun_is_at_zero_and_healthy() -> None:
    """The first rollout that the policy learns from is drawn before its first update."""
    watchdog = watchdog_for()
    rows = [{**HEALTHY, "kl": 0.0}] * 2 + [HEALTHY]
    assert [text for number, row in enumerate(rows * 5) for text in watchdog.warnings(row, number)] == []


def test_a_streak_that_breaks_begins_anew() -> None:
    watchdog = watchdog_for()
    for number in range(12):
        row = {**HEALTHY, "clip_fraction": 0.1 if number % 3 == 2 else 0.9}
        assert watchdog.warnings(row, number) == []


def test_the_page_prints_the_thresholds_in_force(repository: Path) -> None:
    """And how many rollouts in a row it takes, and from which rollout on."""
    page = (repository / "docs" / "ppo.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells[2:4] for line in page.splitlines() if len(cells := line.split("|")) == 5}
    patience, first = (
        {1: None, 3: "three times in a row"},
        {None: None, 2: "from the third rollout after `value_warmup`"},
    )
    for signature in SIGNATURES:
        metric, said = rows[signature.name]
        limit, *rest = [part.strip() for part in said.split(",")]
        assert f"`{signature.metric}`" in metric, signature.name
        assert f"{signature.threshold:g}" in limit.split(), signature.name
        assert rest == [text for text in (patience[signature.patience], first[signature.after]) if text], signature.name
        assert ("fp32" in metric) is (signature.in_fp32 is not None), signature.name
