"""Gates in words, as the terminal, the report and its page say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.pages.numbers import compact, counted, metric_text, metric_words

OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE")


def claim_text(gate: Mapping[str, Any]) -> str:
    """Say what a gate claims: ``tuned is not worse than base by 3 points on items that pass all checks (style)``."""
    where = f" ({gate['suite']})" if gate["suite"] else ""
    subject = f"{metric_words(gate['metric'] or 'the primary metric')}{where}"
    whose = f" of {gate['policy']}" if gate["policy"] else ""
    if gate["unit"] == "yes or no":
        return subject
    if gate["kind"] == "at_least":
        return f"{subject}{whose}: at least {amount(gate, gate['bound'])}"
    if gate["kind"] == "at_most":
        return f"{subject}{whose}: at most {amount(gate, gate['bound'])}"
    margin = size(gate, gate["margin"])
    if gate["kind"] == "superiority":
        by = f" by more than {margin}" if gate["margin"] else ""
        return f"{gate['policy']} is better than {gate['baseline']}{by} on {subject}"
    return f"{gate['policy']} is not worse than {gate['baseline']} by {margin} on {subject}"


def amount(gate: Mapping[str, Any], value: float) -> str:
    """Write a value in the gate's unit: ``2 %``, ``0.31 bits/byte``."""
    if gate["unit"] in ("share", "win rate"):
        return f"{compact(100 * value)} %"
    if gate["unit"] == "yes or no":
        return "yes" if value else "no"
    return f"{compact(value)} {gate['unit']}"


def size(gate: Mapping[str, Any], value: float) -> str:
    """Write the size of a difference in the gate's unit: ``3 points``, ``0.02 bits/byte``."""
    if gate["unit"] in ("share", "win rate"):
        return f"{compact(100 * value)} {'point' if value == 0.01 else 'points'}"
    return f"{compact(value)} {gate['unit']}"


def reason(gate: Mapping[str, Any], method: str) -> str:
    """Say why a gate came out as it did, and what would decide one that did not.

    Args:
        gate: Of the report, but for its reason.
        method: Of its interval; of a counted quantity, what has the value.
    """
    if gate["minimum_detectable"] is None:
        detail = f": {method}" if method else ""
        return f"{amount(gate, gate['estimate'])}{detail}"
    if gate["outcome"] == "PASS":
        return f"the whole interval is on the good side of {_bound(gate)}"
    if gate["outcome"] == "FAIL":
        tolerated = gate["kind"] == "non_inferiority"
        return f"the whole interval is on the bad side of {'no difference' if tolerated else _bound(gate)}"
    found = (
        f"{counted(gate['n'], 'item')} find a difference of {size(gate, gate['minimum_detectable'])} "
        f"with {gate['min_power']:.0%} power"
    )
    if gate["items_needed"] is None:
        return f"the interval holds {_bound(gate)}; {found}, and no number of items tells this value from the bound"
    return f"the interval holds {_bound(gate)}; {found}, and about {gate['items_needed']:,} items would decide"


def _bound(gate: Mapping[str, Any]) -> str:
    if gate["bound"] is not None:
        return amount(gate, gate["bound"])
    if not gate["margin"]:
        return "no difference"
    worse = gate["kind"] == "non_inferiority"
    return f"{size(gate, gate['margin'])} {'worse' if worse else 'better'}"


def outcome_counts(gates: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many gates had each outcome that occurs."""
    counts = {outcome: sum(gate["outcome"] == outcome for gate in gates) for outcome in OUTCOMES}
    return {outcome: number for outcome, number in counts.items() if number}


def gate_lines(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the gates as lines for a terminal: how many came out how, then one line each."""
    if not gates:
        return []
    lines = [f"gates: {', '.join(f'{number} {outcome}' for outcome, number in outcome_counts(gates).items())}"]
    for gate in gates:
        name = f"{gate['name']} ({'hard' if gate['hard'] else 'soft'})"
        measured = "" if gate["minimum_detectable"] is None else f" {metric_text(gate)}:"
        lines.append(f"  {gate['outcome']:<12}  {name}: {claim_text(gate)}.{measured} {gate['reason']}")
        if gate["waiver"]:
            lines.append(f"  {'':<12}  {waiver_text(gate)}")
    return lines


def waiver_text(gate: Mapping[str, Any]) -> str:
    """Say who waived a gate and why, and where nobody had to."""
    waiver = gate["waiver"]
    needed = "" if gate["outcome"] != "PASS" else ", and it was not needed"
    return f"waived by {waiver['by']} ({waiver['name']}): {waiver['reason'].rstrip('.')}{needed}"
