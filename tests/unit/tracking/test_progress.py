"""Numbers short enough to read while they change, and not too many lines."""

from __future__ import annotations

import io

import pytest

from pipeline.tracking.progress import Progress, duration, newest, short


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (2.01344, "", "2.013"), (0.5, "", "0.5"), (0.123456, "", "0.123"), (2e-4, "", "2.0e-4"), (0.0, "", "0"),
        (-1.23456, "", "-1.235"), (1532.4, "", "1532"), (12345.0, "", "12.3k"), (1234567.0, "", "1.23M"),
        (0.487, "%", "49%"), (1.5, " GB", "1.5 GB"), (12.3456, "", "12.35"), (999.7, "", "1000"), (9999.7, "", "10k"),
        (float("nan"), "", "nan"), (float("inf"), "", "inf"), (3, "", "3"), (1e-12, "", "1.0e-12"),
    ],
)  # fmt: skip
def test_short(value: float, unit: str, expected: str) -> None:
    assert short(value, unit) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(4.4, "4 s"), (187, "3:07"), (7509, "2:05:09"), (59.6, "1:00")])
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_newest_shows_what_a_row_has_in_a_fixed_order() -> None:
    assert newest({"memory_gb": 2.0, "loss": 1.5, "epoch": 1.0}) == "loss 1.5  mem 2 GB"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_every_five_seconds_and_first_and_last() -> None:
    clock, stream, log = Clock(), io.StringIO(), list[str]()
    progress = Progress("sft", log.append, stream=stream, clock=clock)
    for step in range(1, 13):
        progress.metrics({"loss": 1.0 / step})
        progress.update(12, step)
        clock.now += 1.0
    progress.close()
    assert log == [
        "sft  1/12  0 s  loss 1",
        "sft  6/12  5 s, 6 s left  loss 0.167",
        "sft  11/12  10 s, 1 s left  loss 0.0909",
        "sft  12/12  in 11 s  loss 0.0833",
    ]
    assert stream.getvalue().splitlines() == log


def test_a_run_that_ends_early_shows_where_it_was() -> None:
    clock, log = Clock(), list[str]()
    progress = Progress("sft", log.append, stream=io.StringIO(), clock=clock)
    progress.update(100, 1)
    progress.update(100, 2)
    progress.close()
    assert [line.split("  ")[1] for line in log] == ["1/100", "2/100"]


def test_a_stage_without_progress_prints_nothing() -> None:
    log: list[str] = []
    progress = Progress("curate", log.append, stream=io.StringIO())
    progress.metrics({"loss": 1.0})
    progress.close()
    assert log == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar_and_notices_stand_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream, log = Terminal(), list[str]()
    progress = Progress("sft", log.append, stream=stream)
    progress.metrics({"loss": 0.5})
    progress.update(4, 1)
    progress.say("going on from [the checkpoint]")
    progress.update(4, 4)
    progress.close()
    shown = stream.getvalue()
    assert "━" in shown
    assert "eta" in shown
    assert "going on from [the checkpoint]" in shown
    assert [line.split("  ")[1] for line in log] == ["1/4", "4/4"]
