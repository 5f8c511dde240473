"""A report of four items whose every number is counted by hand."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from help_desk import EVALUATE, FIT, FORM, GOOD, LONG, PLAIN, SUITES, generated, help_desk, of, scored

from pipeline.config.evaluation import CheckConfig, EvaluateConfig, SuiteConfig
from pipeline.errors import ArtifactError, ConfigError, DataError
from pipeline.evaluation.joining import PolicySamples, join
from pipeline.evaluation.judged import JudgedWins
from pipeline.evaluation.metric_names import check_names, metric_names
from pipeline.evaluation.report import Report, build_report, headline_metrics, round_floats, to_json
from pipeline.evaluation.summary import read_report, summary_lines


def report_of(
    samples: list[PolicySamples] | None = None, taught_by: dict[str, list[str]] | None = None, **changes: Any
) -> Report:
    provenance = {"base": ["0" * 64], "taught_by": taught_by or {}}
    return build_report(samples or help_desk(), SUITES, replace(EVALUATE, **changes), provenance)


def find(report: Report, metric: str, policy: str, baseline: str | None = None) -> dict[str, Any]:
    (entry,) = [
        entry
        for entry in report["metrics"]
        if (entry["metric"], entry["policy"], entry["baseline"]) == (metric, policy, baseline)
    ]
    return dict(entry)


@pytest.mark.parametrize(
    ("metric", "base", "tuned"),
    [
        ("all_checks", 1 / 4, 3 / 4),  # base: c; tuned: a, b, c
        ("max_words", 3 / 4, 1.0),  # the long completion has ten words
        ("regex", 2 / 4, 3 / 4),
        ("finished", 3 / 4, 1.0),
        ("completion_tokens", (2 + 10 + 5 + 2) / 4, (5 + 5 + 5 + 2) / 4),
        ("nats_per_token", (4 + 2 + 3 + 3) / (2 + 4 + 2 + 2), (2 + 1 + 2 + 2.5) / 10),
        ("bits_per_byte", 12 / math.log(2) / 32, 7.5 / math.log(2) / 32),
    ],
)
def test_every_metric_and_its_difference(metric: str, base: float, tuned: float) -> None:
    report = report_of()
    assert find(report, metric, "base")["estimate"] == pytest.approx(base)
    assert find(report, metric, "tuned")["estimate"] == pytest.approx(tuned)
    difference = find(report, metric, "tuned", "base")
    assert difference["estimate"] == pytest.approx(tuned - base)
    assert difference["low"] < difference["estimate"] < difference["high"]
    assert (difference["n"], difference["clusters"]) == (4, 4)


def test_each_entry_says_its_unit_and_which_direction_is_better() -> None:
    report = report_of()
    said = {entry["metric"]: (entry["unit"], entry["higher_is_better"]) for entry in report["metrics"]}
    assert said["all_checks"] == ("share", True)
    assert said["completion_tokens"] == ("tokens", None)
    assert said["bits_per_byte"] == ("bits/byte", False)
    assert set(report["metrics"][0]) == {
        "suite", "metric", "policy", "baseline", "n", "clusters", "estimate", "low", "high", "method",
        "higher_is_better", "unit", "p", "p_test", "p_holm",
    }  # fmt: skip


def test_the_report_is_the_same_to_the_last_byte_whatever_the_order_of_the_rows() -> None:
    first = to_json(report_of())
    shuffled = [
        replace(entry, rows=random.Random(1).sample(list(entry.rows), len(entry.rows))) for entry in help_desk()
    ]
    assert to_json(report_of(shuffled)) == first
    changed = help_desk()
    changed[1] = replace(changed[1], rows=[*list(changed[1].rows)[:-1], generated("d", GOOD)])
    assert to_json(report_of(changed)) != first
    assert json.loads(first)["policies"] == ["base", "tuned"]


def test_floats_keep_ten_digits_and_nothing_that_is_not_finite_gets_in() -> None:
    assert round_floats({"a": [1 / 3, -0.0, 123456789012.3]}) == {"a": [0.3333333333, 0.0, 123456789000.0]}
    assert str(round_floats(-0.0)) == "0.0"
    with pytest.raises(ValueError, match="holds no nan"):
        round_floats([math.nan])


def test_the_headline_says_who_is_better_and_how_sure() -> None:
    rows = range(40)
    base = of("base", "form", [generated(f"i{k:02}", PLAIN) for k in rows])
    tuned = of("tuned", "form", [generated(f"i{k:02}", GOOD if k < 30 else PLAIN) for k in rows])
    same = of("same", "form", [generated(f"i{k:02}", PLAIN) for k in rows])
    report = build_report([base, tuned, same], {"form": FORM}, EVALUATE, {})
    # 30 of 40 pass, and the two pseudo-items: centre 30/42, residuals 12, -30, 12 and -72 over 42; t_39 = 2.0227.
    variance = (30 * 12**2 + 10 * 30**2 + 12**2 + 72**2) / 42**4
    low, high = (round(100 * (30 / 42 + sign * 2.0226909 * math.sqrt(variance))) for sign in (-1, 1))
    first, second = report["headline"]["sentences"]
    assert first == f"tuned beats base on items that pass all checks (form): +75 points [{low}, {high}], 40 items."
    assert second.startswith("same cannot be told from base on items that pass all checks (form): 0 points [-")
    assert [entry["verdict"] for entry in report["headline"]["verdicts"]] == ["better", "no clear difference"]
    worse = build_report([base, tuned, same], {"form": FORM}, replace(EVALUATE, baseline="tuned"), {})
    assert "base is worse than tuned on items that pass all checks (form): -75 points" in worse["headline"]["text"]


def test_likelihood_is_told_and_not_counted_where_nobody_imitated() -> None:
    """A policy that learned from votes gives up likelihood of demonstrations: its answers say whether it is better."""
    plain = report_of()
    assert {entry["suite"] for entry in plain["headline"]["verdicts"]} == {"form", "fit"}
    imitated = report_of(taught_by={"tuned": ["demonstrations"]})
    assert imitated["headline"] == plain["headline"]
    voted = report_of(taught_by={"tuned": ["comparisons"]})
    assert [(entry["suite"], entry["metric"]) for entry in voted["headline"]["verdicts"]] == [("form", "all_checks")]
    assert "of 1 primary metric" in voted["headline"]["answer"]["text"]
    (told,) = voted["headline"]["aside"]
    assert told.startswith("Not counted, as tuned or base learned from other than demonstrations: tuned ")
    assert "bits per byte (fit)" in told
    assert told in voted["headline"]["text"]
    measured = [
        [{key: value for key, value in entry.items() if key != "p_holm"} for entry in report["metrics"]]
        for report in (plain, voted)  # what is corrected for, and so how, are the metrics that count
    ]
    assert measured[0] == measured[1], "what is measured must not depend on it"
    # The other way round: the baseline has learned from rewards.
    other = report_of(taught_by={"base": ["prompts"]})
    assert [entry["suite"] for entry in other["headline"]["verdicts"]] == ["form"]


def test_a_report_of_nothing_that_counts_says_so() -> None:
    samples = [entry for entry in help_desk() if entry.suite == "fit"]
    report = build_report(samples, {"fit": FIT}, EVALUATE, {"taught_by": {"tuned": ["comparisons"]}})
    assert report["headline"]["answer"]["verdict"] == "not measured"
    assert report["headline"]["answer"]["text"] == "no suite says whether tuned is better than base"
    assert report["headline"]["verdicts"] == []
    assert report["headline"]["text"] == report["headline"]["aside"][0]


def test_a_reward_is_a_metric_with_a_mean_of_its_own() -> None:
    """Words of the answers (GOOD, PLAIN, LONG) are counted by hand; two are wanted, none is free."""
    rewards = [CheckConfig(name="word_count", params={"target": 2}), CheckConfig(name="max_words", params={"limit": 6})]
    suite = replace(FORM, rewards=rewards)
    rows = {"base": ["one two", "one two three"], "tuned": ["one two", "one"]}
    samples = [of(policy, "form", [generated(f"i{k}", text) for k, text in enumerate(texts)])
               for policy, texts in rows.items()]  # fmt: skip
    report = build_report(samples, {"form": suite}, EVALUATE, {})
    assert report["suites"][0]["primary"] == "all_checks"
    names = list(dict.fromkeys(entry["metric"] for entry in report["metrics"]))
    # Two of a name are numbered, whichever list they stand in.
    assert names == ["all_checks", "max_words_1", "regex", "word_count", "max_words_2", "finished", "completion_tokens"]
    assert find(report, "word_count", "base")["estimate"] == pytest.approx((0 - 0.5) / 2)
    entry = next(e for e in report["metrics"] if e["metric"] == "word_count" and e["baseline"] == "base")
    assert (entry["estimate"], entry["unit"], entry["higher_is_better"]) == (pytest.approx(0.0), "score", True)
    assert metric_names(suite, [], [])[:5] == names[:5]
    # Of a policy that learned from votes it is asked beside the primary metric; of one that imitates it is not.
    assert [entry["metric"] for entry in report["headline"]["verdicts"]] == ["all_checks"]
    voted = build_report(samples, {"form": suite}, EVALUATE, {"taught_by": {"tuned": ["comparisons"]}})
    assert [e["metric"] for e in voted["headline"]["verdicts"]] == ["all_checks", "word_count", "max_words_2"]
    wrong = replace(FORM, rewards=[CheckConfig(name="word_counts")])
    with pytest.raises(ConfigError, match=r"suite form: rewards\[0\]: there is no reward `word_counts`"):
        build_report(samples, {"form": wrong}, EVALUATE, {})


def test_one_item_is_not_called_a_result() -> None:
    samples = [of("base", "fit", [scored("a", 3.0)]), of("tuned", "fit", [scored("a", 1.0)])]
    report = build_report(samples, {"fit": FIT}, EVALUATE, {})
    assert "cannot be compared with base" in report["headline"]["text"]
    assert "one cluster" in report["headline"]["text"]


def test_a_single_policy_is_reported_without_a_comparison() -> None:
    report = build_report(help_desk()[:1], {"form": FORM}, EVALUATE, {})
    assert report["headline"]["text"].startswith("base: items that pass all checks (form) 25 % [")
    assert report["headline"]["verdicts"] == []
    assert all(entry["baseline"] is None for entry in report["metrics"])


def test_items_without_a_result_are_counted_and_left_out_for_every_policy() -> None:
    samples = help_desk()
    rows = [generated("a", "", finish_reason=None, unscored="overlength"), *list(samples[0].rows)[1:]]
    samples[0] = replace(samples[0], rows=rows)
    report = report_of(samples)
    base, tuned = (entry for entry in report["counts"] if entry["suite"] == "form")
    assert (base["items"], base["compared"], base["excluded_for_others"]) == (4, 3, 0)
    assert (base["unscored"], base["truncated"]) == ({"overlength": 1}, 1)
    assert (tuned["items"], tuned["compared"], tuned["excluded_for_others"], tuned["unscored"]) == (4, 3, 1, {})
    assert find(report, "all_checks", "tuned")["estimate"] == pytest.approx(2 / 3)  # b and c are left
    for entry in report["counts"]:
        assert entry["compared"] + entry["excluded_for_others"] + sum(entry["unscored"].values()) == entry["items"]


def test_repeated_clusters_are_counted_as_clusters() -> None:
    base = of("base", "form", [generated(i, PLAIN, cluster=i[0]) for i in ("a1", "a2", "b1", "b2")])
    entry = find(build_report([base], {"form": FORM}, EVALUATE, {}), "regex", "base")
    assert (entry["n"], entry["clusters"]) == (4, 2)
    assert "effective number" in entry["method"]


def test_other_items_are_refused_by_name() -> None:
    base, tuned = help_desk()[:2]
    fewer = replace(tuned, rows=list(tuned.rows)[1:])
    with pytest.raises(ArtifactError, match="form: base and tuned were not given the same items. only base has: a"):
        join([base, fewer], {"form": FORM}, EVALUATE)
    other = replace(tuned, rows=[generated("a", GOOD, prompt="Another question?"), *list(tuned.rows)[1:]])
    with pytest.raises(ArtifactError, match="the same id stands for different items: a"):
        join([base, other], {"form": FORM}, EVALUATE)
    with pytest.raises(ArtifactError, match="tuned has 0 sets of samples"):
        join([*help_desk()[:1], *help_desk()[2:]], SUITES, EVALUATE)
    with pytest.raises(ArtifactError, match="must hold one GenerationSample"):
        join([replace(base, rows=help_desk()[2].rows)], {"form": FORM}, EVALUATE)


def test_what_cannot_be_compared_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"evaluate.baseline: `old` is not among the policies \(base, tuned\)"):
        report_of(baseline="old")
    nothing = of("base", "form", [generated("a", "", finish_reason=None, unscored="overlength")])
    with pytest.raises(DataError, match="no item has a result from every policy .overlength: 1"):
        build_report([nothing], {"form": FORM}, EVALUATE, {})
    needs_reference = replace(FORM, checks=[CheckConfig(name="exact_match")])
    with pytest.raises(DataError, match="suite form: item 'a': exact_match"):
        build_report(help_desk()[:1], {"form": needs_reference}, EVALUATE, {})
    with pytest.raises(ConfigError, match=r"suite form: checks\[0\]: there is no check .max_word."):
        build_report(help_desk()[:1], {"form": replace(FORM, checks=[CheckConfig(name="max_word")])}, EVALUATE, {})


def test_examples_are_regressions_improvements_and_unchanged_items_in_turn() -> None:
    samples = [
        of("base", "form", [generated("a", PLAIN), generated("b", LONG), generated("c", GOOD), generated("d", PLAIN)]),
        of("tuned", "form", [generated("a", GOOD), generated("b", GOOD), generated("c", PLAIN), generated("d", PLAIN)]),
    ]
    chosen = build_report(samples, {"form": FORM}, EVALUATE, {})["examples"]
    assert {entry["id"]: entry["change"] for entry in chosen} == {
        "c": "regressed", "a": "improved", "b": "improved", "d": "unchanged",
    }  # fmt: skip
    two = build_report(samples, {"form": FORM}, EvaluateConfig(baseline="base", num_regressions=1, num_examples=2), {})[
        "examples"
    ]
    assert [entry["change"] for entry in two] == ["regressed", "improved", "unchanged"]
    first = chosen[0]["answers"]
    assert [entry["policy"] for entry in first] == ["base", "tuned"]
    assert first[1]["checks"] == [{"name": "max_words", "passed": True}, {"name": "regex", "passed": False}]
    nothing = EvaluateConfig(baseline="base", num_examples=0, num_regressions=0)
    assert build_report(samples, {"form": FORM}, nothing, {})["examples"] == []


def test_the_worst_regressions_of_the_newest_policy_come_first() -> None:
    nothing = "one two three four five six seven"  # fails both checks, and PLAIN only one
    samples = [
        of("base", "form", [generated("a", GOOD), generated("b", GOOD), generated("c", PLAIN), generated("d", PLAIN)]),
        of("middle", "form", [generated(i, nothing) for i in "abcd"]),
        of("newest", "form", [generated("a", PLAIN), generated("b", nothing), generated("c", GOOD),
                              generated("d", PLAIN)]),
    ]  # fmt: skip
    chosen = build_report(samples, {"form": FORM}, EVALUATE, {})["examples"]
    assert [(entry["id"], entry["change"], entry["change_size"]) for entry in chosen] == [
        ("b", "regressed", -2.0), ("a", "regressed", -1.0), ("c", "improved", 1.0), ("d", "unchanged", 0.0),
    ]  # fmt: skip


def test_without_checks_a_judge_tells_the_regressions() -> None:
    unchecked = replace(FORM, checks=[])
    samples = [of(policy, "form", [generated(i, GOOD) for i in "abcd"]) for policy in ("base", "newest")]

    def wins(judge: str, qualified: bool, **said: float) -> JudgedWins:
        return JudgedWins(
            suite="form", judge=judge, qualified=qualified, against={},
            wins={"base": dict.fromkeys("abcd", 0.5), "newest": said},
        )  # fmt: skip

    def chosen(suite: SuiteConfig, *said: JudgedWins) -> list[tuple[str, str, float]]:
        examples = build_report(samples, {"form": suite}, EVALUATE, {}, wins=said)["examples"]
        return [(entry["id"], entry["change"], entry["change_size"]) for entry in examples]

    doubtful, good = wins("doubtful", False, a=0.0, b=1.0, c=1.0, d=1.0), wins("good", True, a=1.0, b=0.25, c=0.0)
    assert chosen(unchecked, doubtful, good) == [
        ("c", "regressed", -0.5), ("b", "regressed", -0.25), ("a", "improved", 0.5), ("d", "unchanged", 0.0),
    ]  # fmt: skip
    assert chosen(unchecked, doubtful)[0] == ("a", "regressed", -0.5)  # better one that has not qualified than none
    assert {change for _, change, _ in chosen(unchecked)} == {"unchanged"}
    assert {change for _, change, _ in chosen(FORM, good)} == {"unchanged"}  # checks say it where there are some


def test_two_checks_of_one_name_stay_apart() -> None:
    names = check_names([CheckConfig(name="regex"), CheckConfig(name="max_words"), CheckConfig(name="regex")])
    assert names == ["regex_1", "max_words", "regex_2"]


def test_the_summary_holds_every_metric_and_the_manifest_the_primary_ones() -> None:
    report = report_of()
    lines = summary_lines(report)
    # Four items are one cluster each: of the 16 ways to flip their signs at least two are as extreme.
    assert lines[-1] == (
        "tuned is better than base on 1 of 2 primary metrics and worse on none; "
        "by exact tests corrected for 2 metrics the difference does not stand."
    )
    assert lines[-2] == report["headline"]["text"]
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [
        "metric", "all_checks", "max_words", "regex", "finished", "completion_tokens",
        "metric", "bits_per_byte", "nats_per_token",
    ]  # fmt: skip
    assert headline_metrics(report) == pytest.approx(
        {
            "form/all_checks/base": 0.25,
            "form/all_checks/tuned": 0.75,
            "form/all_checks/tuned_minus_base": 0.5,
            "fit/bits_per_byte/base": 12 / math.log(2) / 32,
            "fit/bits_per_byte/tuned": 7.5 / math.log(2) / 32,
            "fit/bits_per_byte/tuned_minus_base": -4.5 / math.log(2) / 32,
        }
    )


def test_the_summary_tells_the_audit_of_each_reward_model() -> None:
    card = {"artifact": "reward-1-2", "gates": [
        {"name": "accuracy", "outcome": "PASS", "reason": "held-out accuracy against 0.5: 0.78 on 225 items"},
        {"name": "length_rule", "outcome": "INCONCLUSIVE", "reason": "0.07 (-0.01 to 0.13) on 225 items"},
    ]}  # fmt: skip
    lines = summary_lines({**report_of(), "reward_models": [card]})
    start = lines.index("audit of reward-1-2")
    assert lines[start + 1 : start + 4] == [
        "  PASS          accuracy     held-out accuracy against 0.5: 0.78 on 225 items",
        "  INCONCLUSIVE  length_rule  0.07 (-0.01 to 0.13) on 225 items",
        "",
    ]
    assert not [line for line in summary_lines(report_of()) if line.startswith("audit of")]


def test_a_written_report_is_read_back_and_another_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(to_json(report_of()), encoding="utf-8")
    assert read_report(path) == report_of()
    for content in ("{", "[]", '{"format_version": 1}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ArtifactError, match="Run the evaluation again"):
            read_report(path)


def test_policies_with_different_tokenizers_are_compared_per_byte_alone() -> None:
    ours, others = [scored("a", 1.0), scored("b", 3.0)], [scored("a", 1.5, tokens=3), scored("b", 2.0)]
    report = build_report([of("base", "fit", ours), of("other", "fit", others)], {"fit": FIT}, EVALUATE, {})
    assert {entry["metric"] for entry in report["metrics"]} == {"bits_per_byte"}
    difference = next(entry for entry in report["metrics"] if entry["baseline"] == "base")
    total = sum(row.bytes for row in ours)
    assert difference["estimate"] == pytest.approx((3.5 - 4.0) / math.log(2) / total)
    assert report["suites"][0]["notes"] == [
        "The policies divide text into tokens differently: they are compared per byte, and not per token."
    ]
    alike = build_report([of("base", "fit", ours), of("other", "fit", ours)], {"fit": FIT}, EVALUATE, {})
    assert alike["suites"][0]["notes"] == []
    assert {entry["metric"] for entry in alike["metrics"]} == {"bits_per_byte", "nats_per_token"}


def test_lengths_in_tokens_of_different_tokenizers_are_not_compared() -> None:
    base, tuned = help_desk()[:2]
    metrics = {
        apart: {entry["metric"] for entry in build_report(
            [replace(base, tokenizer="a"), replace(tuned, tokenizer=apart)], {"form": FORM}, EVALUATE, {}
        )["metrics"]}
        for apart in ("a", "b")
    }  # fmt: skip
    assert metrics["a"] - metrics["b"] == {"completion_tokens"}
