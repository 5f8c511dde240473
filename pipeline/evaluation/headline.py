"""What a report says in words: who is better, by how much, and how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.paired_tests import stands
from pipeline.pages.numbers import WIN_RATE, counted, estimate_text, interval_text, metric_subject, verdict


def headline(
    entries: Sequence[Mapping[str, Any]],
    policies: Sequence[str],
    confidence: float,
    aside: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the answer for the newest policy, the verdict on each policy's primary metrics, and a sentence per policy.

    Args:
        entries: The metrics that count: of each suite the primary one, and win rates by judges that have qualified.
        policies: The baseline, then the others; the last one is the newest.
        confidence: Of the intervals; what Holm's correction leaves is judged at the same level.
        aside: Likelihoods of demonstrations under policies that have not learned from any: told, and not counted.
    """
    baseline, *others = policies
    if not others:
        stated = "; ".join(f"{metric_subject(entry)} {_stated(entry)}" for entry in entries)
        sentences = [f"{baseline}: {stated}."]
        return {"answer": None, "text": sentences[0], "sentences": sentences, "verdicts": [], "aside": []}
    sentences, verdicts = [], []
    for policy in others:
        compared = _compared(entries, policy, baseline)
        if compared:
            sentences.append("; ".join(_clause(entry, index) for index, entry in enumerate(compared)) + ".")
        verdicts += [
            {key: entry[key] for key in ("suite", "metric", "policy", "baseline", "p", "p_holm")}
            | {"verdict": verdict(entry), "stands": stands(entry, confidence)}
            for entry in compared
        ]
    answer = _answer([entry for entry in verdicts if entry["policy"] == others[-1]], others[-1], baseline)
    told = [_aside(entry) for policy in others for entry in _compared(aside, policy, baseline)]
    return {
        "answer": answer, "text": " ".join([*sentences, *told]), "sentences": sentences, "verdicts": verdicts,
        "aside": told,
    }  # fmt: skip


def _compared(entries: Sequence[Mapping[str, Any]], policy: str, baseline: str) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["policy"] == policy and entry["baseline"] == baseline]


def _aside(entry: Mapping[str, Any]) -> str:
    """Say what is not counted, and why."""
    return (
        f"Not counted, as {entry['policy']} or {entry['baseline']} learned from other than demonstrations: "
        f"{_clause(entry, 0)}."
    )


def _answer(entries: Sequence[Mapping[str, Any]], policy: str, baseline: str) -> dict[str, str]:
    """Say in one word and one line whether the newest policy is better; worse anywhere is never just better."""
    verdicts = [entry["verdict"] for entry in entries]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    total = counted(len(verdicts), "primary metric")
    if better and worse:
        word, text = "mixed", f"{policy} is better than {baseline} on {better} and worse on {worse} of {total}"
    elif better:
        word, text = "better", f"{policy} is better than {baseline} on {better} of {total} and worse on none"
    elif worse:
        word, text = "worse", f"{policy} is worse than {baseline} on {worse} of {total} and better on none"
    elif not verdicts:
        word, text = "not measured", f"no suite says whether {policy} is better than {baseline}"
    elif verdicts.count("not estimable") == len(verdicts):
        word, text = "not estimable", f"{policy} cannot be compared with {baseline}: no interval can be estimated"
    else:
        word, text = "no clear difference", f"{policy} cannot be told from {baseline} on any of {total}"
    if word in ("better", "worse") and not any(entry["stands"] for entry in entries):
        word = "unclear"  # what only single intervals show is no answer yet
    return {"policy": policy, "baseline": baseline, "verdict": word, "text": text + _corrected(entries)}


def _corrected(entries: Sequence[Mapping[str, Any]]) -> str:
    """Say how many of the differences are left when all are looked at together, where that is not every one."""
    told = [entry for entry in entries if entry["verdict"] in ("better", "worse", "different")]
    left = sum(entry["stands"] for entry in told)
    if left == len(told):
        return ""
    how = "an exact test" if len(entries) == 1 else f"exact tests corrected for {len(entries)} metrics"
    if len(told) == 1:
        return f"; by {how} the difference does not stand"
    return f"; by {how} {left or 'none'} of the {len(told)} differences {'stand' if left > 1 else 'stands'}"


def _clause(entry: Mapping[str, Any], index: int) -> str:
    """Write one verdict; the policies are named in the first clause of a sentence only."""
    names = (f"{entry['policy']} ", f" {entry['baseline']}") if index == 0 else ("it ", f" {entry['baseline']}")
    words = {
        "better": f"{names[0]}beats{names[1]} on {metric_subject(entry)}: {_stated(entry)}",
        "worse": f"{names[0]}is worse than{names[1]} on {metric_subject(entry)}: {_stated(entry)}",
        "different": f"{names[0]}differs from{names[1]} on {metric_subject(entry)}: {_stated(entry)}",
        "no clear difference": f"{names[0]}cannot be told from{names[1]} on {metric_subject(entry)}: {_stated(entry)}",
        "not estimable": f"{names[0]}cannot be compared with{names[1]} on {metric_subject(entry)}: "
        f"{estimate_text(entry)}, {entry['method']}",
    }
    return words[verdict(entry)]


def _stated(entry: Mapping[str, Any]) -> str:
    noun = "pair" if entry["unit"] == WIN_RATE else "item"
    return f"{estimate_text(entry)} {interval_text(entry)}, {counted(entry['n'], noun)}"
