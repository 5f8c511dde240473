"""The page of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.pages.charts import NARROW, WIDE, bar_chart, forest_plot, verdict_class
from pipeline.pages.environment import page_environment
from pipeline.pages.gate_charts import gate_bar
from pipeline.pages.gate_text import claim_text, outcome_counts, waiver_text
from pipeline.pages.judge_charts import length_plot, rating_plot, reliability_diagram, win_rate_matrix
from pipeline.pages.measures_card import RELIABILITY, judge_card, measure_groups
from pipeline.pages.numbers import (
    WIN_RATE,
    cost_text,
    counted,
    duration_text,
    estimate_text,
    interval_text,
    metric_words,
    number_text,
    p_text,
    points_text,
    rating_text,
    share_text,
    summed_words,
    verdict,
)
from pipeline.pages.report_inputs import LineageEntry, PolicyCosts, PolicyMonitor, StageCosts, StageCurves
from pipeline.pages.svg import colour
from pipeline.pages.training_charts import curve_charts, monitor_view
from pipeline.pages.variant_charts import quality_against_cost

CHANGES = {
    "regressed": "Regressed: the baseline does better",
    "improved": "Improved",
    "unchanged": "Unchanged",
}

LEAK_RULES = {"exact": "same prompt", "ngram": "13 words in a row", "whole": "short prompt as a whole"}
AGAINST_COST = "Quality against the time of a thousand answers"
LAYOUTS = (WIDE, NARROW)
NUM_OPEN = 3  # items of each kind that are shown without a click


def report_page(
    report: Mapping[str, Any],
    *,
    title: str = "Evaluation report",
    curves: Sequence[StageCurves] = (),
    monitors: Sequence[PolicyMonitor] = (),
    costs: Sequence[StageCosts] = (),
    variants: Sequence[Mapping[str, Any]] = (),
    policy_costs: Sequence[PolicyCosts] = (),
    judge_seconds: Mapping[str, float] = MappingProxyType({}),
    lineage: Sequence[LineageEntry] = (),
) -> str:
    """Return the page as HTML; the same arguments give the same text."""
    environment = page_environment()
    environment.filters.update(
        verdict=verdict, verdict_class=verdict_class, estimate=estimate_text, interval=interval_text,
        metric_words=metric_words, share=share_text, summed=summed_words, claim=claim_text, points=points_text,
        duration=duration_text, number=number_text, p_text=p_text, rating=rating_text, waiver=waiver_text,
    )  # fmt: skip
    newest = report["policies"][-1]
    colours = {policy: index for index, policy in enumerate(report["policies"])}
    methods = list(dict.fromkeys(entry["method"] for entry in report["metrics"] if entry["unit"] != WIN_RATE))
    return environment.get_template("report.html").render(
        report=report,
        title=title,
        others=report["policies"][1:],
        cards=[_card(report, entry) for entry in report["headline"]["verdicts"] if entry["policy"] == newest],
        suites=[_suite(report, suite, colours, methods) for suite in report["suites"]],
        methods=methods,
        colour={policy: colour(index) for policy, index in colours.items()},
        gates=[(gate, gate_bar(gate)) for gate in report["gates"]],
        outcomes=outcome_counts(report["gates"]),
        num_waived=sum(gate["waiver"] is not None and gate["outcome"] != "PASS" for gate in report["gates"]),
        win_rates=win_rate_view(report, colours),
        rankings=[_ranking(ranking, colours) for ranking in report["rankings"]],
        judges=[card_view(judge, judge_card(judge["card"], judge["kinds"])) for judge in report["judges"]],
        reward_models=[card_view(card, card) for card in report["reward_models"]],
        curves=[(entry, curve_charts(entry)) for entry in curves if entry.rows],
        monitors=[monitor_view(entry) for entry in monitors],
        costs=costs,
        variants=variants,
        pareto=[chart for one in LAYOUTS if (chart := quality_against_cost(variants, AGAINST_COST, one))],
        policy_costs=policy_costs,
        judge_seconds=judge_seconds,
        lineage=lineage,
        changes=CHANGES,
        num_open=NUM_OPEN,
        found_items=sum(entry["contaminated"] for entry in report["contamination"]),
        leak_rules=LEAK_RULES,
        counted=counted,
        cost_text=cost_text,
    )


def _card(report: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a primary verdict with its difference and the two values behind it."""
    same = [m for m in report["metrics"] if m["suite"] == entry["suite"] and m["metric"] == entry["metric"]]
    absolute = {m["policy"]: m for m in same if m["baseline"] is None}
    difference = next(m for m in same if m["policy"] == entry["policy"] and m["baseline"] is not None)
    return {"difference": difference, "own": absolute.get(entry["policy"]), "base": absolute.get(entry["baseline"])}


def _suite(
    report: Mapping[str, Any], suite: Mapping[str, Any], colours: Mapping[str, int], methods: Sequence[str]
) -> dict[str, Any]:
    name = suite["name"]
    entries = [entry for entry in report["metrics"] if entry["suite"] == name]
    own_judges = [entry for entry in report["win_rates"] if entry["suite"] == name]
    refused = {f"win_rate/{entry['judge']}" for entry in own_judges if not entry["qualified"]}
    differences = [entry for entry in entries if entry["baseline"] is not None and entry["metric"] not in refused]
    rates = [entry for entry in entries if entry["baseline"] is None and entry["unit"] == "share"]
    words = f"{name}: differences from {report['baseline']}"
    return {
        "suite": suite,
        "forest": [forest_plot(differences, colours, words, layout) for layout in LAYOUTS if differences],
        "bars": [bar_chart(rates, colours, f"{name}: share that passes", layout) for layout in LAYOUTS if rates],
        "rows": [_metric_row(entry, entries, methods) for entry in entries if entry["baseline"] is None],
        "examples": [entry for entry in report["examples"] if entry["suite"] == name],
    }


def _metric_row(
    entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], methods: Sequence[str]
) -> dict[str, Any]:
    same = [other for other in entries if other["metric"] == entry["metric"] and other["policy"] == entry["policy"]]
    difference = next((other for other in same if other["baseline"] is not None), None)
    peers = [other["policy"] for other in entries if other["metric"] == entry["metric"] and other["baseline"] is None]
    used = [entry["method"], *([difference["method"]] if difference else [])]
    return {
        "entry": entry,
        "difference": difference,
        "span": len(peers) if peers[0] == entry["policy"] else 0,  # rows that the metric's name stands before
        "notes": ", ".join(dict.fromkeys(str(methods.index(method) + 1) for method in used)),
    }


def win_rate_view(report: Mapping[str, Any], colours: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the matrices, one per suite and judge, and the plot of raw against length-controlled win rates."""
    entries = report["win_rates"]
    if not entries:
        return None
    matrices = []
    for suite, judge in dict.fromkeys((entry["suite"], entry["judge"]) for entry in entries):
        own = [entry for entry in entries if (entry["suite"], entry["judge"]) == (suite, judge)]
        chart = win_rate_matrix(own, report["policies"], f"{suite}: win rates by {judge}")
        matrices.append({"suite": suite, "judge": judge, "qualified": own[0]["qualified"], "chart": chart})
    controlled = [entry for entry in entries if entry["length_controlled"]]
    title = "Raw and length-controlled win rates"
    lengths = [length_plot(controlled, colours, title, layout) for layout in LAYOUTS if controlled]
    return {"matrices": matrices, "lengths": lengths, "entries": entries}


def _ranking(ranking: Mapping[str, Any], colours: Mapping[str, int]) -> dict[str, Any]:
    words = f"{ranking['suite']}: ratings by {ranking['judge']}"
    return {"ranking": ranking, "charts": [rating_plot(ranking["policies"], colours, words, one) for one in LAYOUTS]}


def card_view(entry: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card of measures, with a reliability diagram where it holds bins for one."""
    bins = card.get(RELIABILITY) or entry.get(RELIABILITY)
    name = str(entry.get("name") or "reward model")
    chart = reliability_diagram(bins, f"{name}: how often it is right") if bins else None
    shown = {key: value for key, value in card.items() if key not in ("name", "artifact", "gates")}
    gates = card.get("gates", ())
    return {"name": name, "entry": entry, "groups": measure_groups(shown), "reliability": chart, "gates": gates}
