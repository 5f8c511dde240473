"""Whether runs may be compared: the same items, asked and judged in the same way. What differs is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.comparison.records import RunRecord
from pipeline.errors import ConfigError
from pipeline.pages.numbers import counted

NAMED_IDS = 3  # ids that a refusal lists
DECIDING = {  # of a suite's definition: what makes two numbers of one item incomparable
    "kind": "its kind", "task": "its task", "sampling": "how completions are drawn", "checks": "its checks",
    "rewards": "its rewards",
}  # fmt: skip

JUDGED = ("checks", "rewards")  # by name

SuiteItems = Mapping[str, Any]


@dataclass(kw_only=True)
class Candidate:
    """One policy of one run."""

    run: RunRecord
    policy: str
    number: int  # its place among all candidates, from 1
    refused: dict[str, str] = field(default_factory=dict)  # suite -> why it is not compared there
    twin_of: int | None = None  # number of the candidate that stands for it: one with the very same samples

    @property
    def key(self) -> str:
        """Return its name in tables of numbers."""
        return str(self.number)

    @property
    def samples(self) -> frozenset[tuple[str, str]]:
        """Return suite and artifact of everything that it was sampled for."""
        listed = (self.run.report or {}).get("provenance", {}).get("samples", [])
        return frozenset((entry["suite"], entry["artifact"]) for entry in listed if entry["policy"] == self.policy)

    @property
    def artifact(self) -> str | None:
        """Return the policy's artifact; None for the base itself."""
        found: str | None = (self.run.report or {})["provenance"]["policies"].get(self.policy)
        return found

    @property
    def asked(self) -> str:
        """Return what it was evaluated on: equal where two may be compared on every suite."""
        return repr(
            [
                (name, suite["digests"], [suite["definition"].get(key, []) for key in DECIDING])
                for name, suite in (self.run.items or {}).items()
            ]
        )

    def suite(self, name: str) -> SuiteItems | None:
        """Return what was measured item by item, if anything."""
        found: SuiteItems | None = (self.run.items or {}).get(name)
        return found


def candidates(runs: Sequence[RunRecord], policy: str | None) -> list[Candidate]:
    """Return the policies to compare: the newest of each run, one by its name, or ``all``.

    Raises:
        ConfigError: No run has a policy of that name.
    """
    found: list[Candidate] = []
    known: set[str] = set()
    for run in runs:
        if run.report is None:
            continue
        names: list[str] = run.report["policies"]
        known.update(names)
        wanted = names if policy == "all" else [name for name in names if name == policy] if policy else names[-1:]
        found += [Candidate(run=run, policy=name, number=0) for name in wanted]
    if policy and not found:
        raise ConfigError(f"--policy {policy}: no run has it. Policies: {', '.join(sorted(known)) or 'none'}.")
    first: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
    for number, candidate in enumerate(found, start=1):
        candidate.number = number
        if candidate.samples:
            number = first.setdefault((candidate.policy, candidate.samples), number)
            candidate.twin_of = number if number != candidate.number else None
    return found


def find_baseline(found: Sequence[Candidate], asked: str | None) -> Candidate:
    """Return the candidate that the others are compared with: the one that is asked for, else the first one.

    Where they were evaluated on different items it is the first of those that most have in common.

    Args:
        found: All candidates.
        asked: A number, the beginning of a run's name, or either followed by ``:POLICY``.

    Raises:
        ConfigError: Nothing, or more than one, goes by that name.
    """
    if asked is None:
        measured = [candidate for candidate in found if candidate.run.items] or list(found)
        common = Counter(candidate.asked for candidate in measured)
        return max(measured, key=lambda candidate: common[candidate.asked])  # the first of them, as `max` is stable
    name, _, policy = asked.partition(":")
    meant = [
        candidate
        for candidate in found
        if (candidate.key == name or candidate.run.name.startswith(name) or candidate.run.place == name)
        and policy in ("", candidate.policy)
    ]
    exact = [candidate for candidate in meant if candidate.key == name or candidate.run.name == name]
    chosen = exact or meant
    if len(chosen) != 1:
        listed = ", ".join(f"{entry.key} {entry.run.name}:{entry.policy}" for entry in (chosen or found)[:10])
        count = "several" if chosen else "none"
        raise ConfigError(f"--baseline {asked}: {count} of the compared policies go by that name. They are: {listed}.")
    return chosen[0]


def align(found: Sequence[Candidate], baseline: Candidate) -> list[str]:
    """Note for every candidate which suites it cannot be compared on, and who stands for whom; return the suites."""
    _let_stand_for_its_twins(baseline, found)
    items = baseline.run.items or {}
    suites = [suite["name"] for suite in (baseline.run.report or {})["suites"] if suite["name"] in items]
    for candidate in found:
        for name in suites:
            reason = refusal(name, baseline, candidate)
            if reason:
                candidate.refused[name] = reason
    return suites


def refusal(suite: str, baseline: Candidate, other: Candidate) -> str | None:
    """Return why two policies cannot be compared on a suite, or None."""
    ours, theirs = baseline.suite(suite), other.suite(suite)
    if other.run.items is None:
        return f"no values by item: {other.run.items_problem}"
    if theirs is None:
        return f"it was not evaluated on {suite}"
    if ours is None or ours is theirs:
        return None
    return _definition_differs(suite, ours, theirs) or _items_differ(suite, ours, theirs)


def refusals(found: Sequence[Candidate]) -> list[str]:
    """Return one line per reason, with those that it keeps from being compared."""
    by_reason: dict[str, list[str]] = {}
    for candidate in found:
        for reason in dict.fromkeys(candidate.refused.values()):
            by_reason.setdefault(reason, []).append(f"#{candidate.key} {candidate.run.name}")
    return [f"{_listed(names)}: {reason}" for reason, names in by_reason.items()]


def _let_stand_for_its_twins(baseline: Candidate, found: Sequence[Candidate]) -> None:
    """Make the baseline the one that stands for all candidates with its samples, whichever of them came first."""
    first = baseline.twin_of
    if first is None:
        return
    for candidate in found:
        if first in (candidate.number, candidate.twin_of):
            candidate.twin_of = None if candidate is baseline else baseline.number


def _items_differ(suite: str, ours: SuiteItems, theirs: SuiteItems) -> str | None:
    if ours["digests"] == theirs["digests"]:
        return None
    first, second = (dict(zip(side["ids"], side["digests"], strict=True)) for side in (ours, theirs))
    changed = [name for name in first.keys() & second.keys() if first[name] != second[name]]
    parts = [
        f"{text} ({_listed(sorted(ids))})"
        for text, ids in (
            (f"{len(first.keys() - second.keys())} only in the baseline", first.keys() - second.keys()),
            (f"{len(second.keys() - first.keys())} only here", second.keys() - first.keys()),
            (f"{len(changed)} with other content", changed),
        )
        if ids
    ]
    return (
        f"other items on {suite}: {counted(len(second), 'item')} against the baseline's {len(first):,}, "
        f"{'; '.join(parts) or 'in another order'}"
    )


def _definition_differs(suite: str, ours: SuiteItems, theirs: SuiteItems) -> str | None:
    first, second = ours["definition"], theirs["definition"]
    parts = []
    for key, words in DECIDING.items():
        if first.get(key, []) == second.get(key, []):  # an older report has no key that came later
            continue
        parts.append(f"{words} ({_changed_names(first.get(key, []), second.get(key, []))})" if key in JUDGED else words)
    return f"{suite} is defined otherwise there: {'; '.join(parts)}" if parts else None


def _changed_names(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> str:
    changed = [entry["name"] for entry in (*ours, *theirs) if entry not in ours or entry not in theirs]
    return ", ".join(dict.fromkeys(changed)) or "their order"


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED_IDS]) + (", …" if len(ids) > NAMED_IDS else "")
