"""Rows of pairs of policies: what judges say as metrics, and differences that only a gate asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.gates import COMPARING, WIN_RATE, GateConfig
from pipeline.evaluation.joining import JoinedSuite
from pipeline.evaluation.measures import Measure, differences
from pipeline.pages import numbers

Row = Mapping[str, Any]


def win_rate_rows(win_rates: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one row of metrics per judge and ordered pair: how often the policy beats the baseline."""
    rows = []
    for entry in win_rates:
        same = {key: entry[key] for key in ("suite", "n", "clusters", "method", "p", "p_test", "p_holm")}
        same |= {"metric": f"{WIN_RATE}{entry['judge']}", "higher_is_better": True, "unit": numbers.WIN_RATE}
        value, low, high = entry["estimate"], entry["low"], entry["high"]
        names = (entry["policy"], entry["opponent"])
        rows.append(same | dict(zip(("policy", "baseline"), names, strict=True)) | {"estimate": value, "low": low,
                                                                                   "high": high})  # fmt: skip
        turned = {"estimate": _other(value), "low": _other(high), "high": _other(low)}
        rows.append(same | dict(zip(("baseline", "policy"), names, strict=True)) | turned)
    return rows


def _other(share: float | None) -> float | None:
    return None if share is None else 1.0 - share


def asked_by_gates(
    gates: Mapping[str, GateConfig],
    suites: Sequence[JoinedSuite],
    measures: Mapping[str, Sequence[Measure]],
    confidence: float,
) -> list[dict[str, Any]]:
    """Return the differences between pairs of policies of which neither is the report's baseline."""
    rows: list[dict[str, Any]] = []
    for suite in suites:
        baseline, *others = suite.policies
        pairs = {
            (gate.policy or suite.policies[-1], gate.baseline)
            for gate in gates.values()
            if gate.kind in COMPARING and gate.suite == suite.name and gate.baseline in others
        }
        for policy, other in sorted(pairs):
            if other is not None and policy != other:
                rows += differences(suite, measures[suite.name], policy, other, confidence)
    return rows
