"""How often each policy beats each other one in the eyes of a judge, and what the judge owes to order and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.evaluation.judges.protocol import Status
from pipeline.evaluation.outcomes import Outcome, decided
from pipeline.evaluation.paired_tests import UNTESTED, exact_test
from pipeline.evaluation.samples import GenerationSample
from pipeline.evaluation.verdicts import IDENTICAL
from pipeline.statistics.intervals import Estimate, proportion_interval
from pipeline.statistics.judge_correction import Confusion, corrected_rate, prediction_powered_mean
from pipeline.statistics.length_control import length_controlled_win_rate
from pipeline.statistics.win_rates import order_effects, win_rate

NO_COMPLETION = "no_completion"  # a policy has none of this item, so that nobody was asked


def win_rate_entry(
    outcomes: Sequence[Outcome],
    first: Sequence[GenerationSample],
    second: Sequence[GenerationSample],
    *,
    confidence: float,
    max_failure_rate: float,
    confusion: Confusion | None = None,
    voted: Sequence[Outcome] = (),
) -> dict[str, Any]:
    """Return the win rate of the first policy over the second, as a report holds it; every item counts somewhere.

    With more than ``max_failure_rate`` of the items without a verdict there is no win rate, because what fails is
    rarely a fair sample; pairs on which nobody has voted yet are no failures.

    Args:
        outcomes: Of the items of which both policies have a completion.
        first: Its samples, all items.
        second: The opponent's, the same items.
        confidence: Of the intervals.
        max_failure_rate: See above.
        confusion: How often the judge is right where people judged; None where that was not measured.
        voted: What people said of some of the same items.
    """
    unscored = Counter(outcome.status for outcome in outcomes if outcome.win is None)
    # Beside pairs on which nobody has voted yet, those that need no vote would be more than their share.
    left_out = [outcome for outcome in outcomes if outcome.identical and unscored[Status.no_vote]]
    scored = [outcome for outcome in outcomes if outcome.win is not None and outcome not in left_out]
    failed = unscored.total() - unscored[Status.no_vote]  # of what was asked
    asked = len(outcomes) - unscored[Status.no_vote] - len(left_out)
    unscored[IDENTICAL] += len(left_out)
    missing = len(first) - len(outcomes)
    unscored[NO_COMPLETION] += missing
    clusters = [outcome.cluster for outcome in scored]
    wins = [outcome.win for outcome in scored if outcome.win is not None]
    lengths, others = (_lengths(rows, scored) for rows in (first, second))
    with_votes = None
    if failed > max_failure_rate * asked:
        reason = f"{failed} of {asked} items have no verdict, more than {max_failure_rate:.0%}"
        rate = controlled = corrected = Estimate.unknown(None, len(scored), len(set(clusters)), reason)
        chance = UNTESTED
    else:
        rate = win_rate(wins, clusters, confidence)
        chance = exact_test([win - 0.5 for win in wins], clusters)
        corrected = corrected_win_rate(scored, confusion, confidence) if confusion else rate
        with_votes = win_rate_with_votes(scored, voted, confidence)
        controlled = length_controlled_win_rate(wins, lengths, others, clusters, confidence=confidence)
    effects = order_measures(scored, confidence)
    return {
        **_interval(rate), "n": rate.n, "clusters": rate.clusters, "method": rate.method, **chance,
        "corrected": {**_interval(corrected), "method": corrected.method} if confusion else None,
        "with_votes": with_votes,
        "length_controlled": {**_interval(controlled), "method": controlled.method},
        "consistency": _interval(effects["consistency"]),
        "first_slot_bias": _interval(effects["first_slot_bias"]),
        "length_ratio": sum(lengths) / sum(others) if sum(others) else None,
        "prefers_longer": _interval(prefers_longer(scored, lengths, others, confidence)),
        "identical": sum(outcome.identical for outcome in scored),
        "unscored": {reason: count for reason, count in sorted(unscored.items()) if count},
    }  # fmt: skip


def corrected_win_rate(outcomes: Sequence[Outcome], confusion: Confusion, confidence: float) -> Estimate:
    """Return the win rate that people would have given, from a judge whose mistakes were counted on people's votes.

    What is corrected is the share of the pairs that the judge decides. Its ties stay half a win each: how often it ties
    where people do not was not measured.
    """
    clear = [outcome for outcome in outcomes if outcome.decision in (0.0, 1.0)]
    clusters = [outcome.cluster for outcome in clear]
    decided_rate = corrected_rate([outcome.decision == 1.0 for outcome in clear], clusters, confusion, confidence)
    ties = 1 - len(clear) / len(outcomes) if outcomes else 0.0
    whole = replace(decided_rate, n=len(outcomes), clusters=len({outcome.cluster for outcome in outcomes}))
    return whole.moved(scale=1 - ties, shift=ties / 2)


def win_rate_with_votes(
    outcomes: Sequence[Outcome], voted: Sequence[Outcome], confidence: float
) -> dict[str, Any] | None:
    """Return the win rate that people would have given, from their votes on some pairs and the judge's on all others.

    It takes for granted that which pairs were voted on has nothing to do with what they hold. Completions that say the
    same are a tie for both, and are left out of what is estimated.

    Returns:
        The interval, its method and the number of pairs voted on; None where people share none with the judge, or all.
    """
    people = {outcome.id: outcome.win for outcome in voted if outcome.win is not None and not outcome.identical}
    open_pairs = [(outcome, outcome.win) for outcome in outcomes if outcome.win is not None and not outcome.identical]
    both = [(outcome, win) for outcome, win in open_pairs if outcome.id in people]
    alone = [(outcome, win) for outcome, win in open_pairs if outcome.id not in people]
    if not both or not alone:
        return None
    value = prediction_powered_mean(
        [win for _, win in alone], [outcome.cluster for outcome, _ in alone],
        [people[outcome.id] or 0.0 for outcome, _ in both], [win for _, win in both],
        [outcome.cluster for outcome, _ in both], confidence,
    )  # fmt: skip
    ties = 1 - len(open_pairs) / len(outcomes)
    whole = value.moved(scale=1 - ties, shift=ties / 2)
    limits = [None if limit is None else min(1.0, max(0.0, limit)) for limit in (whole.estimate, whole.low, whole.high)]
    return {**dict(zip(("estimate", "low", "high"), limits, strict=True)), "method": value.method, "votes": len(both)}


def order_measures(outcomes: Sequence[Outcome], confidence: float) -> dict[str, Estimate]:
    """Return position consistency and first-slot bias over pairs that were really shown both ways round.

    Raises nothing for a judge to whom order means nothing: both are then not estimable, which says so.
    """
    shown = [
        (decided(outcome.forward), decided(outcome.backward), outcome.cluster)
        for outcome in outcomes
        if outcome.forward is not None and outcome.backward is not None and not outcome.identical
    ]
    if not shown:
        unknown = Estimate.unknown(None, 0, 0, "no pair was shown in both orders")
        return {"consistency": unknown, "first_slot_bias": unknown}
    forward, backward, clusters = zip(*shown, strict=True)
    effects = order_effects(forward, backward, clusters, confidence)
    return {"consistency": effects.consistency, "first_slot_bias": effects.first_slot_bias}


def prefers_longer(
    outcomes: Sequence[Outcome], lengths: Sequence[float], others: Sequence[float], confidence: float
) -> Estimate:
    """Return how often the longer of two completions wins, among pairs that one side won and that differ in length."""
    longer, clusters = [], []
    for outcome, length, other in zip(outcomes, lengths, others, strict=True):
        if outcome.decision in (0.0, 1.0) and length != other:
            longer.append((outcome.decision == 1.0) is (length > other))
            clusters.append(outcome.cluster)
    if not longer:
        return Estimate.unknown(None, 0, 0, "no decided pair differs in length")
    return proportion_interval(longer, clusters, confidence)


def _lengths(rows: Sequence[GenerationSample], outcomes: Sequence[Outcome]) -> list[float]:
    """Return the characters of the completions: what a judge sees of length."""
    texts: Mapping[str, str] = {row.id: row.completion for row in rows}
    return [float(len(texts[outcome.id])) for outcome in outcomes]


def _interval(value: Estimate) -> dict[str, float | None]:
    return {"estimate": value.estimate, "low": value.low, "high": value.high}
