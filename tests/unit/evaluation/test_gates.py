"""Gates decided by intervals worked by hand, and by simulation: how often equal policies fail, a loss is found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from help_desk import EVALUATE, FORM, GOOD, PLAIN, generated, of
from scipy import stats

from pipeline.config.gates import GateConfig, GateKind, WaiverConfig, gate_problems, waiver_problems
from pipeline.config.validation import out_of_bounds
from pipeline.errors import GateFailedError, GateUndecidedError
from pipeline.evaluation.comparisons import win_rate_rows
from pipeline.evaluation.gates import decide_gates
from pipeline.evaluation.metric_names import metric_names
from pipeline.evaluation.report import build_report, to_json
from pipeline.evaluation.summary import require_gates
from pipeline.statistics.intervals import paired_proportion_difference

MANY = 100_001  # clusters: Student's t is the normal distribution to four digits
Z = 1.959964


def row(low: float, high: float, **changes: Any) -> dict[str, Any]:
    base = {"suite": "form", "metric": "all_checks", "policy": "new", "baseline": "base", "unit": "share"}
    base |= {"higher_is_better": True, "n": 200, "clusters": MANY, "estimate": (low + high) / 2, "method": "by hand"}
    return base | {"low": low, "high": high} | changes


def report(**changes: Any) -> dict[str, Any]:
    return {
        "policies": ["base", "new"], "baseline": "base", "confidence": 0.95, "judges": [], "win_rates": [],
        "suites": [{"name": "form", "primary": "all_checks"}], "contamination": [],
        "counts": [{"suite": "form", "policy": "new", "items": 200, "unscored": {}}],
    } | changes  # fmt: skip


def decide(gate: GateConfig, *rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    (decided,) = decide_gates({"gate": gate}, report(**changes), rows)
    return decided


def not_worse(margin: float = 0.03, **changes: Any) -> GateConfig:
    return GateConfig(kind=GateKind.non_inferiority, suite="form", margin=margin, **changes)


def better(**changes: Any) -> GateConfig:
    return GateConfig(kind=GateKind.superiority, suite="form", **changes)


@pytest.mark.parametrize(
    ("gate", "low", "high", "outcome"),
    [
        (not_worse(), -0.02, 0.05, "PASS"),
        (not_worse(), -0.02, -0.005, "PASS"),  # surely a loss, and surely one that is tolerated
        (not_worse(), -0.05, 0.02, "INCONCLUSIVE"),
        (not_worse(), -0.05, -0.01, "FAIL"),  # surely a loss, and not surely a tolerated one
        (better(), 0.01, 0.05, "PASS"),
        (better(), -0.01, 0.05, "INCONCLUSIVE"),
        (better(), -0.05, -0.01, "FAIL"),
        (better(margin=0.02), 0.01, 0.05, "INCONCLUSIVE"),
        (better(margin=0.02), 0.005, 0.015, "FAIL"),  # better, and surely by less than was asked for
    ],
)
def test_an_interval_decides(gate: GateConfig, low: float, high: float, outcome: str) -> None:
    decided = decide(gate, row(low, high))
    assert decided["outcome"] == outcome
    assert (decided["low"], decided["high"]) == pytest.approx((low, high), abs=1e-12)  # one gate: nothing to correct
    # Where less is better everything turns round, and the row keeps its own direction.
    turned = decide(gate, row(-high, -low, higher_is_better=False))
    assert turned["outcome"] == outcome
    assert turned["low"] == pytest.approx(-high, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "low", "high", "outcome"),
    [
        (GateKind.at_least, 0.91, 0.97, "PASS"), (GateKind.at_least, 0.85, 0.97, "INCONCLUSIVE"),
        (GateKind.at_least, 0.81, 0.87, "FAIL"), (GateKind.at_most, 0.81, 0.87, "PASS"),
        (GateKind.at_most, 0.91, 0.97, "FAIL"),
    ],
)  # fmt: skip
def test_a_bound_on_a_policys_own_value(kind: GateKind, low: float, high: float, outcome: str) -> None:
    gate = GateConfig(kind=kind, suite="form", bound=0.9)
    assert decide(gate, row(low, high, baseline=None), row(-1, 1))["outcome"] == outcome


def test_what_would_decide_is_stated() -> None:
    decided = decide(not_worse(), row(-0.05, 0.05))
    error = 0.05 / Z
    assert decided["minimum_detectable"] == pytest.approx((Z + 0.841621) * error, rel=1e-4)
    assert decided["items_needed"] == math.ceil(200 * ((Z + 0.841621) * error / 0.03) ** 2)
    assert decided["power_at_margin"] == pytest.approx(stats.norm.cdf(0.03 / error - Z), rel=1e-4)
    assert decided["reason"] == (
        "the interval holds 3 points worse; 200 items find a difference of 7.15 points with 80% power, "
        "and about 1,136 items would decide"
    )
    # Of two gates each must be found at half the level, so that it takes a larger difference: z at 1 - 0.025 / 2.
    rows = [row(-0.05, 0.05), row(-0.05, 0.05, metric="regex")]
    first, _ = decide_gates({"a": not_worse(), "b": not_worse(metric="regex")}, report(), rows)
    assert first["minimum_detectable"] == pytest.approx((2.241403 + 0.841621) * error, rel=1e-4)
    # Enough to show equality, and undecided all the same: the distance of what was measured decides.
    close = decide(not_worse(), row(-0.035, -0.015 + 0.02))
    assert close["items_needed"] > 200
    assert decide(better(), row(0.01, 0.05))["items_needed"] is None
    assert decide(better(), row(-0.05, 0.05))["items_needed"] is None
    assert "no number of items" in decide(better(), row(-0.05, 0.05))["reason"]


def two(first: float, second: float, **changes: Any) -> list[str]:
    """Return the outcomes of two claims to be better, so many standard errors above zero."""
    rows = [row((z - Z) / 100, (z + Z) / 100, metric=name) for name, z in (("all_checks", first), ("regex", second))]
    gates = {"a": better(), "b": better(metric="regex", **changes)}
    return [gate["outcome"] for gate in decide_gates(gates, report(), rows)]


def test_several_gates_are_corrected_for_each_other() -> None:
    # One-sided 0.0179 at 2.1 and 0.0062 at 2.5; Holm asks the first for 0.0125 and the second for 0.025.
    assert decide(better(), row((2.1 - Z) / 100, (2.1 + Z) / 100))["outcome"] == "PASS"
    assert two(2.1, 2.5) == ["PASS", "PASS"]  # Bonferroni would leave the weaker one open
    assert two(2.1, 2.1) == ["INCONCLUSIVE", "INCONCLUSIVE"]
    assert two(-2.1, -2.1) == ["INCONCLUSIVE", "INCONCLUSIVE"]
    assert two(-2.1, -2.5) == ["FAIL", "FAIL"]
    assert two(2.1, 2.1, hard=True) == ["PASS", "PASS"]  # hard and soft gates are not one family


def test_a_limit_clears_its_bound_exactly_when_the_gate_says_so() -> None:
    draw = np.random.default_rng(5)
    for _ in range(300):
        shifts, margin = draw.normal(0.02, 0.03, 4), float(draw.uniform(0.005, 0.05))
        rows = [row(s - 0.03, s + 0.03, metric=f"m{k}", clusters=40) for k, s in enumerate(shifts)]
        gates = {f"g{k}": not_worse(margin, metric=f"m{k}") for k in range(4)}
        for gate in decide_gates(gates, report(), rows):
            said = "PASS" if gate["low"] > -margin else "FAIL" if gate["high"] < 0 else "INCONCLUSIVE"
            assert gate["outcome"] == said
            assert gate["low"] <= gate["estimate"] <= gate["high"]


def rating(metric: str) -> dict[str, Any]:
    return row(0.2, 0.6, metric=metric, unit="rating")


def test_a_judge_that_a_criterion_or_a_check_is_named_like_has_no_say_in_it() -> None:
    said = [{"criterion": "style", "qualified": True, "reasons": []}]
    llm = {"name": "llm", "suite": None, "qualified": True, "reasons": [], "ratings": said}
    style = {"name": "style", "suite": None, "qualified": False, "reasons": ["it flips"], "ratings": []}
    gate = better(metric="style/llm")  # the criterion `style` as the judge `llm` rates it
    assert decide(gate, rating("style/llm"), judges=[style, llm])["outcome"] == "PASS"
    assert decide(better(metric="style"), row(0.01, 0.05, metric="style"), judges=[style])["outcome"] == "PASS"
    refused = decide(better(metric="llm/style"), rating("llm/style"), judges=[style, llm])
    assert refused["reason"] == "the judge style has not qualified (it flips), so its verdicts cannot gate"


def test_ratings_gate_only_where_they_were_found_to_go_with_votes() -> None:
    """The judge itself has qualified by comparing pairs, which says nothing of its numbers from 1 to 5."""
    ratings = [{"criterion": "clear", "qualified": True, "reasons": []},
               {"criterion": "kind", "qualified": False, "reasons": ["all are 5"]}]  # fmt: skip
    judge = {"name": "llm", "suite": None, "qualified": True, "reasons": [], "ratings": ratings}

    def outcome(criterion: str) -> tuple[str, str]:
        decided = decide(better(metric=f"{criterion}/llm"), rating(f"{criterion}/llm"), judges=[judge])
        return decided["outcome"], decided["reason"]

    assert outcome("clear")[0] == "PASS"
    told = "ratings by kind of the judge llm have not qualified (all are 5), so they cannot gate"
    assert outcome("kind") == ("INCONCLUSIVE", told)
    assert outcome("new")[0] == "INCONCLUSIVE"
    assert "nobody measured them" in outcome("new")[1]


def test_a_judge_that_has_not_qualified_cannot_gate() -> None:
    pair = {"suite": "form", "judge": "llm", "policy": "new", "opponent": "base", "n": 200, "clusters": MANY,
            "estimate": 0.8, "low": 0.75, "high": 0.85, "method": "x", "unscored": {"timeout": 10},
            "p": 0.001, "p_test": "x", "p_holm": None}  # fmt: skip
    gate = better(metric="win_rate/llm")
    judge = {"name": "llm", "suite": None, "qualified": True, "reasons": [], "ratings": []}
    assert decide(gate, *win_rate_rows([pair]), judges=[judge])["outcome"] == "PASS"
    refused = decide(gate, *win_rate_rows([pair]), judges=[judge | {"qualified": False, "reasons": ["it flips"]}])
    assert refused["outcome"] == "INCONCLUSIVE"
    assert refused["reason"] == "the judge llm has not qualified (it flips), so its verdicts cannot gate"
    elsewhere = {"name": "llm", "suite": "other", "qualified": False, "reasons": [], "ratings": []}
    assert decide(gate, *win_rate_rows([pair]), judges=[judge, elsewhere])["outcome"] == "PASS"
    # One half is no difference, and a pair that is named the other way round is turned.
    even = win_rate_rows([pair | {"estimate": 0.5, "low": 0.45, "high": 0.55}])
    assert decide(gate, *even, judges=[judge])["outcome"] == "INCONCLUSIVE"
    assert decide(better(metric="win_rate/llm", policy="base", baseline="new"), *win_rate_rows([pair]),
                  judges=[judge])["outcome"] == "FAIL"  # fmt: skip
    qualified = GateConfig(kind=GateKind.at_least, metric="judge_qualified/llm", bound=1.0)
    assert decide(qualified, judges=[judge])["outcome"] == "PASS"
    assert decide(qualified, judges=[judge | {"qualified": False}])["outcome"] == "FAIL"
    assert decide(qualified)["reason"] == "there is no such judge to count"
    share = GateConfig(kind=GateKind.at_most, metric="unscored_share", bound=0.02)
    assert decide(share)["outcome"] == "PASS"
    missing = decide(share, win_rates=[pair])
    assert (missing["outcome"], missing["estimate"]) == ("FAIL", pytest.approx(10 / 210))
    assert "llm on new against base, form" in missing["reason"]


def test_contamination_is_counted_and_its_absence_is_not_a_pass() -> None:
    clean = GateConfig(kind=GateKind.at_most, metric="contaminated_items", bound=0.0)
    found = {"suite": "form", "items": 200, "contaminated": 3, "ids": ["a"], "against": "x"}
    assert decide(clean, contamination=[found])["outcome"] == "FAIL"
    assert decide(clean, contamination=[found | {"contaminated": 0}])["outcome"] == "PASS"
    assert decide(clean)["outcome"] == "INCONCLUSIVE"


def test_what_is_counted_is_what_the_gate_names_and_of_that_the_worst() -> None:
    counts = [
        {"suite": suite, "policy": policy, "items": 200, "unscored": unscored}
        for suite, policy, unscored in (
            ("form", "new", {}), ("form", "base", {"overlength": 12, "error": 8}), ("other", "new", {"error": 30}),
        )
    ]  # fmt: skip
    measured = {
        "contamination": [{"suite": name, "items": 200, "contaminated": number}
                          for name, number in (("form", 3), ("other", 0), ("last", 1))],
        "counts": counts,
        "win_rates": [{"suite": "form", "judge": "llm", "policy": "newer", "opponent": "base", "n": 150,
                       "unscored": {"timeout": 50}}],
        "judges": [{"name": name, "suite": suite, "qualified": qualified, "reasons": []}
                   for name, suite, qualified
                   in (("llm", "form", True), ("llm", "other", False), ("rule", None, True))],
    }  # fmt: skip

    def counted(metric: str, **names: Any) -> tuple[str, float]:
        decided = decide(GateConfig(metric=metric, **{"kind": GateKind.at_most, "bound": 0.02} | names), **measured)
        return decided["outcome"], decided["estimate"]

    assert counted("contaminated_items", bound=2.0) == ("FAIL", 3.0)
    assert counted("contaminated_items", bound=2.0, suite="last") == ("PASS", 1.0)
    assert counted("contaminated_items", bound=2.0, suite="other") == ("PASS", 0.0)
    assert counted("unscored_share") == ("FAIL", 0.25)
    assert counted("unscored_share", policy="new") == ("FAIL", 0.15)
    assert counted("unscored_share", policy="base") == ("FAIL", 0.1)
    assert counted("unscored_share", suite="other") == ("FAIL", 0.15)
    assert counted("unscored_share", suite="form", policy="new") == ("PASS", 0.0)
    qualified = {"kind": GateKind.at_least, "bound": 1.0}
    assert counted("judge_qualified/llm", **qualified) == ("FAIL", 0.0)
    assert counted("judge_qualified/llm", suite="form", **qualified) == ("PASS", 1.0)
    assert counted("judge_qualified/llm", suite="other", **qualified) == ("FAIL", 0.0)
    assert counted("judge_qualified/rule", suite="other", **qualified) == ("PASS", 1.0)


@pytest.mark.parametrize(
    ("gate", "rows", "reason"),
    [
        (better(metric="all_check"), [row(0.1, 0.2)], "all_check was not measured on form. Did you mean `all_checks`?"),
        (better(metric="tokens"), [row(0.1, 0.2, metric="tokens", higher_is_better=None)], "neither direction"),
        (
            better(),
            [row(0.1, 0.2) | {"low": None, "high": None, "method": "not estimable: one cluster"}],
            "one cluster",
        ),
        (GateConfig(suite="other"), [row(0.1, 0.2)], "the suite other was not evaluated"),
        (better(policy="base"), [row(0.1, 0.2)], "there is no policy to compare with base"),
    ],
)
def test_what_was_not_measured_is_never_a_pass(gate: GateConfig, rows: list[dict[str, Any]], reason: str) -> None:
    decided = decide(gate, *rows)
    assert decided["outcome"] == "INCONCLUSIVE"
    assert reason in decided["reason"]


def test_what_is_wrong_with_a_gate_is_told_before_anything_runs() -> None:
    def problems(gate: GateConfig) -> str:
        return "\n".join(gate_problems("g", gate, "base", ["base", "new"], suites))

    suites = {"form": metric_names(FORM, ["llm"], []), "harness": None}
    assert problems(not_worse()) == ""
    assert problems(better(metric="win_rate/llm")) == ""
    assert problems(GateConfig(suite="harness", metric="acc", margin=0.1)) == ""
    assert "g.metric=all_check: form has no such metric. Did you mean `all_checks`?" in problems(
        better(metric="all_check")
    )
    assert "g.metric=completion_tokens: form has no such metric" in problems(better(metric="completion_tokens"))
    assert "g.metric=win_rate/other: form has no such metric" in problems(better(metric="win_rate/other"))
    assert problems(better(hard=True)) == ""
    assert "evaluate.gates.g.margin: has no value" in problems(not_worse(0.0))
    assert "evaluate.gates.g.bound: has no value" in problems(GateConfig(kind=GateKind.at_least, suite="form"))
    assert "g.suite: has no value; name one of the suites (form, harness)" in problems(GateConfig(margin=0.1))
    assert "g.suite=x: this suite is not evaluated" in problems(GateConfig(suite="x", margin=0.1, hard=True))
    assert "g.baseline=old: it is not among" in problems(better(baseline="old"))
    assert "it is the baseline" in problems(better(policy="base"))
    assert "is counted, not compared" in problems(GateConfig(metric="unscored_share", margin=0.1))
    assert list(out_of_bounds({"g": better(alpha=0.7)}["g"], "g.")) == ["g.alpha=0.7: must be less than 0.5."]


def test_a_hard_gate_moves_the_exit_status_and_a_soft_one_does_not() -> None:
    failed, open_ = row(-0.05, -0.01), row(-0.05, 0.05)
    for gate, measured, error in (
        (better(hard=True), failed, GateFailedError), (better(hard=True), open_, GateUndecidedError),
    ):  # fmt: skip
        with pytest.raises(error, match="1 hard gate .*sealed all the same.\n  gate: new is better than base"):
            require_gates({"gates": [decide(gate, measured)]})
    require_gates({"gates": [decide(better(), failed), decide(better(hard=True), row(0.1, 0.2))]})
    statuses = (GateFailedError.exit_status, GateUndecidedError.exit_status)
    assert statuses == (30, 31)


def test_a_report_holds_its_gates_also_between_two_policies_that_are_not_its_baseline() -> None:
    def passing(policy: str, number: int) -> Any:
        return of(policy, "form", [generated(f"i{k:02}", GOOD if k < number else PLAIN) for k in range(60)])

    samples = [passing("base", 10), passing("sft", 20), passing("dpo", 45)]
    gates = {"beats_sft": better(baseline="sft"), "beats_base": better()}
    evaluate = EVALUATE.__class__(baseline="base", suites=["form"], gates=gates)
    made = build_report(samples, {"form": FORM}, evaluate, {})
    assert [(g["baseline"], g["estimate"], g["outcome"]) for g in made["gates"]] == [
        ("sft", pytest.approx(25 / 60), "PASS"), ("base", pytest.approx(35 / 60), "PASS"),
    ]  # fmt: skip
    assert not [entry for entry in made["metrics"] if entry["baseline"] == "sft"]
    assert to_json(build_report(samples, {"form": FORM}, evaluate, {})) == to_json(made)


def simulated(
    runs: int, n: int, lost: float, gained: float, num_gates: int, margin: float
) -> tuple[list[list[str]], list[float], list[list[float]]]:
    """Return outcomes, stated detectable differences and estimates of gates on simulated pass rates.

    Of n items, `lost` is the share that only the baseline passes, `gained` the share that only the new policy does.
    """
    draw = np.random.default_rng(11)
    outcomes, detectable, estimates = [], [], []
    items = list(range(n))
    gates = {f"g{k}": not_worse(margin, metric=f"m{k}") for k in range(num_gates)}
    for _ in range(runs):
        rows = []
        for k in range(num_gates):
            u = draw.random(n)
            base, new = u < lost + 0.5, (u >= lost) & (u < lost + 0.5 + gained)
            made = paired_proportion_difference(new.tolist(), base.tolist(), items)
            assert made.low is not None
            assert made.high is not None
            rows.append(row(made.low, made.high, metric=f"m{k}", estimate=made.estimate, n=n, clusters=n))
        decided = decide_gates(gates, report(), rows)
        outcomes.append([gate["outcome"] for gate in decided])
        detectable.append(decided[0]["minimum_detectable"])
        estimates.append([gate["estimate"] for gate in decided])
    return outcomes, detectable, estimates


def bounds(count: int, runs: int) -> tuple[float, float]:
    """Return the 99.9 % Clopper-Pearson interval of a measured share."""
    interval = stats.binomtest(count, runs).proportion_ci(0.999)
    return float(interval.low), float(interval.high)


@pytest.mark.slow
def test_equal_policies_fail_in_at_most_five_per_cent_of_reports() -> None:
    runs = 2000
    outcomes, _, estimates = simulated(runs, 200, 0.1, 0.1, num_gates=3, margin=0.03)
    failed = sum("FAIL" in report for report in outcomes)
    assert bounds(failed, runs)[1] <= 0.05
    # Controls: a gate on the point estimate fails most of the time, and three without correction more often.
    assert sum(min(report) < 0 for report in estimates) / runs > 0.7
    error = math.sqrt(0.2 / 200)
    alone = sum(min(report) < -Z * error for report in estimates)
    assert alone > failed
    assert bounds(alone, runs)[1] > 0.05


def test_a_loss_of_ten_points_is_found_with_the_stated_power() -> None:
    # 16 % lost and 6 % gained: variance 0.22 - 0.01, so that (1.96 + 0.8416)^2 * 0.21 / 0.01 = 165 items have 80 %.
    runs = 2000
    outcomes, detectable, _ = simulated(runs, 165, 0.16, 0.06, num_gates=1, margin=0.02)
    found = sum(report == ["FAIL"] for report in outcomes)
    assert np.mean(detectable) == pytest.approx(0.10, abs=0.003)
    low, high = bounds(found, runs)
    assert low <= 0.8 <= high
    fewer, _, _ = simulated(runs, 60, 0.16, 0.06, num_gates=1, margin=0.02)
    assert bounds(sum(report == ["FAIL"] for report in fewer), runs)[1] < 0.6


def test_a_waived_gate_keeps_its_outcome_and_moves_no_exit_status() -> None:
    rows = range(60)
    old = of("base", "form", [generated(f"i{k:02}", GOOD) for k in rows])
    new = of("new", "form", [generated(f"i{k:02}", PLAIN) for k in rows])
    gates = {"form": better(hard=True), "floor": GateConfig(kind=GateKind.at_least, suite="form", bound=0.5, hard=True)}
    waivers = {"release": WaiverConfig(gate="form", reason="Style comes later.", by="A. Kern")}

    def made(waived: dict[str, WaiverConfig]) -> dict[str, Any]:
        return build_report([old, new], {"form": FORM}, replace(EVALUATE, gates=gates, waivers=waived), {})

    first, second = made(waivers)["gates"]
    assert (first["outcome"], second["outcome"]) == ("FAIL", "FAIL")
    assert first["waiver"] == {"name": "release", "reason": "Style comes later.", "by": "A. Kern"}
    assert second["waiver"] is None
    with pytest.raises(GateFailedError) as failed:
        require_gates(made(waivers))
    assert "floor: " in str(failed.value)
    assert "form: " not in str(failed.value)
    require_gates(made({**waivers, "floor": WaiverConfig(gate="floor", reason="As above.", by="A. Kern")}))


def test_a_waiver_names_a_gate_a_reason_and_a_person() -> None:
    waivers = {
        "a": WaiverConfig(gate="form", reason="Later.", by="A. Kern"),
        "b": WaiverConfig(gate="form", reason=" ", by=""),
        "c": WaiverConfig(gate="fom", reason="Later.", by="A. Kern"),
    }
    problems = list(waiver_problems(waivers, ["form"]))
    assert [problem.split(":")[0] for problem in problems] == [
        "evaluate.waivers.b.gate=form", "evaluate.waivers.b.reason", "evaluate.waivers.b.by",
        "evaluate.waivers.c.gate=fom",
    ]  # fmt: skip
    assert "a waives it already" in problems[0]
    assert "form" in problems[3]
    assert list(waiver_problems({"a": waivers["a"]}, ["form"])) == []
