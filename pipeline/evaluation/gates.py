"""Gates: claims about metrics, each decided by an interval as PASS, FAIL or INCONCLUSIVE.

Hard gates are one family and soft ones another. Within a family the claims that pass and the claims that fail are each
corrected by Holm's step-down procedure, so that among gates on policies that do not differ, any fails in at most
alpha / 2 of reports. A gate shows the limits that it was decided by; among several gates they are wider than the
metric's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy import special

from pipeline.config.gates import COMPARING, GateConfig, WaiverConfig, waiver_of
from pipeline.evaluation.gate_claims import Claim, Row, find_claim
from pipeline.pages.gate_text import reason
from pipeline.statistics.clusters import t_quantile
from pipeline.statistics.decisions import Decision, better, not_worse
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.power import items_to_detect, minimum_detectable, standard_error
from pipeline.statistics.significance import holm


def decide_gates(
    gates: Mapping[str, GateConfig],
    report: Mapping[str, Any],
    rows: Sequence[Row],
    waivers: Mapping[str, WaiverConfig] | None = None,
) -> list[dict[str, Any]]:
    """Return one row per gate, in their order.

    Args:
        gates: By name.
        report: With all sections but `gates` and `headline`.
        rows: The report's metrics, and those of pairs of policies that only gates ask for.
        waivers: Of gates that need not pass; an outcome stays what it is.
    """
    claims = [find_claim(name, gate, report, rows) for name, gate in gates.items()]
    decided: dict[str, dict[str, Any]] = {}
    for hard in (True, False):
        family = [
            claim
            for claim in claims
            if claim.gate.hard is hard and not claim.gate.is_counted and claim.obstacle is None
        ]
        decided |= _decide_family(family, report["confidence"])
    return [
        {**_gate(claim, decided.get(claim.name, {})), "waiver": waiver_of(claim.name, waivers or {})}
        for claim in claims
    ]


def _gate(claim: Claim, decided: Mapping[str, Any]) -> dict[str, Any]:
    """Return a gate as the report holds it, in the metric's own unit and direction."""
    gate, row = claim.gate, claim.row
    entry = {
        "name": claim.name,
        "kind": str(gate.kind),
        "hard": gate.hard,
        **{key: row[key] for key in ("suite", "metric", "policy", "baseline", "unit", "higher_is_better", "n")},
        "margin": gate.margin if gate.kind in COMPARING else None,
        "bound": gate.bound,
        "alpha": gate.alpha,
        "min_power": gate.min_power,
        "outcome": str(Decision.INCONCLUSIVE),
        **{key: row[key] for key in ("estimate", "low", "high")},
        "minimum_detectable": None,
        "power_at_margin": None,
        "items_needed": None,
        **decided,
    }
    if gate.is_counted and claim.obstacle is None:
        kept = claim.sign * (row["estimate"] - claim.zero) >= 0
        entry |= {"outcome": str(Decision.PASS if kept else Decision.FAIL)}
    return entry | {"reason": claim.obstacle or reason(entry, claim.row["method"])}


def _decide_family(family: Sequence[Claim], confidence: float) -> dict[str, dict[str, Any]]:
    """Return outcome, limits and power of each claim, corrected for how many there are.

    Holm's correction multiplies a p-value by a factor. The limit at alpha over that factor clears a bound exactly when
    the corrected one-sided p-value is at most alpha / 2, so limit and outcome always agree.
    """
    intervals = {claim.name: claim.oriented() for claim in family}
    passes = {claim.name: _tail(intervals[claim.name], claim.margin, confidence, above=True) for claim in family}
    # What is tolerated is not an improvement, so a loss is certain where the interval lies below zero.
    fails = {
        claim.name: _tail(intervals[claim.name], max(claim.margin, 0.0), confidence, above=False) for claim in family
    }
    decided = {}
    for claim in family:
        interval, alpha = intervals[claim.name], claim.gate.alpha
        low, _ = _limits(interval, confidence, alpha / _factor(claim.name, passes))
        _, high = _limits(interval, confidence, alpha / _factor(claim.name, fails))
        limits = replace(interval, low=low, high=high)
        decision = not_worse(limits, claim.gate.margin) if claim.margin < 0 else better(limits, claim.margin)
        own = sorted(claim.zero + claim.sign * limit for limit in (low, high))
        power = _power(claim, interval, confidence, alpha / len(family), decision)
        decided[claim.name] = {"outcome": str(decision), "low": own[0], "high": own[1], **power}
    return decided


def _tail(interval: Estimate, bound: float, confidence: float, *, above: bool) -> float:
    """Return the one-sided p-value of the claim that the value lies above, or below, a bound.

    The standard error is that of the interval's nearer side, so that a skewed interval keeps its shape.
    """
    value, low, high = _numbers(interval)
    distance, side = (value - bound, value - low) if above else (bound - value, high - value)
    if side <= 0:
        return 0.0 if distance > 0 else 1.0
    error = side / t_quantile(interval.clusters, confidence)
    return float(special.stdtr(interval.clusters - 1, -distance / error))


def _factor(name: str, p_values: Mapping[str, float]) -> float:
    """Return what Holm's procedure multiplies a p-value by."""
    adjusted = holm(p_values)[name]
    if p_values[name] > 0 and adjusted < 1:
        return adjusted / p_values[name]
    return float(sum(other >= p_values[name] for other in p_values.values()))


def _limits(interval: Estimate, confidence: float, alpha: float) -> tuple[float, float]:
    """Return the interval's limits at another level, each side scaled by the quantiles of t."""
    value, low, high = _numbers(interval)
    scale = t_quantile(interval.clusters, 1 - alpha) / t_quantile(interval.clusters, confidence)
    return value + (low - value) * scale, value + (high - value) * scale


def _numbers(interval: Estimate) -> tuple[float, float, float]:
    value, low, high = interval.estimate, interval.low, interval.high
    if value is None or low is None or high is None:
        raise ValueError("a gate without an interval decides nothing")
    return value, low, high


def _power(claim: Claim, interval: Estimate, confidence: float, alpha: float, decision: Decision) -> dict[str, Any]:
    """Return what so many items can find, and how many would decide.

    How many decide is asked of an undecided gate: for non-inferiority, how many show two equal policies to be so.
    Where there are as many already, and for every other claim, how many tell the measured value from the bound.
    """
    low, high = _limits(interval, confidence, alpha)
    level, power = 1 - alpha, claim.gate.min_power
    wide = replace(interval, low=low, high=high)
    error = standard_error(wide, level)
    found: dict[str, Any] = {"minimum_detectable": minimum_detectable(wide, power=power, confidence=level)}
    if claim.margin < 0 and error:
        quantile = t_quantile(interval.clusters, level)
        found["power_at_margin"] = float(special.ndtr(claim.gate.margin / error - quantile))
    if decision is not Decision.INCONCLUSIVE:
        return found
    value, _, _ = _numbers(interval)
    distances = [claim.margin, max(value - claim.margin, -value)] if claim.margin < 0 else [value - claim.margin]
    needed = [items_to_detect(wide, distance, power=power, confidence=level) for distance in distances if distance]
    return found | {"items_needed": next((n for n in needed if n is not None and n > interval.n), None)}
