"""Cards of measures, such as a judge's or a reward model's: nested JSON as groups of named numbers with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.pages.numbers import compact, decimals_for, fixed
from pipeline.pages.text import typographic

RELIABILITY = "reliability"  # bins of a reliability diagram, drawn and not listed
SHARES = ("share", "rate", "accuracy", "consistency", "agreement", "fraction", "prefer", "wins", "mistakes")
JUDGE_WORDS = {  # the measures of a judge in the order in which they are read
    "kappa": "kappa with most people",
    "kappa_with_one_person": "kappa with one person",
    "human_kappa": "kappa of two people",
    "agreement": "agreement with most people",
    "agreement_with_one_person": "agreement with one person",
    "human_agreement": "agreement of two people",
    "gwet_ac1": "Gwet’s AC1 with most people",
    "human_gwet_ac1": "Gwet’s AC1 of two people",
    "accuracy_where_both_decide": "accuracy where both decide",
    "consistency": "consistency when swapped",
    "first_slot_bias": "bias to the first shown",
    "prefers_longer": "prefers the longer",
    "people_prefer_longer": "people prefer the longer",
    "null_win_rate": "wins of answers that say nothing",
    "injection_flip_rate": "turned by injected text",
    "padding_flip_rate": "turned by padding",
    "calibration_error": "calibration error",
    "brier": "Brier score",
    "failure_rate": "questions without a verdict",
}
FLIPPED, TRIED = "flipped", "tried"  # counts of one kind of attack


def judge_card(card: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judge's card in the order in which it is read, without what does not apply to it, and its mistakes."""
    known = sorted(card, key=lambda name: list(JUDGE_WORDS).index(name) if name in JUDGE_WORDS else len(JUDGE_WORDS))
    absent = {name for name in known if isinstance(card[name], Mapping) and not card[name].get("n", 1)}
    return {**{name: card[name] for name in known if name not in absent}, "mistakes by kind": kinds}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Measures that belong together."""

    title: str  # empty for those of the card itself
    measures: list[tuple[str, str, str, int | None]] = field(default_factory=list)  # name, value, interval, n


def measure_groups(card: Mapping[str, Any], title: str = "") -> list[Group]:
    """Return the numbers of a card in its own order: a group for the card and one for each section below it."""
    own, below = Group(title=title), list[Group]()
    for name, value in card.items():
        words = JUDGE_WORDS.get(name, name.replace("_", " ").replace("/", ": "))
        if name == RELIABILITY or value is None:
            continue
        if isinstance(value, Mapping) and "estimate" in value:
            own.measures.append((words, *_estimate(name, value)))
        elif isinstance(value, Mapping) and value.keys() == {FLIPPED, TRIED}:
            own.measures.append((words, f"{value[FLIPPED]} of {value[TRIED]}", "", None))
        elif isinstance(value, Mapping):
            below += measure_groups(value, f"{title}, {words}" if title else words)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            below += _listed(value, f"{title}, {words}" if title else words)
        else:
            own.measures.append((words, _plain(value), "", None))
    return [*([own] if own.measures else []), *below]


def _listed(values: Sequence[Any], title: str) -> list[Group]:
    """Return a list of sections as one group each, and a list of plain values as one measure."""
    if not any(isinstance(value, Mapping) for value in values):
        shown = ", ".join(_plain(value) for value in values)
        return [Group(title="", measures=[(title, shown or "none", "", None)])]
    groups: list[Group] = []
    for number, value in enumerate(values, start=1):
        if isinstance(value, Mapping):
            groups += measure_groups(value, f"{title} {value.get('name', number)}")
    return groups


def _estimate(name: str, value: Mapping[str, Any]) -> tuple[str, str, int | None]:
    """Write a share in per cent and everything else as it is, with as many digits as the interval supports."""
    estimate, low, high = value["estimate"], value.get("low"), value.get("high")
    if estimate is None:
        return "not estimable", "", value.get("n")
    factor, unit = (100.0, "\N{NO-BREAK SPACE}%") if any(word in name for word in SHARES) else (1.0, "")
    if low is None or high is None:
        return typographic(f"{compact(factor * estimate)}{unit}"), "", value.get("n")
    decimals = decimals_for(factor * low, factor * high, factor * estimate)
    shown, *limits = (fixed(factor * number, decimals) for number in (estimate, low, high))
    return typographic(f"{shown}{unit}"), typographic(f"[{limits[0]}, {limits[1]}]"), value.get("n")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return typographic(compact(value)) if isinstance(value, int | float) else str(value)
