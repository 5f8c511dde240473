"""What Optuna is asked, and what a killed search proposes when it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.space import Axis
from pipeline.config.sweep import Pruner, SweepConfig, SweepMethod
from pipeline.errors import ConfigError, StorageError
from pipeline.sweeps.record import Trial, TrialStatus
from pipeline.sweeps.search import Search

AXES = [
    Axis(key="sft.optimizer.learning_rate", low=1e-5, high=1e-1, log=True),
    Axis(key="sft.lora.rank", low=1, high=64, log=True, integer=True),
    Axis(key="dpo.loss", choices=("sigmoid", "ipo_sum")),
]


def open_search(folder: Path, *, directions: tuple[str, ...] = ("minimize",), **changes: object) -> Search:
    config = SweepConfig(**{"method": SweepMethod.tpe, "startup_trials": 3, **changes})  # type: ignore[arg-type]
    return Search(folder, config, AXES, directions, "study")


def propose(search: Search, number: int) -> Trial:
    proposed = search.propose(number)
    assert proposed
    study_number, texts = proposed
    return Trial(
        number=number, params={}, overrides=[f"{key}={text}" for key, text in texts.items()], folder="f",
        study_number=study_number,
    )  # fmt: skip


def finish(search: Search, trial: Trial) -> None:
    """Small learning rates are good."""
    trial.status, trial.objectives = TrialStatus.finished, [float(trial.overrides[0].partition("=")[2])]
    search.tell(trial)


def test_a_storage_that_is_lost_is_one_error(tmp_path: Path) -> None:
    search = open_search(tmp_path)
    finish(search, propose(search, 0))
    last = propose(search, 1)
    (tmp_path / "study.db").write_bytes(b"no database any more" * 400)
    last.status, last.objectives, last.intermediate = TrialStatus.finished, [1.0], [(1, 1.0)]
    for ask in (search.num_elsewhere, lambda: search.take_up([]), lambda: search.propose(2), lambda: search.tell(last)):
        with pytest.raises(StorageError, match=r"sweep.storage: sqlite does not answer any more: .*\. Running trials"):
            ask()


def test_proposals_are_overrides_within_the_space(tmp_path: Path) -> None:
    search = open_search(tmp_path, method=SweepMethod.random)
    trials = [propose(search, number) for number in range(12)]
    rates = [float(trial.overrides[0].removeprefix("sft.optimizer.learning_rate=")) for trial in trials]
    ranks = [int(trial.overrides[1].removeprefix("sft.lora.rank=")) for trial in trials]
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert sum(rate < 1e-3 for rate in rates) > 2  # a uniform scale would put one in a hundred there
    assert all(1 <= rank <= 64 for rank in ranks)
    assert {trial.overrides[2] for trial in trials} == {"dpo.loss=sigmoid", "dpo.loss=ipo_sum"}


@pytest.mark.parametrize(
    ("method", "sampler"), [(SweepMethod.random, "RandomSampler"), (SweepMethod.tpe, "TPESampler")]
)
def test_each_method_has_its_sampler(tmp_path: Path, method: SweepMethod, sampler: str) -> None:
    search = open_search(tmp_path, method=method)
    propose(search, 0)
    assert type(search.study.sampler).__name__ == sampler


@pytest.mark.slow
def test_a_killed_search_proposes_what_it_would_have_proposed(tmp_path: Path) -> None:
    (whole := tmp_path / "whole").mkdir()
    (killed := tmp_path / "killed").mkdir()
    search = open_search(whole)
    expected = []
    for number in range(6):
        expected.append(propose(search, number))
        finish(search, expected[-1])
    trials: list[Trial] = []
    for number in range(6):
        search = open_search(killed)  # a new process for every trial
        search.take_up(trials)
        if number in (1, 4):  # proposed and written down, and then the process died while it ran
            trials.append(propose(search, number))
            search = open_search(killed)
            search.take_up(trials)
        elif number == 3:  # proposed, and not even written down
            propose(search, number)
            search = open_search(killed)
            search.take_up(trials)
            trials.append(propose(search, number))
        else:
            trials.append(propose(search, number))
        finish(search, trials[-1])
    assert [trial.overrides for trial in trials] == [trial.overrides for trial in expected]
    assert len({tuple(trial.overrides) for trial in trials}) == 6


def test_a_trial_worse_than_the_median_is_pruned_after_the_first_validations(tmp_path: Path) -> None:
    search = open_search(tmp_path, pruner=Pruner.median, startup_trials=3, pruner_warmup=2)
    for number, last in enumerate((1.0, 2.0, 6.0)):  # the median at the third validation is 2
        trial = propose(search, number)
        trial.intermediate = [(0, 9.0), (10, last + 1), (20, last)]
        assert not search.should_prune(trial)  # too few to compare with
        trial.status, trial.objectives = TrialStatus.finished, [last]
        search.tell(trial)
    trial = propose(search, 3)
    assert not search.should_prune(trial)  # it has shown nothing
    trial.intermediate = [(0, 9.0), (100, 8.5)]
    assert not search.should_prune(trial)  # warm-up; and a step of 100 is its second validation, not its hundredth
    trial.intermediate = [(0, 9.0), (100, 8.5), (200, 2.5)]
    assert search.should_prune(trial)
    trial.intermediate[-1] = (200, 1.5)
    assert not search.should_prune(trial)


@pytest.mark.slow
def test_a_trial_of_a_dead_process_is_compared_and_kept_too(tmp_path: Path) -> None:
    search = open_search(tmp_path, pruner=Pruner.median, startup_trials=1, pruner_warmup=0)
    first = propose(search, 0)
    first.intermediate = [(0, 1.0)]
    finish(search, first)
    second = propose(search, 1)
    search = open_search(tmp_path, pruner=Pruner.median, startup_trials=1, pruner_warmup=0)
    search.take_up([first, second])
    second.intermediate = [(0, 1.5)]
    assert search.should_prune(second)
    second.status = TrialStatus.pruned
    search.tell(second)
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "PRUNED"]
    assert search.study.trials[1].params["sft.lora.rank"] == int(second.overrides[1].partition("=")[2])


def test_several_objectives(tmp_path: Path) -> None:
    search = open_search(tmp_path, directions=("maximize", "minimize"))
    trial = propose(search, 0)
    trial.status, trial.objectives, trial.intermediate = TrialStatus.finished, [1.0, 2.0], [(0, 0.5)]
    search.tell(trial)
    assert search.study.best_trials[0].values == [1.0, 2.0]


def test_sweeps_on_two_machines_share_a_storage_and_their_trials(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    first, second = (open_search(folder, storage=storage) for folder in (one, two))
    finish(first, propose(first, 0))
    running = propose(first, 1)
    assert propose(second, 0).overrides != propose(open_search(one), 0).overrides  # each begins elsewhere
    assert (first.num_elsewhere(), second.num_elsewhere()) == (1, 2)
    second.take_up([])  # not its own
    finish(first, running)
    assert [trial.state.name for trial in first.study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]


def test_what_ended_while_the_storage_was_away_is_told_by_the_next_process(tmp_path: Path) -> None:
    search = open_search(tmp_path, method=SweepMethod.random)
    ended = propose(search, 0)
    ended.status, ended.objectives = TrialStatus.finished, [0.25]
    search = open_search(tmp_path, method=SweepMethod.random)
    search.take_up([ended])
    assert [(trial.state.name, trial.value) for trial in search.study.trials] == [("COMPLETE", 0.25)]


def test_machines_that_ask_at_the_same_moment_make_no_trial_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"storage": f"sqlite:///{tmp_path / 'shared.db'}", "method": SweepMethod.random, "trials": 1}
    first, second = (open_search(tmp_path / name, **shared) for name in ("one", "two"))
    ask, asked = second.study.ask, []

    def ask_a_moment_later(*arguments: Any) -> Any:
        asked.append(first.propose(0))  # between the second's count and its question
        return ask(*arguments)

    monkeypatch.setattr(second.study, "ask", ask_a_moment_later)
    assert second.propose(0) is None
    assert asked != [None]
    assert (first.num_elsewhere(), second.num_elsewhere()) == (0, 1)
    assert first.propose(1) is None


def test_a_storage_that_cannot_be_opened_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.storage: sqlite cannot be opened"):
        open_search(tmp_path, storage="sqlite:////nowhere/at/all.db")
