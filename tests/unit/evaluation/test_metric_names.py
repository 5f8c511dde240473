"""The names that a configuration may ask for are those that a report holds."""

from __future__ import annotations

from help_desk import EVALUATE, FIT, FORM, SUITES, help_desk
from test_parts import SUITE, of, rows

from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.evaluation.metric_names import metric_names, reported_names
from pipeline.evaluation.report import build_report


def test_what_is_measured_has_the_names_that_may_be_asked_for() -> None:
    report = build_report(help_desk(), SUITES, EVALUATE, {})
    held = {suite: {row["metric"] for row in report["metrics"] if row["suite"] == suite} for suite in SUITES}
    assert held["fit"] == set(reported_names(FIT, [], []) or []) == {"bits_per_byte", "nats_per_token"}
    assert held["form"] == set(reported_names(FORM, [], []) or []) >= {"max_words", "all_checks", "completion_tokens"}
    assert "completion_tokens" not in (metric_names(FORM, [], []) or [])  # a gate would not know which way is better


def test_parts_of_checks_are_among_them() -> None:
    report = build_report([of("base", "follow", rows("Yes", "NO"))], {"follow": SUITE}, EVALUATE, {})
    held = {row["metric"] for row in report["metrics"]}
    assert "instructions_parts" in held
    assert held == set(reported_names(SUITE, [], []) or [])


def test_of_a_task_of_others_nobody_knows_the_names() -> None:
    assert reported_names(SuiteConfig(name="arc", kind=SuiteKind.lm_eval, task="arc"), ["base"], ["base"]) is None
