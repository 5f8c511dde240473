"""The stage `ppo` on a tiny model: resuming, stopping, rolling back, and what a run says about itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ppo_jobs import PPOWorkshop, make_workshop, small_config
from safetensors.numpy import load_file
from sft_jobs import metric_rows, tensors

from pipeline.artifacts.artifact import Artifact
from pipeline.config.ppo import MonitorConfig, NamedReward, ValueModel
from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig
from pipeline.errors import ConfigError, Interrupted
from pipeline.models.loading import add_lora, load_base, save_adapter
from pipeline.ppo.loop import Loop
from pipeline.stages.watchdogs import NUM_KEPT

NO_METRICS = {"step", "time"}  # of a row: where it stands
TIMINGS = {"seconds_rollout", "seconds_scoring", "seconds_update", "memory_gb"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> PPOWorkshop:
    return make_workshop(tmp_path_factory.mktemp("ppo"))


@pytest.fixture(scope="module")
def reference(workshop: PPOWorkshop) -> Artifact:
    """A run that nobody stops."""
    return workshop.train(small_config(), "reference")


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    rows = metric_rows(artifact.path / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def require_equal(artifact: Artifact, reference: Artifact) -> None:
    ours, wanted = tensors(artifact.path / "adapter"), tensors(reference.path / "adapter")
    assert ours.keys() == wanted.keys()
    assert all(np.array_equal(ours[key], wanted[key]) for key in wanted)
    values, expected = (load_file(one.path / "value" / "value.safetensors") for one in (artifact, reference))
    assert all(np.array_equal(values[key], expected[key]) for key in expected)
    assert artifact.manifest.parts == reference.manifest.parts
    assert rows_of(artifact) == rows_of(reference)
    assert (artifact.path / "written.jsonl").read_bytes() == (reference.path / "written.jsonl").read_bytes()


def test_every_rollout_has_a_row_and_the_first_update_starts_at_ratio_one(reference: Artifact) -> None:
    rows = rows_of(reference)
    assert [row["step"] for row in rows] == list(range(7))
    assert rows[0]["monitor_kl"] == 0.0, "the policy starts as its reference"
    assert "policy_loss" not in rows[1], "the first rollout is for the value model alone"
    assert rows[2]["kl"] == 0.0
    assert rows[2]["first_ratio_gap"] == 0.0
    assert rows[2]["first_clipped_tokens"] == 0.0
    assert rows[2]["ratio_gap"] > 0.0
    assert rows[3]["kl"] != 0.0, "the policy moved"
    measured = [row["step"] for row in rows if "monitor_score" in row]
    texts = metric_rows(reference.path / "written.jsonl")
    assert [text["step"] for text in texts] == [step for step in measured for _ in range(NUM_KEPT)]
    assert all(text["prompt"] and {"completion", "score"} <= text.keys() for text in texts)


def test_every_metric_that_a_run_records_is_explained_on_the_page(reference: Artifact, repository: Path) -> None:
    page = (repository / "docs" / "ppo.md").read_text(encoding="utf-8")
    table = page.partition("## Reading a run")[2].partition("\nThe run warns")[0]
    rows = [re.split(r"(?<!\\)\|", line) for line in table.splitlines() if line.startswith("| `")]
    assert {len(cells) for cells in rows} == {6}
    explained = {name for cells in rows for name in re.findall(r"`(\w+\*?)`", cells[1])}
    recorded = {name for row in metric_rows(reference.path / "metrics.jsonl") for name in row} - NO_METRICS
    assert {name for name in recorded if not any(fnmatch(name, pattern) for pattern in explained)} == set()
    never = {pattern for pattern in explained if not any(fnmatch(name, pattern) for name in recorded)}
    assert never == {"reward_spread"}, "of an ensemble of reward models"


def test_in_bfloat16_too_the_first_update_starts_at_ratio_one(workshop: PPOWorkshop) -> None:
    """What scores a rollout must round as what trains on it does, whichever attention a CPU trains with."""
    low = replace(workshop, model=replace(workshop.model, dtype=DType.bfloat16))
    artifact = low.train(small_config(value_model=ValueModel.head, num_rollouts=3), "bfloat16")
    rows = rows_of(artifact)
    assert artifact.manifest.resolved["dtype"] == "bfloat16"
    assert rows[2]["kl"] == rows[2]["first_ratio_gap"] == rows[2]["first_clipped_tokens"] == 0.0
    assert rows[3]["kl"] != 0.0


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_run_that_died_goes_on_to_the_same_bytes(
    workshop: PPOWorkshop, reference: Artifact, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    iterate = Loop.iterate

    def die(self: Loop, now: int) -> dict[str, float | int]:
        if now == number:
            raise RuntimeError("died")
        return iterate(self, now)

    name = f"died-{number}"
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "iterate", die)
        with pytest.raises(RuntimeError, match="died"):
            workshop.train(small_config(), name)
    require_equal(workshop.train(small_config(), name), reference)


def test_another_seed_is_another_policy(workshop: PPOWorkshop, reference: Artifact) -> None:
    """The control for the test above."""
    other = workshop.train(small_config(seed=6), "another seed")
    assert other.manifest.parts["policy"] != reference.manifest.parts["policy"]


def test_a_signal_ends_the_run_after_a_rollout_that_is_saved(
    workshop: PPOWorkshop, reference: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    iterate = Loop.iterate

    def ask(self: Loop, now: int) -> dict[str, float | int]:
        if now == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(self, now)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "iterate", ask)
        with pytest.raises(Interrupted, match="after rollout 3 of 6"):
            workshop.train(small_config(), "signal")
    require_equal(workshop.train(small_config(), "signal"), reference)


def test_the_policy_with_the_best_gold_score_is_the_one_that_is_sealed(workshop: PPOWorkshop) -> None:
    """The gold is the score turned round, so learning can only make it worse."""
    reward = NamedReward(name="contains_share", params={"phrases": list("abcdefghij")})
    against = NamedReward(name="contains_share", weight=-1.0, params={"phrases": list("abcdefghij")})
    config = small_config(
        rewards=[reward],
        monitor=MonitorConfig(every=2, num_prompts=6, gold=[against]),
        optimizer=OptimizerConfig(learning_rate=3e-2),
        num_rollouts=10,
    )
    artifact = workshop.train(config, "gold")
    seen = json.loads((artifact.path / "monitor.json").read_text())
    gold = {entry["step"]: entry["monitor_gold"] for entry in seen["measurements"]}
    assert seen["chosen_step"] == max(gold, key=lambda step: (gold[step], -step))
    assert seen["reason"] == "best gold score inside the budget"
    metrics = artifact.manifest.metrics
    assert metrics["monitor_gold"] == max(gold.values())
    assert metrics["monitor_gold_change"] == pytest.approx(metrics["monitor_gold"] - gold[0])
    gates = {gate["name"]: gate for gate in artifact.manifest.gates}
    assert seen["gates"] == artifact.manifest.gates
    assert gates["rewards_tell_apart"]["outcome"] == "PASS"
    assert gates["gold_holds"]["estimate"] == pytest.approx(-gates["score_rises"]["estimate"])
    without = small_config(
        rewards=[reward],
        monitor=MonitorConfig(
            every=2, num_prompts=6, completions_per_prompt=2, gold=[against], rollback=False, stop=False
        ),
    )
    last = workshop.train(without, "no rollback")
    assert json.loads((last.path / "monitor.json").read_text())["chosen_step"] == 6
    gate = next(gate for gate in last.manifest.gates if gate["name"] == "gold_holds")
    assert gate["n"] == 12
    assert "on 12 completions of 6 prompts" in gate["reason"]
    assert gate["estimate"] == pytest.approx(last.manifest.metrics["monitor_gold_change"])
    assert (gate["outcome"] == "PASS") == (gate["low"] > -0.05), "the margin that the reason states"
    assert "gold may fall by 0.05" in gate["reason"]
    assert "would be seen four times in five" in gate["reason"]


def test_a_run_whose_rewards_are_never_earned_says_so_and_does_not_look_like_a_success(
    workshop: PPOWorkshop, capsys: pytest.CaptureFixture[str], alerts: list[tuple[str, str]]
) -> None:
    """No completion holds that letter."""
    never = NamedReward(name="contains_share", params={"phrases": ["\N{SNOWMAN}"]})
    monitor = MonitorConfig(every=2, num_prompts=4)
    artifact = workshop.train(small_config(rewards=[never], num_rollouts=4, monitor=monitor), "never")
    rows = rows_of(artifact)
    assert [row["told_apart"] for row in rows[1:]] == [0.0] * 4
    gates = {gate["name"]: gate for gate in artifact.manifest.gates}
    assert gates["rewards_tell_apart"]["outcome"] == "FAIL"
    assert "told 0.0% of 32 sampled completions from the rest" in gates["rewards_tell_apart"]["reason"]
    assert gates["score_rises"]["outcome"] != "PASS"
    told = capsys.readouterr().out
    assert "before training 100% of 4 held-out completions have the score 0: the rewards hardly tell apart" in told
    assert "FAIL rewards_tell_apart" in told
    called = [(title, text.partition(":")[0] if "rollout" in text else text[:15]) for title, text in alerts]
    assert called == [
        ("ppo: rewards", "before training"), ("ppo: watchdog", "rollout 3"), ("ppo: watchdog", "rollout 3"),
        ("ppo: rewards_tell_apart", "FAIL rewards_te"),
    ]  # fmt: skip
    assert [text.split(": ")[1] for _, text in alerts[1:3]] == ["never_ends", "constant_score"]


def test_a_run_whose_rewards_are_earned_is_not_warned_of(
    workshop: PPOWorkshop, capsys: pytest.CaptureFixture[str], alerts: list[tuple[str, str]]
) -> None:
    workshop.train(small_config(num_rollouts=2), "earned")
    assert "before training" not in capsys.readouterr().out
    assert not {"ppo: rewards", "ppo: watchdog"} & {title for title, _ in alerts}


def test_the_coefficient_follows_its_target_from_where_a_run_goes_on(
    workshop: PPOWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has moved at first, an error of -1 that counts as -0.2: eight of eighty episodes take off a fiftieth."""
    config = small_config(num_rollouts=3, value_warmup=2, kl_target=4.0, kl_horizon=80, save_every=1)
    iterate = Loop.iterate

    def die(self: Loop, now: int) -> dict[str, float | int]:
        if now == 2:
            raise RuntimeError("died")
        return iterate(self, now)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "iterate", die)
        with pytest.raises(RuntimeError, match="died"):
            workshop.train(config, "target")
    rows = rows_of(workshop.train(config, "target"))
    assert [row["kl_coef"] for row in rows[1:]] == pytest.approx([0.05, 0.05 * 0.98, 0.05 * 0.98**2])


def test_a_kl_budget_ends_the_run_and_falls_back_inside_it(workshop: PPOWorkshop) -> None:
    config = small_config(
        optimizer=OptimizerConfig(learning_rate=5e-2), kl_budget=1e-3, monitor=MonitorConfig(every=2, num_prompts=4)
    )
    artifact = workshop.train(config, "budget")
    rows, seen = rows_of(artifact), json.loads((artifact.path / "monitor.json").read_text())
    assert rows[-1]["step"] < 6
    assert rows[-1]["kl"] > 1e-3
    assert seen["reason"] == "last one inside the KL budget"
    inside = [entry["step"] for entry in seen["measurements"] if entry["monitor_kl"] <= 1e-3]
    assert seen["chosen_step"] == inside[-1]


def test_a_kl_budget_without_policies_to_fall_back_to_does_not_start(tmp_path: Path) -> None:
    alone = make_workshop(tmp_path, num_validation=0)
    with pytest.raises(ConfigError, match=r"ppo\.kl_budget=5: there are no two validation prompts"):
        alone.train(small_config(kl_budget=5.0), "no fall back")


def test_a_dora_policy_is_refused(workshop: PPOWorkshop, reference: Artifact) -> None:
    folder = workshop.outputs / "dora"
    base = load_base(workshop.base, workshop.model, RuntimeConfig(), DType.float32)
    save_adapter(add_lora(base, LoRAConfig(rank=4, dora=True), seed=1), folder / "adapter")
    with pytest.raises(ConfigError, match="is a DoRA adapter"):
        workshop.train(small_config(), "dora", policy=replace(reference, path=folder))


def test_the_last_policy_inside_the_budget_is_kept_until_the_next_is_measured(workshop: PPOWorkshop) -> None:
    """The run leaves the budget when every checkpoint since the only measurement inside it was to be rotated away."""
    config = small_config(
        optimizer=OptimizerConfig(learning_rate=2e-2),
        kl_budget=1e-3,
        monitor=MonitorConfig(every=6, num_prompts=4),
        save_every=1,
        keep_checkpoints=2,
        value_warmup=2,
    )
    artifact = workshop.train(config, "budget between measurements")
    seen, last = json.loads((artifact.path / "monitor.json").read_text()), rows_of(artifact)[-1]["step"]
    assert config.keep_checkpoints < last < 6, "else step 0 is not yet to be rotated away, or measured after"
    assert [entry["step"] for entry in seen["measurements"]] == [0, last]
    assert seen["measurements"][1]["monitor_kl"] > 1e-3
    assert (seen["chosen_step"], seen["reason"]) == (0, "last one inside the KL budget")
    weights = tensors(artifact.path / "adapter")
    assert not any(weights[name].any() for name in weights if "lora_B" in name), "that of step 0 is the identity"


def test_value_head_on_the_policys_trunk_and_activation_checkpointing(
    workshop: PPOWorkshop, reference: Artifact
) -> None:
    head = workshop.train(small_config(value_model=ValueModel.head), "head")
    assert set(load_file(head.path / "value" / "value.safetensors")) == {
        "value_head.linear.weight",
        "value_head.linear.bias",
    }
    assert rows_of(head)[2]["first_ratio_gap"] == 0.0
    again = workshop.train(small_config(activation_checkpointing=True), "checkpointing")
    for ours, plain in zip(rows_of(again), rows_of(reference), strict=True):
        assert ours == pytest.approx(plain, rel=1e-3, abs=1e-4)


def test_a_policy_goes_on_from_its_own_adapter_and_is_its_own_reference(
    workshop: PPOWorkshop, reference: Artifact
) -> None:
    artifact = workshop.train(small_config(num_rollouts=2), "continued", policy=reference)
    rows = rows_of(artifact)
    assert rows[0]["monitor_kl"] == 0.0
    assert rows[1]["kl"] == 0.0
    # With the base as reference it would not be: the incoming policy has left it.
    assert rows_of(reference)[-1]["monitor_kl"] != 0.0


def test_without_any_reward_nothing_starts(workshop: PPOWorkshop) -> None:
    with pytest.raises(ConfigError, match="no reward is named"):
        workshop.train(small_config(rewards=[]), "nothing")
