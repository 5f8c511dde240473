"""Exact tests of paired differences, beside their intervals, and Holm's correction over what a report is read for.

An interval leans on the items' sum being roughly normal; an exact test leans on nothing but that, without a difference,
either policy might as well have been the other one. With few items or clusters the two may part, and then the test is
the one to believe.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypedDict

from pipeline.statistics.significance import holm, mcnemar_p, sign_flip_p


class Chance(TypedDict):
    """What a report's row says of chance; all None in a row that compares nothing."""

    p: float | None  # two-sided
    p_test: str | None  # which test
    p_holm: float | None  # p after Holm's correction over the policy's primary metrics; None for the others


UNTESTED: Chance = {"p": None, "p_test": None, "p_holm": None}


def exact_test(differences: Sequence[float], clusters: Sequence[Hashable], *, yes_or_no: bool = False) -> Chance:
    """Return the exact test of no difference.

    Args:
        differences: [n] of each item; of yes and no -1, 0 or 1.
        clusters: [n] what an item shares with others.
        yes_or_no: Whether each item passes or does not. Where no two items share a cluster McNemar's test is then the
            same as flipping signs, without draws.
    """
    num_clusters = len(set(clusters))
    if yes_or_no and num_clusters == len(differences):
        p: float | None = mcnemar_p(sum(value > 0 for value in differences), sum(value < 0 for value in differences))
        name = "McNemar, exact"
    else:
        p = sign_flip_p(differences, clusters)
        name = "sign flips of whole clusters" if num_clusters < len(differences) else "sign flips"
    return {"p": p, "p_test": name, "p_holm": None} if differences else UNTESTED


def correct_primaries(entries: Sequence[dict[str, Any]]) -> None:
    """Write ``p_holm`` into the comparisons that a report is read for, each policy's being one family."""
    families: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in entries:
        if entry["baseline"] is not None and entry["p"] is not None:
            family = families.setdefault((entry["policy"], entry["baseline"]), {})
            family[f"{entry['suite']}/{entry['metric']}"] = entry
    for family in families.values():
        for name, adjusted in holm({name: entry["p"] for name, entry in family.items()}).items():
            family[name]["p_holm"] = adjusted


def stands(entry: Mapping[str, Any], confidence: float) -> bool:
    """Whether a difference is still there when all primary metrics of its policy are looked at together."""
    return entry["p_holm"] is not None and entry["p_holm"] <= 1 - confidence
