"""What each gate of a report is about: the measured row, or why there is none that can decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.gates import COMPARING, CONTAMINATED_ITEMS, JUDGE_QUALIFIED, UNSCORED_SHARE, GateConfig, GateKind
from pipeline.config.suggestions import near_miss
from pipeline.evaluation.ratings import RATING
from pipeline.pages.numbers import neutral
from pipeline.statistics.intervals import Estimate

Row = Mapping[str, Any]
NOT_MEASURED = {
    **dict.fromkeys(("suite", "metric", "policy", "baseline", "estimate", "low", "high", "higher_is_better")),
    **{"unit": "share", "n": 0, "clusters": 0, "method": "not measured"},
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A gate with what it is about, as far as that was measured."""

    name: str
    gate: GateConfig
    row: Row  # of the report's metrics; a counted quantity has no interval
    obstacle: str | None  # why it cannot be decided

    @property
    def sign(self) -> float:
        """Return -1 where less is better."""
        if self.gate.kind not in COMPARING:
            return 1.0 if self.gate.kind is GateKind.at_least else -1.0
        return 1.0 if self.row["higher_is_better"] else -1.0

    @property
    def zero(self) -> float:
        """Return the value that the limits are compared with, before any margin."""
        return neutral(self.row["unit"]) if self.gate.bound is None else self.gate.bound

    @property
    def margin(self) -> float:
        """Return what the interval must clear, from zero towards better; below zero where a loss is tolerated."""
        return -self.gate.margin if self.gate.kind is GateKind.non_inferiority else self.gate.margin

    def oriented(self) -> Estimate:
        """Return the interval with more being better and zero where there is no difference."""
        limits = [self.sign * (self.row[key] - self.zero) for key in ("low", "high")]
        return Estimate(
            estimate=self.sign * (self.row["estimate"] - self.zero), low=min(limits), high=max(limits),
            n=self.row["n"], clusters=self.row["clusters"], method=self.row["method"],
        )  # fmt: skip


def find_claim(name: str, gate: GateConfig, report: Mapping[str, Any], rows: Sequence[Row]) -> Claim:
    """Find what a gate is about.

    Args:
        name: Of the gate.
        gate: The gate.
        report: With `policies`, `baseline`, `suites`, `judges`, `counts`, `win_rates` and `contamination`.
        rows: The report's metrics, and those of pairs of policies that only gates ask for.
    """
    if gate.is_counted:
        return _counted(name, gate, report)
    suite = next((entry for entry in report["suites"] if entry["name"] == gate.suite), None)
    policy = gate.policy or report["policies"][-1]
    baseline = (gate.baseline or report["baseline"]) if gate.kind in COMPARING else None
    metric = gate.metric or (suite["primary"] if suite else None)
    wanted = {"suite": gate.suite, "metric": metric, "policy": policy, "baseline": baseline}
    found = next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)
    if found is None:
        return Claim(name=name, gate=gate, row=NOT_MEASURED | wanted, obstacle=_missing(wanted, suite, rows))
    return Claim(name=name, gate=gate, row=found, obstacle=_obstacle(gate, found, report["judges"]))


def _missing(wanted: Mapping[str, Any], suite: Row | None, rows: Sequence[Row]) -> str:
    if suite is None:
        return f"the suite {wanted['suite']} was not evaluated"
    if wanted["policy"] == wanted["baseline"]:
        return f"there is no policy to compare with {wanted['baseline']}"
    known = sorted({str(row["metric"]) for row in rows if row["suite"] == suite["name"]})
    hint = near_miss(wanted["metric"], known)
    return f"{wanted['metric']} was not measured on {suite['name']}.{hint} Metrics there: {', '.join(known)}"


def _obstacle(gate: GateConfig, row: Row, judges: Sequence[Row]) -> str | None:
    # `win_rate/JUDGE` and `CRITERION/JUDGE`; a check or a criterion may be called what a judge is called.
    measured, slash, name = row["metric"].rpartition("/")
    for judge in judges:
        if not slash or judge["name"] != name or judge["suite"] not in (None, row["suite"]):
            continue
        if not judge["qualified"]:
            why = "; ".join(judge["reasons"]) or "no reason was given"
            return f"the judge {name} has not qualified ({why}), so its verdicts cannot gate"
        if row["unit"] == RATING:
            rated = next((entry for entry in judge["ratings"] if entry["criterion"] == measured), None)
            if rated is None or not rated["qualified"]:
                why = "; ".join(rated["reasons"]) if rated else "nobody measured them"
                return f"ratings by {measured} of the judge {name} have not qualified ({why}), so they cannot gate"
    if gate.kind in COMPARING and row["higher_is_better"] is None:
        return f"neither direction of {row['metric']} is better, so it cannot gate"
    if row["low"] is None or row["high"] is None or row["clusters"] < 2:
        return str(row["method"])
    return None


def _counted(name: str, gate: GateConfig, report: Mapping[str, Any]) -> Claim:
    """Count what has no interval; of everything that the gate names, what is farthest from passing counts."""
    metric = gate.metric or ""
    if metric == UNSCORED_SHARE:
        values, noun = _unscored(gate, report), "item or verdict without a result"
    elif metric == CONTAMINATED_ITEMS:
        entries = [entry for entry in report["contamination"] if gate.suite in (None, entry["suite"])]
        values = [(float(entry["contaminated"]), entry["items"], entry["suite"]) for entry in entries]
        noun = "search for contamination"
    else:
        wanted = metric.removeprefix(JUDGE_QUALIFIED)
        judges = [
            judge
            for judge in report["judges"]
            if judge["name"] == wanted and (gate.suite is None or judge["suite"] in (None, gate.suite))
        ]
        values, noun = [(float(judge["qualified"]), 0, "; ".join(judge["reasons"])) for judge in judges], "such judge"
    unit = "share" if metric == UNSCORED_SHARE else "items" if metric == CONTAMINATED_ITEMS else "yes or no"
    row = NOT_MEASURED | {"suite": gate.suite, "metric": metric, "policy": gate.policy, "unit": unit}
    if not values:
        return Claim(name=name, gate=gate, row=row, obstacle=f"there is no {noun} to count")
    worst = max if gate.kind is GateKind.at_most else min
    value, n, where = worst(values)
    if metric == UNSCORED_SHARE and not value:
        where = ""  # nothing is missing anywhere, so that no place is the worst one
    row |= {"estimate": value, "low": value, "high": value, "n": n, "method": where}
    return Claim(name=name, gate=gate, row=row, obstacle=None)


def _unscored(gate: GateConfig, report: Mapping[str, Any]) -> list[tuple[float, int, str]]:
    """Return the share without a result of every suite and policy, and of every judge's verdicts on a pair."""
    found = []
    for entry in report["counts"]:
        if gate.suite in (None, entry["suite"]) and gate.policy in (None, entry["policy"]):
            missing = sum(entry["unscored"].values())
            found.append((missing / entry["items"], entry["items"], f"{entry['policy']} on {entry['suite']}"))
    for entry in report["win_rates"]:
        missing = sum(entry["unscored"].values())
        asked = entry["n"] + missing
        if asked and gate.suite in (None, entry["suite"]) and gate.policy in (None, entry["policy"]):
            where = f"{entry['judge']} on {entry['policy']} against {entry['opponent']}, {entry['suite']}"
            found.append((missing / asked, asked, where))
    return found
