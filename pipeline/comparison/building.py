"""The comparison as one JSON value: what the terminal, the page and the files show is all in it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.comparison.alignment import Candidate, align, candidates, find_baseline, refusals
from pipeline.comparison.criterion import Criterion, criterion, objectives_of
from pipeline.comparison.differences import config_differences, lineage_differences
from pipeline.comparison.effects import Pruned, importance_of, level_effects
from pipeline.comparison.expenses import expenses_of
from pipeline.comparison.measuring import Metric, metrics_of, rows_of
from pipeline.comparison.ranking import mark_fronts, rank
from pipeline.comparison.records import RunRecord
from pipeline.comparison.selecting import Chosen
from pipeline.config.root import EVALUATE
from pipeline.errors import ArtifactError
from pipeline.evaluation.report import round_floats
from pipeline.pages.comparison_view import short_names
from pipeline.pages.numbers import setting_text
from pipeline.sweeps.record import TrialStatus

FORMAT_VERSION = 1
LISTED_RUNS = 5  # in an error
YEAR = re.compile(r"\d{4}-")  # with which run folders begin
LABEL_KEYS = 3  # parameters in the label of a candidate


def build_comparison(
    chosen: Chosen, *, baseline: str | None = None, by: str | None = None, policy: str | None = None
) -> dict[str, Any]:
    """Compare the chosen runs.

    Args:
        chosen: The runs and sweeps.
        baseline: What the others are compared with, see `find_baseline`.
        by: ``SUITE/METRIC`` or an objective to rank by.
        policy: Which policy of each run; its newest one if None.

    Raises:
        ArtifactError: No two policies were evaluated on the same items; it says what differs.
        ConfigError: The baseline, the metric or the policy is not there.
    """
    found = candidates(chosen.runs, policy)
    if not found:
        raise ArtifactError("None of the runs has a readable report.\n" + _listed(chosen.runs))
    reference = find_baseline(found, baseline)
    confidence = float((reference.run.report or {})["confidence"])
    suites = align(found, reference)
    metrics = [metric for suite in suites for metric in metrics_of(suite, found, reference)]
    _require_shared(found, suites, reference)
    criteria = criterion(metrics, chosen.sweeps, found, by)
    rows = [row for metric in metrics for row in rows_of(metric, reference, confidence)]
    ranking = rank(found, reference, criteria, rows, confidence)
    objectives = objectives_of(chosen.sweeps, found)
    mark_fronts(ranking, found, chosen.sweeps, objectives)
    parameters = _parameters(chosen.runs, found)
    ranked = [key for key in ranking["order"] if found[int(key) - 1].twin_of is None]
    values = {key: ranking["values"][key] for key in ranked}
    varying = _varying(found, parameters, ranking["order"])
    expenses, compared = expenses_of(found), [entry.run for entry in found]
    comparison = {
        "format_version": FORMAT_VERSION,
        "confidence": confidence,
        "baseline": reference.key,
        "runs": [_run(run) for run in chosen.runs],
        "sweeps": [{"name": entry.name, "status": entry.status, "method": entry.method, "objectives": entry.objectives}
                   for entry in chosen.sweeps],
        "objectives": objectives,
        "candidates": [_candidate(entry, chosen.runs, parameters, varying) for entry in found],
        "suites": _suites(suites, metrics, reference),
        "metrics": rows,
        "refusals": refusals(found),
        "notes": list(dict.fromkeys(note for metric in metrics for note in metric.notes)),
        "ranking": ranking,
        "parameters": parameters,
        "importance": importance_of(
            parameters, values, _pruned(chosen, criteria, ranked, found), higher_is_better=criteria.higher_is_better
        ),
        "effects": level_effects(parameters, ranked, criteria.metric, confidence) if criteria.metric else [],
        "config": config_differences(chosen.runs, compared),
        "lineage": lineage_differences(found, expenses.made_from),
        "costs": expenses.costs,
        "curves": expenses.curves,
        "stages": expenses.stages,
    }  # fmt: skip
    rounded: dict[str, Any] = round_floats(comparison)
    return rounded


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "name": run.name, "place": run.place, "status": run.status, "reason": run.reason, "sweep": run.sweep,
        "trial": run.trial, "parameters": run.parameters, "objectives": run.objectives,
        "intermediate": run.intermediate, "seconds": run.seconds,
    }  # fmt: skip


def _varying(
    found: Sequence[Candidate], parameters: Mapping[str, Mapping[str, Any]], order: Sequence[str]
) -> dict[str, tuple[int, list[str]]]:
    """Return, by policy, how many candidates of it are ranked, and the parameters in which these differ."""
    ranked = frozenset(order)
    told = {}
    for policy in dict.fromkeys(entry.policy for entry in found):
        likes = [entry.key for entry in found if entry.policy == policy and entry.key in ranked]
        differing = [name for name, values in parameters.items() if len({repr(values.get(key)) for key in likes}) > 1]
        told[policy] = (len(likes), differing)
    return told


def _candidate(
    entry: Candidate,
    runs: Sequence[RunRecord],
    parameters: Mapping[str, Mapping[str, Any]],
    varying: Mapping[str, tuple[int, Sequence[str]]],
) -> dict[str, Any]:
    """Return a candidate with its labels: its policy where they differ, and the parameters that vary among its likes.

    Without either it goes by its run's name.
    """
    short = short_names(list(parameters))
    num_likes, differing = varying[entry.policy]
    named = [(key, _told(parameters[key][entry.key])) for key in differing if entry.key in parameters[key]]
    name = entry.run.name.removeprefix(entry.run.name[:5] if YEAR.match(entry.run.name) else "")
    several = any(len(run.report["policies"]) > 1 for run in runs if run.report)
    if len(varying) > 1:  # of different stages: what made them says more than where their settings part
        own = [entry.policy, *([name] if num_likes > 1 and not named else [])]
    else:
        own = [] if named else [f"{name}, {entry.policy}" if several else name]
    return {
        "key": entry.key, "run": runs.index(entry.run), "policy": entry.policy, "artifact": entry.artifact,
        "twin_of": entry.twin_of, "refused": entry.refused,
        "label": ", ".join([*own, *(f"{short[key]}={value}" for key, value in named[:LABEL_KEYS])]),
        "short": ", ".join([*own, *(value for _, value in named[:LABEL_KEYS])]),
    }  # fmt: skip


def _told(value: Any) -> str:
    """Write a value short, for a label; a searched number has more digits than tell it from others."""
    return f"{value:.3g}" if isinstance(value, float) else setting_text(value)


def _parameters(runs: Sequence[RunRecord], found: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
    """Return per parameter the value of each candidate: what a sweep chose, else the keys in which the runs differ."""
    swept = list(dict.fromkeys(key for run in runs for key in run.parameters))
    if swept:
        return {
            name: {entry.key: entry.run.parameters[name] for entry in found if name in entry.run.parameters}
            for name in swept
        }
    own = [entry.run for entry in found]
    plain = {
        name: values
        for name, values in config_differences(own, own)["keys"].items()
        if name.partition(".")[0] != EVALUATE and not any(isinstance(value, list | dict) for value in values)
    }
    return {
        name: {entry.key: value for entry, value in zip(found, values, strict=True)} for name, values in plain.items()
    }


def _pruned(chosen: Chosen, criteria: Criterion, ranked: Sequence[str], found: Sequence[Candidate]) -> list[Pruned]:
    """Return the trials that a pruner stopped for being behind in what is ranked by."""
    followed = {sweep.name: sweep.objectives[0] for sweep in chosen.sweeps if sweep.objectives}
    courses = [dict(found[int(key) - 1].run.intermediate) for key in ranked]
    sign = -1.0 if criteria.higher_is_better else 1.0
    stopped = []
    for run in chosen.runs:
        if run.status == TrialStatus.pruned and run.sweep in followed and followed[run.sweep] == criteria.objective:
            step, value = run.intermediate[-1] if run.intermediate else (None, sign * math.inf)
            # One without a value at that step counts as ahead: nothing says that it was not.
            ahead = sum(step not in course or sign * course[step] < sign * value for course in courses)
            stopped.append(Pruned(parameters=run.parameters, behind=ahead))
    return stopped


def _suites(names: Sequence[str], metrics: Sequence[Metric], reference: Candidate) -> list[dict[str, Any]]:
    told = []
    for name in names:
        own = [metric for metric in metrics if metric.suite == name]
        items = (reference.suite(name) or {})["ids"]
        told.append(
            {
                "name": name, "items": len(items), "primary": own[0].name if own else None,
                "left_out": {metric.name: metric.left_out for metric in own if metric.left_out},
            }
        )  # fmt: skip
    return told


def _require_shared(found: Sequence[Candidate], suites: Sequence[str], reference: Candidate) -> None:
    """Refuse to go on where nothing can be compared with the baseline.

    Raises:
        ArtifactError: See above.
    """
    others = [candidate for candidate in found if candidate is not reference]
    if suites and (not others or any(len(candidate.refused) < len(suites) for candidate in others)):
        return
    if not suites:
        reason = reference.run.items_problem
        raise ArtifactError(f"Nothing can be compared: {reference.run.place} has no values by item: {reason}.")
    listed = "\n".join(f"  {line}" for line in refusals(others))
    raise ArtifactError(
        f"Nothing is ranked: no other run was evaluated on the items of {reference.run.name}.\n{listed}\n"
        "Evaluate them on the same data, suites and evaluate.limit, or choose another --baseline."
    )


def _listed(runs: Sequence[RunRecord]) -> str:
    lines = [f"  {run.name}: {run.status}{': ' + run.reason if run.reason else ''}" for run in runs[:LISTED_RUNS]]
    return "\n".join([*lines, *([f"  and {len(runs) - LISTED_RUNS} more"] if len(runs) > LISTED_RUNS else [])])
