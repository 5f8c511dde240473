"""What the watchdogs of a preference run say, number by number: which side of a limit they are on, and which way."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeline.config.dpo import DPOConfig, WatchConfig
from pipeline.config.kto import KTOConfig
from pipeline.losses.unpaired import LabelWeights
from pipeline.stages import thumb_objective
from pipeline.stages.thumb_objective import BAD, DROP, GOOD, ThumbObjective
from pipeline.stages.watchdogs import CHOSEN, LOSS, MARGIN, Sight, warnings

WATCH = WatchConfig(chosen_drop=0.5, max_margin=10.0, stuck_after=0.5, stuck_tolerance=0.01, length_ratio=2.0)
QUIET = {CHOSEN: 0.0, MARGIN: 1.0, LOSS: 0.3}
CALM = {DROP: 0.0, GOOD: 1.0, BAD: -1.0}


def sight(means: dict[str, float], *, done: float = 0.9, before: float = 40.0, now: float = 40.0) -> Sight:
    return Sight(means=means, done=done, length_before=before, length_now=now)


@pytest.mark.parametrize(
    ("changes", "rest", "told"),
    [
        ({}, {}, set()),
        ({CHOSEN: -0.49}, {}, set()),
        ({CHOSEN: -0.51}, {}, {"chosen_falls"}),
        ({CHOSEN: 0.51}, {}, set()),  # likelier is no fall
        ({MARGIN: 9.9}, {}, set()),
        ({MARGIN: 10.1}, {}, {"margin_explodes"}),
        ({MARGIN: -10.1}, {}, set()),
        ({LOSS: math.log(2) - 0.02}, {}, set()),
        ({LOSS: math.log(2) - 0.005}, {}, {"stuck_at_log_2"}),
        ({LOSS: math.log(2)}, {"done": 0.4}, set()),  # it is early
        ({}, {"now": 79.0}, set()),
        ({}, {"now": 81.0}, {"length_drifts"}),
        ({}, {"now": 19.0}, {"length_drifts"}),
    ],
)
def test_pairs(changes: dict[str, float], rest: dict[str, float], told: set[str]) -> None:
    assert set(warnings(sight({**QUIET, **changes}, **rest), DPOConfig(watch=WATCH))) == told


def test_a_loss_that_does_not_begin_at_log_2_is_not_stuck_there() -> None:
    at_log_2 = sight({**QUIET, LOSS: math.log(2)})
    assert set(warnings(at_log_2, DPOConfig(watch=WATCH, loss={"ipo_sum": 1.0}))) == set()


@pytest.mark.parametrize(
    ("changes", "rest", "told"),
    [
        ({}, {}, set()),
        ({DROP: -0.49}, {}, set()),
        ({DROP: -0.51}, {}, {"good_falls"}),
        ({DROP: 0.51}, {}, set()),
        ({GOOD: 5.0, BAD: -5.1}, {}, {"margin_explodes"}),
        ({GOOD: -5.0, BAD: 5.1}, {}, set()),
        ({GOOD: 0.005, BAD: 0.0}, {}, {"stuck_at_the_reference"}),
        ({GOOD: 0.0, BAD: 0.005}, {}, {"stuck_at_the_reference"}),
        ({GOOD: 0.005, BAD: 0.0}, {"done": 0.4}, set()),
        ({}, {"now": 81.0}, {"length_drifts"}),
    ],
)
def test_thumbs(changes: dict[str, float], rest: dict[str, float], told: set[str]) -> None:
    objective = ThumbObjective(config=KTOConfig(watch=WATCH), weights=LabelWeights())
    assert set(thumb_objective.warnings(sight({**CALM, **changes}, **rest), objective)) == told


def test_a_watchdog_without_a_limit_says_nothing() -> None:
    silent = replace(WATCH, chosen_drop=None, max_margin=None, stuck_after=None, length_ratio=None)
    worst = sight({CHOSEN: -9.0, MARGIN: 99.0, LOSS: 1.0, DROP: -9.0, GOOD: 99.0, BAD: -99.0}, now=400.0)
    assert warnings(worst, DPOConfig(watch=silent)) == {}
    objective = ThumbObjective(config=KTOConfig(watch=silent), weights=LabelWeights())
    assert thumb_objective.warnings(worst, objective) == {}


def test_what_is_said_names_the_number_and_the_limit() -> None:
    told = warnings(sight({**QUIET, CHOSEN: -0.75}, now=100.0), DPOConfig(watch=WATCH))
    assert "0.75 nats per token less likely" in told["chosen_falls"]
    assert "dpo.watch.chosen_drop=0.5" in told["chosen_falls"]
    assert "100 tokens, 2.50 times as many" in told["length_drifts"]
    assert "longer is better" in told["length_drifts"]
