"""What the watchdogs of a preference run say, number by number: which side of a limit they are on, and which way."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config.dpo import DPOConfig, WatchConfig
from pipeline.config.kto import KTOConfig, ThumbLoss
from pipeline.config.preference import LOSSES
from pipeline.losses.unpaired import LabelWeights
from pipeline.stages import thumb_objective
from pipeline.stages.course import Course
from pipeline.stages.thumb_objective import BAD, DROP, GOOD, ThumbObjective
from pipeline.stages.watchdogs import CHOSEN, LOSS, MARGIN, WATCHED, Sight, Watchdogs, warnings

WATCH = WatchConfig(chosen_drop=0.5, max_margin=10.0, stuck_after=0.5, stuck_tolerance=0.01, length_ratio=2.0)
QUIET = {CHOSEN: 0.0, MARGIN: 1.0, LOSS: 0.3}
FALLS = ["chosen_falls at 1"]
CALM = {DROP: 0.0, GOOD: 1.0, BAD: -1.0}


def sight(means: dict[str, float], *, done: float = 0.9, before: float = 40.0, now: float = 40.0) -> Sight:
    return Sight(means=means, done=done, length_before=before, length_now=now)


def watched(config: DPOConfig, steps: list[dict[str, float]], validations: list[dict[str, float]]) -> list[str]:
    """Step through a run whose every step measures what is given, and return the names of what was told."""
    course = Course(details=validations)
    meter: Any = SimpleNamespace(losses=[torch.tensor(5.0)], means=lambda: {})
    alerts: list[tuple[str, str]] = []
    run: Any = SimpleNamespace(name="dpo", alert=lambda *told: alerts.append(told), notice=lambda text: None)
    dogs = Watchdogs(meter, course, run, config.watch, WATCHED, lambda seen: warnings(seen, config))
    for number, values in enumerate(steps, start=1):
        meter.means = lambda values=values: values
        state: Any = SimpleNamespace(global_step=number, max_steps=len(steps))
        dogs.on_step_end(None, state, None)  # type: ignore[arg-type]
    assert [title for title, _ in alerts] == [f"dpo: {warning['name']}" for warning in course.warnings]
    return [f"{warning['name']} at {warning['step']}" for warning in course.warnings]


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
        ({LOSS: math.log(2) + 0.005}, {}, {"stuck_at_log_2"}),
        ({LOSS: 3.0}, {}, set()),  # it has moved, if the wrong way
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
    ("loss", "value", "is_stuck"),
    [
        ({"sigmoid": 2.0}, 2 * math.log(2), True),
        ({"sigmoid": 2.0}, 2 * math.log(2) - 0.019, True),  # half of it is within the tolerance
        ({"sigmoid": 2.0}, 0.8, False),
        ({"sigmoid": 2.0}, math.log(2), False),
        ({"sigmoid": 0.5}, 0.5 * math.log(2), True),
        ({"sigmoid": 0.5}, 0.5 * math.log(2) + 0.006, False),
        ({"sigmoid": 1.0, "cdpo": 1.0}, 2 * math.log(2), True),
        ({"sigmoid": 1.0, "cdpo": 1.0}, 0.9, False),
        ({"sigmoid": 1.0, "sft": 0.2}, math.log(2), False),  # where it began, nobody knows
    ],
)
def test_a_mix_is_stuck_where_it_began(loss: dict[str, float], value: float, is_stuck: bool) -> None:
    told = warnings(sight({**QUIET, LOSS: value}), DPOConfig(watch=WATCH, loss=loss))
    assert set(told) == ({"stuck_at_log_2"} if is_stuck else set())
    assert all(f"{sum(loss.values()):g} log 2 = " in message for message in told.values())


def test_a_short_run_is_looked_at_after_a_quarter() -> None:
    fallen = [{CHOSEN: -9.0, MARGIN: 500.0}]
    assert watched(DPOConfig(), 19 * fallen, []) == ["chosen_falls at 4", "margin_explodes at 4"]
    assert watched(DPOConfig(), fallen, []) == ["chosen_falls at 1", "margin_explodes at 1"]
    assert watched(DPOConfig(), 100 * fallen, []) == ["chosen_falls at 20", "margin_explodes at 20"]


@pytest.mark.parametrize(
    ("loss", "told"), [("simpo", ["chosen_falls at 1"]), ("orpo", ["chosen_falls at 1"]), ("sigmoid", [])]
)
def test_without_a_reference_chosen_falls_since_before_training(loss: str, told: list[str]) -> None:
    """From -40 to -46 nats at 20 tokens: 0.3 a token, more than 0.25."""
    config = DPOConfig(loss=loss)
    before = {"logprob_chosen": -40.0, "length_chosen": 20.0}
    assert watched(config, [{MARGIN: 1.0}], [before, {**before, "logprob_chosen": -46.0}]) == told
    assert watched(config, [{MARGIN: 1.0}], [before, {**before, "logprob_chosen": -44.0}]) == []
    assert watched(config, [{MARGIN: 1.0}], []) == []


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


def test_every_key_that_a_message_names_is_one() -> None:
    """In backticks, or with its value; what follows an equals sign must be a value that the key takes."""
    worst = {CHOSEN: -9.0, MARGIN: 99.0, LOSS: math.log(2), DROP: -9.0}
    objective = ThumbObjective(config=KTOConfig(watch=WATCH), weights=LabelWeights())
    told = [
        *warnings(sight(worst, now=400.0), DPOConfig(watch=WATCH)).values(),
        *thumb_objective.warnings(sight({**worst, GOOD: 99.0, BAD: -99.0}, now=4.0), objective).values(),
        *thumb_objective.warnings(sight({GOOD: 0.0, BAD: 0.0}), objective).values(),
    ]
    named = [found for message in told for found in re.findall(r"\b((?:dpo|kto)(?:\.\w+)+)(=\w+)?", message)]
    assert len(told) == 8
    assert {key for key, _ in named} >= {"dpo.beta", "kto.beta", "dpo.watch.chosen_drop", "kto.optimizer.learning_rate"}
    for key, value in named:
        section, *path = key.split(".")
        at: Any = {"dpo": DPOConfig(), "kto": KTOConfig()}[section]
        for name in path:
            assert name in {field.name for field in fields(at)}, f"{key} is no key"
            at = getattr(at, name)
        if path == ["loss"] and value:
            known = {"dpo": set(LOSSES), "kto": {loss.value for loss in ThumbLoss}}[section]
            assert value[1:] in known, f"{key}{value} is no loss"
