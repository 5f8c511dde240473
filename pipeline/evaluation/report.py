"""The report: samples of several policies joined, measured and compared. No model is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts.hashing import sha256_file, sha256_json
from pipeline.checks.rewards import files_read, plugin_digest
from pipeline.config.data import TableName
from pipeline.config.evaluation import CheckConfig, EvaluateConfig, SuiteConfig, SuiteKind
from pipeline.config.gates import WIN_RATE
from pipeline.config.paths import find_file
from pipeline.evaluation.comparisons import asked_by_gates, win_rate_rows
from pipeline.evaluation.examples import choose_examples
from pipeline.evaluation.gates import decide_gates
from pipeline.evaluation.headline import headline
from pipeline.evaluation.joining import JoinedSuite, PolicySamples
from pipeline.evaluation.judged import JudgedWins
from pipeline.evaluation.measures import Measure, estimates, measure_suites, notes
from pipeline.evaluation.metric_names import check_names
from pipeline.evaluation.paired_tests import correct_primaries
from pipeline.evaluation.standing import standing
from pipeline.evaluation.summary import FORMAT_VERSION

SIGNIFICANT_DIGITS = 10  # beyond them two machines may differ
Report = dict[str, Any]


def build_report(
    samples: Sequence[PolicySamples],
    suites: Mapping[str, SuiteConfig],
    evaluate: EvaluateConfig,
    provenance: Mapping[str, Any],
    *,
    win_rates: Sequence[Mapping[str, Any]] = (),
    rankings: Sequence[Mapping[str, Any]] = (),
    judges: Sequence[Mapping[str, Any]] = (),
    ratings: Sequence[Mapping[str, Any]] = (),
    reward_models: Sequence[Mapping[str, Any]] = (),
    costs: Mapping[str, Any] | None = None,
    contamination: Sequence[Mapping[str, Any]] = (),
    measured: Sequence[tuple[JoinedSuite, Sequence[Measure]]] | None = None,
    wins: Sequence[JudgedWins] = (),
) -> Report:
    """Join the samples and measure every policy and its difference from the baseline.

    Args:
        samples: What each policy made of each suite.
        suites: The suites by name, in the order of the report.
        evaluate: The baseline, the confidence of the intervals and the number of examples.
        provenance: Ids and digests, no paths and no times; under ``taught_by`` the tables that trained each policy.
        win_rates: What judges said of pairs of policies; where one is the baseline, it is the opponent.
        rankings: The ratings of three policies or more on one scale.
        judges: With their scorecards.
        ratings: Metrics by which judges rated single completions.
        costs: What ways to run one policy change, without what they take; None where that was not asked for.
        reward_models: The audit of each reward model that the policies were made with.
        contamination: Per suite, how many of its items were found in what policies were trained on.
        measured: What `measure_suites` makes of the samples, where the caller has it already.
        wins: What judges said item by item, by which items are chosen that no check looks at.

    The same samples give the same report to the last byte of `to_json`.
    """
    measured = measure_suites(samples, suites, evaluate) if measured is None else measured
    joined, measures = [suite for suite, _ in measured], {suite.name: own for suite, own in measured}
    judged = win_rate_rows(win_rates)
    metrics = [entry for suite, own in measured for entry in estimates(suite, own, evaluate.confidence)]
    metrics += [*map(dict, ratings), *(entry for entry in judged if entry["baseline"] == evaluate.baseline)]
    report: Report = {
        "format_version": FORMAT_VERSION,
        "policies": joined[0].policies if joined else [],
        "baseline": evaluate.baseline,
        "confidence": evaluate.confidence,
        "suites": [_suite(suite, measures[suite.name]) for suite in joined],
        "metrics": metrics,
        "win_rates": list(win_rates),
        "rankings": list(rankings),
        "judges": list(judges),
        "reward_models": list(reward_models),
        "costs": costs,
        "counts": [entry for suite in joined for entry in suite.counts],
        "contamination": list(contamination),
        "examples": _examples(measured, evaluate, wins),
        "provenance": {**provenance, **_own_provenance(samples, joined)},
    }
    report["standing"] = standing(_ordering(report, measured), evaluate.confidence)
    asked = asked_by_gates(evaluate.gates, joined, measures, evaluate.confidence)
    return _concluded(report, evaluate, [*metrics, *judged, *asked])


def _examples(
    measured: Sequence[tuple[JoinedSuite, Sequence[Measure]]], evaluate: EvaluateConfig, wins: Sequence[JudgedWins]
) -> list[dict[str, Any]]:
    return [entry for suite, own in measured for entry in choose_examples(suite, own, evaluate, wins)]


def _concluded(report: Report, evaluate: EvaluateConfig, rows: Sequence[Mapping[str, Any]]) -> Report:
    """Add what the numbers come to, the corrected tests, the headline and the gates, and round them all."""
    counting, aside = _counting(report)
    correct_primaries(counting)
    report["headline"] = headline(counting, report["policies"], evaluate.confidence, aside)
    report["gates"] = decide_gates(evaluate.gates, report, rows, evaluate.waivers)
    rounded: Report = round_floats(report)
    return rounded


def _own_provenance(samples: Sequence[PolicySamples], joined: Sequence[JoinedSuite]) -> dict[str, Any]:
    """Return which artifact each policy's samples are, and what each suite asked."""
    return {
        "samples": [{"policy": entry.policy, "suite": entry.suite, "artifact": entry.artifact} for entry in samples],
        "suites": {suite.name: sha256_json(suite_definition(suite.config)) for suite in joined},
    }


def _counting(report: Report) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the metrics that answer whether a policy is better, and those that would if it had learned otherwise.

    Primary ones answer, and what qualified judges say. But how likely demonstrations are tells how well they are
    imitated, which a policy that has learned from votes or rewards was not asked to: it gives up likelihood for what
    people prefer, however good it becomes. Of such a policy the rewards that a suite names are asked in its place.
    """
    primary, rewards = _primary(report), _rewards(report)
    primary |= {(entry["suite"], f"{WIN_RATE}{entry['judge']}") for entry in report["win_rates"] if entry["qualified"]}
    likelihood, otherwise = _likelihood(report), _taught_otherwise(report)
    counting: list[dict[str, Any]] = []
    aside: list[dict[str, Any]] = []
    for entry in report["metrics"]:
        imitates = not otherwise & {entry["policy"], entry["baseline"]}
        place = (entry["suite"], entry["metric"])
        if place in primary:
            (counting if imitates or entry["suite"] not in likelihood else aside).append(entry)
        elif place in rewards and not imitates:
            counting.append(entry)
    return counting, aside


def _ordering(
    report: Report, measured: Sequence[tuple[JoinedSuite, Sequence[Measure]]]
) -> list[tuple[JoinedSuite, Measure]]:
    """Return the suites' metrics that all policies can be ordered by: those that count for the one taught otherwise."""
    places = _primary(report)
    if _taught_otherwise(report):
        places = {place for place in places if place[0] not in _likelihood(report)} | _rewards(report)
    return [(suite, entry) for suite, own in measured for entry in own if (suite.name, entry.name) in places]


def _primary(report: Report) -> set[tuple[str, str]]:
    return {(suite["name"], suite["primary"]) for suite in report["suites"]}


def _rewards(report: Report) -> set[tuple[str, str]]:
    return {(suite["name"], name) for suite in report["suites"] for name in suite["rewards"]}


def _likelihood(report: Report) -> set[str]:
    return {suite["name"] for suite in report["suites"] if suite["kind"] == SuiteKind.likelihood}


def _taught_otherwise(report: Report) -> set[str]:
    """Return the policies whose own training read no demonstrations."""
    taught = report["provenance"].get("taught_by", {})
    return {policy for policy, tables in taught.items() if TableName.demonstrations not in tables}


def to_json(report: Report) -> str:
    """Write a report in its one form: sorted keys, two spaces, no NaN, only ASCII, so that any text survives."""
    return json.dumps(report, indent=2, sort_keys=True, allow_nan=False) + "\n"


def round_floats(value: Any) -> Any:
    """Round every float to ten significant digits; zero has no sign.

    Raises:
        ValueError: A float is not finite: what cannot be estimated is null.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a report holds no {value}: what cannot be estimated is null")
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0
    if isinstance(value, Mapping):
        return {key: round_floats(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(entry) for entry in value]
    return value


def suite_definition(suite: SuiteConfig) -> dict[str, Any]:
    """Return what a suite asks and how it is judged, with digests of the files and plugins that its checks go by."""
    sampling = suite.sampling if suite.kind is SuiteKind.generation else None
    return {
        "kind": str(suite.kind),
        "table": str(suite.table),
        "split": suite.split,
        "prompts": None if suite.prompts is None else sha256_file(find_file(suite.prompts)),
        "task": [suite.task, suite.num_fewshot, suite.chat_template],
        "rubric": [vars(criterion) for criterion in suite.rubric],
        "limit": suite.limit,
        "checks": [_judged_by(entry, f"suite {suite.name}: checks") for entry in suite.checks],
        "rewards": [_judged_by(entry, f"suite {suite.name}: rewards") for entry in suite.rewards],
        "sampling": vars(sampling) if sampling else None,
    }


def _judged_by(entry: CheckConfig, where: str) -> dict[str, Any]:
    """Every check is a reward as well, so one look-up knows both."""
    files = [sha256_file(path) for path in files_read(entry.name, entry.params, where=where)]
    plugin = plugin_digest(entry.name, where=where)
    return {"name": entry.name, "params": entry.params, "files": files, "plugin": plugin}


def headline_metrics(report: Report) -> dict[str, float]:
    """Return the primary numbers by name, as an artifact's manifest and a tracking summary hold them."""
    primary = {suite["name"]: suite["primary"] for suite in report["suites"]}
    numbers = {}
    for entry in report["metrics"]:
        if entry["metric"] != primary[entry["suite"]] or entry["estimate"] is None:
            continue
        versus = f"_minus_{entry['baseline']}" if entry["baseline"] else ""
        numbers[f"{entry['suite']}/{entry['metric']}/{entry['policy']}{versus}"] = entry["estimate"]
    return numbers


def _suite(suite: JoinedSuite, measures: Sequence[Measure]) -> dict[str, Any]:
    generation = suite.config.kind is SuiteKind.generation
    names = check_names([*suite.config.checks, *suite.config.rewards])
    return {
        "name": suite.name,
        "description": suite.config.description,
        "kind": str(suite.config.kind),
        "table": str(suite.config.table),
        "split": suite.config.split,
        "items": suite.num_items,
        "compared": len(suite.rows[suite.policies[0]]),
        "clusters": len(set(suite.clusters)),
        "primary": measures[0].name,
        "checks": names[: len(suite.config.checks)] if generation else [],
        "rewards": names[len(suite.config.checks) :] if generation else [],
        "sampling": vars(suite.config.sampling) if generation else None,
        "notes": notes(suite),
    }
