"""`sweep.json` and the order of its trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import ArtifactError
from pipeline.sweeps.record import (
    SweepRecord,
    Trial,
    TrialStatus,
    best_first,
    pareto_front,
    read_sweep,
    recorded_sweeps,
)


def record_with(path: Path, directions: list[str], values: list[list[float] | None]) -> SweepRecord:
    trials = [
        Trial(
            number=number, params={"a": number}, overrides=[f"a={number}"], folder=f"x_sweep_{number}",
            status=TrialStatus.finished if found else TrialStatus.pruned, objectives=found,
            intermediate=[(10, 0.5)],
        )
        for number, found in enumerate(values)
    ]  # fmt: skip
    objectives = [{"name": f"sft/{n}", "direction": direction} for n, direction in enumerate(directions)]
    return SweepRecord(
        path=path, identity="i", command="c", experiment="sft", method="grid", objectives=objectives,
        space={"a": {"choices": [1]}}, trials=trials,
    )  # fmt: skip


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    record = record_with(tmp_path / "2026_x_sweep", ["minimize"], [[1.0], None])
    record.save()
    assert read_sweep(record.path) == record
    stored = json.loads((record.path / "sweep.json").read_text())
    assert (stored["format_version"], stored["sweep"]) == (1, "2026_x_sweep")
    assert stored["trials"][1]["status"] == "pruned"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format_version": 2}', '{"format_version": 1}'])
def test_what_is_no_record_of_this_version_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"sweep\.json"):
        read_sweep(tmp_path)


def test_sweeps_are_found_newest_first(tmp_path: Path) -> None:
    for name in ("2026-01-01_a_sweep", "2026-02-01_a_sweep", "2026-02-01_a_sweep-2"):
        record_with(tmp_path / "runs" / name, [], []).save()
    (tmp_path / "runs" / "2026-03-01_a_0").mkdir()
    names = [folder.name for folder in recorded_sweeps(tmp_path)]
    assert names == ["2026-02-01_a_sweep-2", "2026-02-01_a_sweep", "2026-01-01_a_sweep"]


def test_the_best_comes_first_and_those_without_a_result_last(tmp_path: Path) -> None:
    smaller = record_with(tmp_path, ["minimize"], [[3.0], None, [1.0], [2.0]])
    assert [trial.number for trial in best_first(smaller)] == [2, 3, 0, 1]
    larger = record_with(tmp_path, ["maximize"], [[3.0], None, [1.0], [2.0]])
    assert [trial.number for trial in best_first(larger)] == [0, 3, 2, 1]


def test_with_two_objectives_the_front_comes_first(tmp_path: Path) -> None:
    # Score up, distance down: 0 and 1 trade one for the other; 2 is worse than 1 on both; 3 equals 1.
    record = record_with(tmp_path, ["maximize", "minimize"], [[5.0, 4.0], [3.0, 1.0], [2.0, 2.0], [3.0, 1.0], None])
    assert pareto_front(record) == {0, 1, 3}
    assert [trial.number for trial in best_first(record)] == [0, 1, 3, 2, 4]


def test_a_sweep_is_over_when_as_many_trials_as_wanted_ended_well(tmp_path: Path) -> None:
    record = record_with(tmp_path, ["minimize"], [[1.0], None])
    assert record.is_over(2)
    assert not record.is_over(3)
    record.trials[0].status = TrialStatus.failed
    assert not record.is_over(2)
