"""Exact tests of differences, counted by hand, and what is left when several are looked at together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from help_desk import EVALUATE, FIT, FORM, GOOD, PLAIN, generated, of, scored

from pipeline.evaluation.paired_tests import correct_primaries, exact_test, stands
from pipeline.evaluation.report import build_report


def test_yes_and_no_of_independent_items_is_mcnemars_test() -> None:
    found = exact_test([1.0] * 9 + [-1.0] + [0.0] * 30, range(40), yes_or_no=True)
    assert found == {"p": pytest.approx(2 * (1 + 10) / 2**10), "p_test": "McNemar, exact", "p_holm": None}
    assert exact_test([0.0] * 4, range(4), yes_or_no=True)["p"] == 1.0
    assert exact_test([], [], yes_or_no=True) == {"p": None, "p_test": None, "p_holm": None}


def test_items_of_one_cluster_flip_together() -> None:
    wins = [1.0] * 12
    found = exact_test(wins, [number // 4 for number in range(12)], yes_or_no=True)
    assert found["p"] == pytest.approx(2 / 2**3)  # of three clusters, all up or all down
    assert found["p_test"] == "sign flips of whole clusters"
    assert exact_test(wins, range(12), yes_or_no=True)["p"] == pytest.approx(2 / 2**12)  # taken for independent
    # |1 + 2 + 3| and |-1 - 2 - 3| of eight arrangements; a sum of 4 would be reached by four.
    assert exact_test([1.0, 2.0, 3.0], "abc")["p"] == pytest.approx(2 / 8)
    assert exact_test([-1.0, 2.0, 3.0], "abc")["p"] == pytest.approx(4 / 8)


def entry(metric: str, p: float | None, policy: str = "new", baseline: str | None = "base") -> dict[str, Any]:
    return {"suite": "s", "metric": metric, "policy": policy, "baseline": baseline, "p": p, "p_holm": None}


def test_each_policys_primary_metrics_are_one_family() -> None:
    entries = [entry("a", 0.01), entry("b", 0.04), entry("c", 0.03), entry("a", 0.04, policy="old"),
               entry("a", None, baseline=None), entry("d", None)]  # fmt: skip
    correct_primaries(entries)
    # Holm: 3 x 0.01, then 2 x 0.03, then 0.04, which is raised to what came before.
    assert [one["p_holm"] for one in entries] == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06),
                                                  pytest.approx(0.04), None, None]  # fmt: skip
    assert [stands(one, 0.95) for one in entries] == [True, False, False, True, False, False]


def test_a_report_tests_every_difference_and_corrects_the_primary_ones() -> None:
    rows = range(12)
    base = of("base", "form", [generated(f"i{k:02}", PLAIN) for k in rows])
    tuned = of("tuned", "form", [generated(f"i{k:02}", GOOD if k < 8 else PLAIN) for k in rows])
    fits = [of(policy, "fit", [scored(f"i{k:02}", 2 + lost + k / 50 * lost) for k in rows])
            for policy, lost in (("base", 1), ("tuned", 0))]  # fmt: skip
    report = build_report([base, tuned, *fits], {"form": FORM, "fit": FIT}, EVALUATE, {})
    found = {(row["metric"], row["baseline"]): row for row in report["metrics"] if row["policy"] == "tuned"}
    passing, bits = found["all_checks", "base"], found["bits_per_byte", "base"]
    assert passing["p"] == pytest.approx(2 / 2**8)
    assert passing["p_test"] == "McNemar, exact"
    assert bits["p"] == pytest.approx(2 / 2**12)
    assert (passing["p_holm"], bits["p_holm"]) == (pytest.approx(2 / 2**8), pytest.approx(2 * 2 / 2**12))
    assert found["regex", "base"]["p_holm"] is None  # no primary metric
    assert found["all_checks", None]["p"] is None
    answer = report["headline"]["answer"]
    assert answer["text"] == "tuned is better than base on 2 of 2 primary metrics and worse on none"
    # At 99.99 % neither eight nor twelve items can be that sure.
    strict = build_report([base, tuned, *fits], {"form": FORM, "fit": FIT}, replace(EVALUATE, confidence=0.9999), {})
    assert [one["stands"] for one in strict["headline"]["verdicts"]] == [False, False]
    assert (answer["verdict"], strict["headline"]["answer"]["verdict"]) == ("better", "unclear")
