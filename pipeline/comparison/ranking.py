"""Best first, and what the order is worth: how much of the best one's lead comes of choosing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.comparison.alignment import Candidate
from pipeline.comparison.criterion import Criterion, Objective
from pipeline.comparison.measuring import Metric
from pipeline.pages.numbers import compact, estimate_text, interval_text, metric_text, metric_words, verdict
from pipeline.statistics.selection import chance_lead, max_t_quantile, possibly_best, widened
from pipeline.sweeps.record import SweepRecord, pareto_front

MIN_CLUSTERS = 2


def rank(
    found: Sequence[Candidate],
    baseline: Candidate,
    by: Criterion,
    rows: Sequence[Mapping[str, Any]],
    confidence: float,
) -> dict[str, Any]:
    """Return the order, the corrected intervals, and sentences that say what the order is worth."""
    values = _values(found, by)
    ranked = sorted(values, key=lambda key: (-values[key] if by.higher_is_better else values[key], int(key)))
    ranking: dict[str, Any] = {
        "by": by.name, "higher_is_better": by.higher_is_better, "order": ranked, "values": values, "corrected": {},
        "possibly_best": None, "chance_lead": None, "compared": None, "within_noise": None, "quantile": None,
        "weighed": None, "front": None,
    }  # fmt: skip
    if by.metric is None:
        ranking["weighed"] = _weighed(ranked, found, baseline, by, rows, confidence)
        ranking["sentences"] = _objective_sentences(ranking, by, found, baseline)
        return ranking
    distinct = [key for key in ranked if found[int(key) - 1].twin_of is None]
    if len(distinct) < 2 or len(set(by.metric.clusters)) < MIN_CLUSTERS:
        ranking["sentences"] = ["There is nothing to choose between: one policy, or one cluster of items."]
        return ranking
    own = _differences(by.metric, rows)
    ranking |= _selection(distinct, baseline.key, by.metric, own, confidence)
    ranking["sentences"] = _sentences(ranking, distinct, baseline.key, by.metric, own, found)
    return ranking


def mark_fronts(
    ranking: dict[str, Any],
    found: Sequence[Candidate],
    sweeps: Sequence[SweepRecord],
    objectives: Sequence[Objective],
) -> None:
    """Add to a ranking who is on the Pareto front of its sweep, with a sentence; nothing for one objective."""
    several = [sweep for sweep in sweeps if len(sweep.objectives) > 1] if objectives else []
    if not several:
        return
    fronts = {sweep.name: pareto_front(sweep) for sweep in several}
    front = [candidate.key for candidate in found if candidate.run.trial in fronts.get(candidate.run.sweep or "", ())]
    goals = ", ".join(f"{entry['direction']} {entry['name']}" for entry in objectives)
    total, listed = sum(map(len, fronts.values())), ", ".join(f"#{key}" for key in front)
    told = (
        f"On the Pareto front ({goals}), where no other trial is as good on all and better on one: {listed or 'none'}"
    )
    hidden = f" and {total - len(front)} without a comparable report" if total > len(front) else ""
    ranking["front"] = front
    ranking["sentences"].append(f"{told}{hidden}.")


def _differences(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return by candidate's key the row of its difference from the baseline."""
    named = (metric.suite, metric.name)
    return {
        row["policy"]: row for row in rows if (row["suite"], row["metric"]) == named and row["baseline"] is not None
    }


def _values(found: Sequence[Candidate], by: Criterion) -> dict[str, float]:
    """Return the number of each candidate that can be ranked."""
    if by.metric is None:
        held = {candidate.key: candidate.run.objectives.get(by.name) for candidate in found}
        return {key: value for key, value in held.items() if value is not None}
    return {key: by.metric.value(key) for key in by.metric.measure.values}


def _selection(
    distinct: Sequence[str], baseline: str, metric: Metric, own: Mapping[str, Mapping[str, Any]], confidence: float
) -> dict[str, Any]:
    """Return what choosing among the policies costs, with the intervals that hold for all of them together."""
    errors = metric.errors(distinct)
    sign = -1.0 if metric.measure.higher_is_better is False else 1.0
    subset = possibly_best([sign * metric.value(key) for key in distinct], errors, confidence=confidence)
    told: dict[str, Any] = {
        "possibly_best": [key for key, kept in zip(distinct, subset, strict=True) if kept],
        "compared": len(distinct),
    }
    others = [index for index, key in enumerate(distinct) if key != baseline]
    if baseline not in distinct or not others:
        return told
    control = distinct.index(baseline)
    differences = errors[:, others] - errors[:, control : control + 1]
    quantile = max_t_quantile(differences, confidence=confidence)
    corrected = {
        key: widened(row["low"], row["high"], quantile, row["clusters"], confidence)
        for key in (distinct[index] for index in others)
        if (row := own[key])["low"] is not None
    }
    best = distinct[0]
    limits = corrected.get(best)
    unclear = best != baseline and (limits is None or limits[0] <= 0 <= limits[1])
    return told | {
        "quantile": quantile, "chance_lead": chance_lead(differences), "corrected": corrected, "within_noise": unclear,
    }  # fmt: skip


def _sentences(
    ranking: Mapping[str, Any],
    distinct: Sequence[str],
    baseline: str,
    metric: Metric,
    own: Mapping[str, Mapping[str, Any]],
    found: Sequence[Candidate],
) -> list[str]:
    """Say who leads, by how much, and how much of it choosing explains."""
    best, count = distinct[0], len(distinct)
    words = f"{metric_words(metric.name)} ({metric.suite})"
    subset = ranking["possibly_best"]
    if best == baseline:
        told = [f"None does better than the baseline, {_name(best, found)}, on {words}."]
    else:
        row = own[best]
        stated = f"{estimate_text(row)} {interval_text(row)}"
        told = [f"{_name(best, found)} does best on {words}: {stated} against {_name(baseline, found)}."]
        if count > 2 and best in ranking["corrected"]:
            low, high = ranking["corrected"][best]
            wide = {**row, "low": low, "high": high}
            lead = estimate_text({**row, "estimate": ranking["chance_lead"], "low": None, "high": None})
            told.append(
                f"It was chosen among {count}: if all were equal, the best would lead by {lead} on average. "
                f"The interval that allows for the choice is {interval_text(wide)}"
                + (", so its lead is within noise." if ranking["within_noise"] else ", so it leads beyond noise.")
            )
    if len(subset) == 1:
        # The subset asks on one side only, the interval on both: together they may say no more than this.
        level = ranking.get("within_noise", False)
        told.append("None is better than it; the baseline may be level." if level else "No other can be the best.")
    elif len(subset) == count:
        told.append(f"Any of the {count} may be the best: the items do not tell them apart.")
    else:
        told.append(f"{len(subset)} of the {count} policies may be the best.")
    return told


def _weighed(
    ranked: Sequence[str],
    found: Sequence[Candidate],
    baseline: Candidate,
    by: Criterion,
    rows: Sequence[Mapping[str, Any]],
    confidence: float,
) -> dict[str, Any] | None:
    """Return what the items say of the run that another number chose, or of the next one where that is the baseline.

    The row of its difference from the baseline, with the interval that holds whichever run is chosen beside it and
    whether the choice was made on other items, so that the row's own interval needs no such correction. None where no
    values by item are there.
    """
    metric = by.beside
    if metric is None or len(set(metric.clusters)) < MIN_CLUSTERS:
        return None
    own = _differences(metric, rows)
    order = list(dict.fromkeys(str(found[int(key) - 1].twin_of or key) for key in ranked))
    chosen = next((key for key in order if key != baseline.key), None)
    if chosen not in own:
        return None
    compared = [key for key in order if key in own]
    corrected = _selection([*compared, baseline.key], baseline.key, metric, own, confidence)["corrected"]
    independent = by.name.partition("/")[0] not in {row["suite"] for row in rows}
    return {
        **own[chosen], "is_first": chosen == order[0], "compared": len(compared), "independent": independent,
        "together": corrected.get(chosen, (None, None)),
    }  # fmt: skip


def _objective_sentences(
    ranking: Mapping[str, Any], by: Criterion, found: Sequence[Candidate], baseline: Candidate
) -> list[str]:
    ranked, row = ranking["order"], ranking["weighed"]
    if not ranked:
        return [f"No run has a value of {by.name}."]
    extreme = "highest" if by.higher_is_better else "lowest"
    value = compact(ranking["values"][ranked[0]])
    told = [f"{_name(ranked[0], found)} has the {extreme} {by.name}: {value}, without an interval."]
    if row is None:
        return told
    together = {**row, "low": row["together"][0], "high": row["together"][1]}
    decisive = row if row["independent"] else together
    who = "It" if row["is_first"] else f"It is the baseline; the next, {_name(row['policy'], found)},"
    told.append(
        f"{who} has {metric_text(decisive)} against {_name(baseline.key, found)} on {metric_words(row['metric'])} "
        f"({row['suite']}): {verdict(decisive)}."
    )
    if row["independent"]:
        held = f"; the one that holds for all {row['compared']} together is {interval_text(together)}"
        told.append(
            "The choice was made on other items than those of the suites, so that this interval needs no correction"
            f"{held if row['compared'] > 1 else ''}."
        )
    elif row["compared"] > 1:
        told.append(f"That interval holds whichever of the {row['compared']} is chosen.")
    told.append(f"--by {row['suite']}/{row['metric']} ranks by it.")
    return told


def _name(key: str, found: Sequence[Candidate]) -> str:
    candidate = found[int(key) - 1]
    return f"#{key} ({candidate.run.name}, {candidate.policy})"
