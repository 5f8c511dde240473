"""The loop of a sweep over children that are real processes and behave like trials, in milliseconds."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from made_sweep import by_status, epochs, make_sweep

from pipeline.config.space import Axis
from pipeline.config.sweep import Pruner, SweepMethod
from pipeline.sweeps import running
from pipeline.sweeps.children import child_variables
from pipeline.sweeps.record import TrialStatus, read_sweep

RANKS = Axis(key="sft.lora.rank", choices=("1", "2", "3"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.01)


def test_a_grid_runs_every_combination_and_keeps_results_and_courses(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, [RANKS, Axis(key="sft.optimizer.learning_rate", choices=("0.1", "0.2"))])
    assert sweep.run().signal_number is None
    record = read_sweep(sweep.record.path)
    assert record.status == "complete"
    assert [trial.params for trial in record.trials[:3]] == [
        {"sft.lora.rank": 1, "sft.optimizer.learning_rate": 0.1},
        {"sft.lora.rank": 1, "sft.optimizer.learning_rate": 0.2},
        {"sft.lora.rank": 2, "sft.optimizer.learning_rate": 0.1},
    ]
    assert record.trials[2].objectives == [2 + 0.1 + 0.25]
    assert record.trials[2].intermediate == [(10, 3.1), (20, 2.6), (30, 2.1 + 1 / 3), (40, 2.35)]
    assert record.trials[2].folder == "now_sft_sweep_2"
    assert all(trial.exit_status == 0 and trial.seconds > 0 for trial in record.trials)


@pytest.mark.slow
def test_children_run_side_by_side_no_more_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "0.1")
    axis = Axis(key="sft.lora.rank", choices=tuple("123456"))
    make_sweep(tmp_path, [axis], parallel=3).run()
    spans: dict[str, list[float]] = {}
    for name, _, at in epochs(tmp_path):
        spans.setdefault(name, []).append(at)
    overlaps = [sum(min(a) <= at <= max(a) for a in spans.values()) for b in spans.values() for at in b]
    assert max(overlaps) == 3


def test_a_failed_child_fails_the_sweep_and_the_others_go_on(tmp_path: Path) -> None:
    ends = Axis(key="seed", choices=("0", "2", "30", "98", "1"))
    sweep = make_sweep(tmp_path, [Axis(key="sft.lora.rank", choices=("1",)), ends])
    sweep.run()
    trials = read_sweep(sweep.record.path).trials
    assert by_status(trials) == {"finished": [0, 2, 4], "failed": [1, 3]}
    told = "ConfigError: 1 problem(s) in the configuration: seed=2: is not to be had"
    assert (trials[1].exit_status, trials[1].reason) == (2, told)
    assert (trials[2].exit_status, trials[2].objectives) == (30, [1.25])  # a gate failed; the result is there
    assert (trials[3].exit_status, trials[3].reason) == (0, "it ended without the objective")
    assert sweep.record.status == "failed"


@pytest.mark.slow
def test_a_trial_that_diverged_to_no_number_fails_and_its_search_goes_on(tmp_path: Path) -> None:
    axes = [Axis(key="seed", choices=("97",)), Axis(key="sft.lora.rank", low=1, high=9, integer=True)]
    sweep = make_sweep(tmp_path, axes, method=SweepMethod.random, trials=2)
    sweep.run()
    trials = read_sweep(sweep.record.path).trials
    assert [(trial.status, trial.objectives) for trial in trials] == [(TrialStatus.failed, None)] * 2
    assert {trial.reason for trial in trials} == {"its objective sft/validation_loss is nan"}
    assert sweep.record.status == "failed"


def test_what_failed_runs_again_and_what_finished_does_not(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, [RANKS])
    sweep.run()
    sweep.record.trials[1].status = TrialStatus.failed
    (tmp_path / "epochs.log").unlink()
    (tmp_path / "work" / "sft-2-0-0" / "metrics.jsonl").unlink()
    again = make_sweep(tmp_path, [RANKS], sweep.record)
    again.run()
    assert {name for name, _, _ in epochs(tmp_path)} == {"now_sft_sweep_1"}
    assert by_status(again.record.trials) == {"finished": [0, 1, 2]}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_children_and_the_same_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "0.1")

    def interrupt() -> None:
        while sum(name.endswith("_1") for name, _, _ in epochs(tmp_path)) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    sweep = make_sweep(tmp_path, [RANKS])
    assert sweep.run().signal_number == number
    thread.join()
    assert by_status(sweep.record.trials) == {"finished": [0], "stopped": [1], "waiting": [2]}
    assert sweep.record.trials[1].exit_status == 128 + number
    assert read_sweep(sweep.record.path).status == "stopped"
    again = make_sweep(tmp_path, [RANKS], read_sweep(sweep.record.path))
    again.run()
    assert by_status(again.record.trials) == {"finished": [0, 1, 2]}
    counts = [(name[-1], epoch) for name, epoch, _ in epochs(tmp_path)]
    assert sorted(counts) == [(number, epoch) for number in "012" for epoch in range(1, 5)]  # none was made twice


@pytest.mark.slow
def test_a_search_prunes_by_what_the_children_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PAUSE", "0.2")
    axes = [Axis(key="sft.lora.rank", low=1, high=1000, integer=True)]
    sweep = make_sweep(
        tmp_path, axes, method=SweepMethod.random, trials=6, pruner=Pruner.median, startup_trials=2, pruner_warmup=0,
        parallel=2,
    )  # fmt: skip
    sweep.run()
    trials = sweep.record.trials
    assert len(trials) == 6
    pruned = [trial for trial in trials if trial.status is TrialStatus.pruned]
    finished = [trial for trial in trials if trial.status is TrialStatus.finished]
    assert pruned
    assert finished
    assert len(pruned) + len(finished) == 6
    assert all(len(trial.intermediate) < 4 and trial.objectives is None for trial in pruned)
    assert all(trial.exit_status == 143 for trial in pruned)
    worst_kept = min(trial.params["sft.lora.rank"] for trial in pruned)
    assert min(trial.params["sft.lora.rank"] for trial in finished) < worst_kept
    assert sweep.record.status == "complete"
    more = make_sweep(tmp_path, axes, sweep.record, method=SweepMethod.random, trials=7)
    more.run()
    assert [trial.number for trial in more.record.trials] == list(range(7))


def test_secrets_of_the_environment_reach_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_API_KEY", "canary-" + "7" * 30)
    sweep = make_sweep(tmp_path, [Axis(key="sft.lora.rank", choices=("1",)), Axis(key="seed", choices=("99",))])
    sweep.run()
    assert sweep.record.trials[0].reason.startswith("RuntimeError: the key is")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"RuntimeError: the key is" in path.read_bytes() for path in files)
    assert not any(b"canary-" in path.read_bytes() for path in files)


def test_trials_that_run_together_get_a_gpu_each_of_those_given_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage trains on one, so that a trial that saw two would refuse to start."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    shares = [child_variables("s", "f", {}, slot=slot, slots=2)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)]
    assert shares == ["4", "5"]
    assert "CUDA_VISIBLE_DEVICES" not in child_variables("s", "f", {})  # all of them, as the sweep sees them
    assert child_variables("s", "f", {}, slot=5, slots=8)["CUDA_VISIBLE_DEVICES"] == "5"  # two trials on one
