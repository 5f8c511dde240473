"""Checks that ask several things of one item: the share of items and the share of all that is asked, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from help_desk import EVALUATE, generated, of

from pipeline.config.data import TableName
from pipeline.config.evaluation import CheckConfig, SuiteConfig, SuiteKind
from pipeline.evaluation.report import build_report

NAMES = ("instructions", "instructions_loose")
SUITE = SuiteConfig(
    name="follow",
    kind=SuiteKind.generation,
    table=TableName.prompts,
    checks=[CheckConfig(name=name) for name in NAMES],
)
SHORT, PLAIN = {"name": "max_words", "params": {"limit": 2}}, {"name": "no_commas"}
LOUD = {"name": "all_upper_case"}
ASKED = {"a": [SHORT, PLAIN], "b": [SHORT, PLAIN, LOUD]}  # five instructions in all


def rows(first: str, second: str) -> list:
    answers = {"a": first, "b": second}
    return [replace(generated(name, answers[name]), reference=json.dumps(ASKED[name])) for name in ASKED]


def test_strict_and_loose_by_prompt_and_by_instruction() -> None:
    base = of("base", "follow", rows("Yes, I do indeed", "Well:\nNO"))  # 0 of 2; "Well:" is forgiven: 2 of 3, then 3
    tuned = of("tuned", "follow", rows("Yes", "NO, NEVER"))  # 2 of 2; 2 of 3
    report = build_report([base, tuned], {"follow": SUITE}, EVALUATE, {})
    found = {(m["metric"], m["policy"], m["baseline"]): m for m in report["metrics"]}
    expected = {
        "instructions": (0.0, 1 / 2),
        "instructions_parts": (2 / 5, 4 / 5),
        "instructions_loose": (1 / 2, 1 / 2),
        "instructions_loose_parts": (3 / 5, 4 / 5),
        "all_checks": (0.0, 1 / 2),  # strict is the harder of the two
    }
    for metric, (one, other) in expected.items():
        assert found[metric, "base", None]["estimate"] == pytest.approx(one), metric
        assert found[metric, "tuned", None]["estimate"] == pytest.approx(other), metric
        assert found[metric, "tuned", "base"]["estimate"] == pytest.approx(other - one), metric
        assert found[metric, "base", None]["n"] == 2
        assert 0 <= found[metric, "base", None]["low"] <= found[metric, "base", None]["high"] <= 1
        assert -1 <= found[metric, "tuned", "base"]["low"] <= found[metric, "tuned", "base"]["high"] <= 1
    assert report["suites"][0]["primary"] == "all_checks"
    shown = {name: answer["checks"] for e in report["examples"] for name, answer in ((e["id"], e["answers"][1]),)}
    assert [entry["name"] for entry in shown["a"]] == list(NAMES)  # parts are no checks of their own
