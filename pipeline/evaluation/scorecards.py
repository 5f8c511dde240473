"""How good a judge is, measured against people: its scorecard, and whether that is enough to decide by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.judges import QualificationConfig
from pipeline.evaluation.judges.protocol import Judge, Status
from pipeline.evaluation.outcomes import Outcome
from pipeline.evaluation.probes import Probe
from pipeline.evaluation.win_rates import order_measures, prefers_longer
from pipeline.statistics.calibration import calibration
from pipeline.statistics.concordance import Concordance, concordance
from pipeline.statistics.intervals import Estimate, proportion_interval
from pipeline.statistics.win_rates import win_rate

UNASKED = (Status.no_vote, Status.not_applicable)  # what is no failure of the judge
VERDICTS = (0.0, 0.5, 1.0)  # second better, neither, first better
DRAWS = 2000  # of the bootstrap: the third digit of an interval is not what a judge is qualified by

Card = dict[str, dict[str, Any]]  # measure -> {estimate, low, high, n}


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """What was measured."""

    card: Card
    reliability: list[dict[str, Any]]  # bins of stated against observed agreement, where probabilities are stated
    kinds: dict[str, dict[str, Any]]  # rate of mistakes by kind of attack
    applies: bool  # False where none of the pairs has what the judge goes by, so that it cannot be measured on them

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"card": self.card, "reliability": self.reliability, "kinds": self.kinds, "applies": self.applies}


def score_judge(
    judge: Judge, probes: Sequence[Probe], outcomes: Mapping[str, Outcome], confidence: float = 0.95
) -> Scorecard:
    """Measure a judge by what it said about probes.

    Args:
        judge: What it states.
        probes: What it was asked.
        outcomes: What it said, by probe.
        confidence: Of the intervals.
    """
    voted = [(probe, outcomes[probe.id]) for probe in probes if probe.group == "votes"]
    scored = [(probe, outcome) for probe, outcome in voted if outcome.win is not None]
    if all(outcome.status == Status.not_applicable for _, outcome in voted):
        return Scorecard(card={}, reliability=[], kinds={}, applies=False)
    asked = [probe for probe in probes if outcomes[probe.id].status not in UNASKED]
    values: dict[str, Estimate] = {"failure_rate": _failures(asked, outcomes, confidence)}
    reliability: list[dict[str, Any]] = []
    if scored:
        values |= _agreement(scored, confidence)
        said = [outcome for _, outcome in scored]
        values |= order_measures(said, confidence)
        lengths, others = ([float(len(getattr(probe, side))) for probe, _ in scored] for side in ("first", "second"))
        values["prefers_longer"] = prefers_longer(said, lengths, others, confidence)
        people = [_replaced(outcome, probe) for probe, outcome in scored]
        values["people_prefer_longer"] = prefers_longer(people, lengths, others, confidence)
        if judge.states_probabilities:
            stated = calibration(
                [outcome.win or 0.0 for outcome in said],
                [probe.votes.majority for probe, _ in scored if probe.votes],
                [probe.cluster for probe, _ in scored],
                confidence=confidence,
                draws=DRAWS,
            )
            values |= {"calibration_error": stated.ece, "brier": stated.brier}
            reliability = [
                {"confidence": entry.confidence, "accuracy": card_entry(entry.accuracy)} for entry in stated.bins
            ]
    values |= _null_answers(probes, outcomes, confidence)
    flips, kinds = _flips(probes, outcomes, confidence)
    return Scorecard(card={name: card_entry(value) for name, value in (values | flips).items()},
                     reliability=reliability, kinds=kinds, applies=True)  # fmt: skip


def shortcomings(judge: Judge, card: Card, asked: QualificationConfig) -> list[str]:
    """Return why a judge may not decide anything; nothing if it may. What could not be measured is no excuse."""
    failed = card.get("failure_rate", {})
    if failed.get("estimate") == 1:
        return [f"none of the {failed['n']} questions about pairs that people judged got a verdict"]
    reasons: list[str] = []
    pairs = card.get("kappa", {}).get("n", 0)
    if pairs < asked.min_pairs:
        reasons.append(f"{pairs} pairs with human votes, fewer than {asked.min_pairs}")
    low = card.get("kappa", {}).get("low")
    if low is None or low < asked.min_kappa_low:
        reasons.append(short_of("kappa with the majority of people, lower bound", low, "at least", asked.min_kappa_low))
    ceiling, own = _value(card, "human_kappa"), _value(card, "kappa_with_one_person")
    if ceiling is not None and ceiling > 0 and (own is None or own < asked.min_share_of_ceiling * ceiling):
        wanted = asked.min_share_of_ceiling * ceiling
        reasons.append(
            short_of(f"kappa with one person, where two people reach {ceiling:.2f}", own, "at least", wanted)
        )
    bounds = (
        ("consistency", "verdicts that stay when the sides are swapped", asked.min_consistency, True),
        ("first_slot_bias", "bias to the first shown", asked.max_first_slot_bias, False),
        ("null_win_rate", "wins of answers that say nothing", asked.max_null_win_rate, False),
        ("injection_flip_rate", "verdicts turned by injected text", asked.max_injection_flip_rate, False),
        ("padding_flip_rate", "verdicts turned by padding", asked.max_padding_flip_rate, False),
        ("calibration_error", "calibration error", asked.max_calibration_error, False),
        ("failure_rate", "questions without a verdict", asked.max_failure_rate, False),
    )
    for name, words, bound, is_floor in bounds:
        if name not in card:
            continue
        value = _value(card, name)
        if value is None:
            if card[name]["n"]:
                reasons.append(f"{words}: not estimable")
        elif value < bound if is_floor else abs(value) > bound:
            reasons.append(short_of(words, value, "at least" if is_floor else "at most", bound))
    if judge.answers_anything and "injection_flip_rate" not in card:
        reasons.append("no pair with a clear preference, so that no attack was tried")
    return reasons


def _agreement(scored: Sequence[tuple[Probe, Outcome]], confidence: float) -> dict[str, Estimate]:
    """Compare with the majority, with each person, and people with each other on the same pairs."""
    rows = [(outcome.decision, probe.votes, probe.cluster) for probe, outcome in scored if probe.votes is not None]
    clusters = [cluster for _, _, cluster in rows]
    majority = _concordance([d for d, _, _ in rows], [v.majority for _, v, _ in rows], clusters, confidence)
    single = [(d, score, c) for d, votes, c in rows for score in votes.scores]
    one = _concordance([d for d, _, _ in single], [s for _, s, _ in single], [c for *_, c in single], confidence)
    values = {
        "agreement": majority.observed,
        "kappa": majority.kappa,
        "gwet_ac1": majority.gwet_ac1,
        "agreement_with_one_person": one.observed,
        "kappa_with_one_person": one.kappa,
    }
    decided = [(d == 1.0, v.majority == 1.0, c) for d, v, c in rows if d != 0.5 and v.majority != 0.5]
    if decided:
        values["accuracy_where_both_decide"] = proportion_interval(
            [own == people for own, people, _ in decided], [c for *_, c in decided], confidence
        )
    # Both directions, so that nobody is the one who is measured; a pair's rows share its cluster.
    between = [
        (one_score, other, cluster)
        for _, votes, cluster in rows
        for i, one_score in enumerate(votes.scores)
        for j, other in enumerate(votes.scores)
        if i != j
    ]
    if between:
        people = _concordance(
            [a for a, _, _ in between], [b for _, b, _ in between], [c for *_, c in between], confidence
        )
        values |= {"human_agreement": people.observed, "human_kappa": people.kappa, "human_gwet_ac1": people.gwet_ac1}
    return values


def _concordance(
    first: Sequence[float | None], second: Sequence[float], clusters: Sequence[str], confidence: float
) -> Concordance:
    given = [0.5 if value is None else value for value in first]
    return concordance(given, second, clusters, categories=VERDICTS, confidence=confidence, draws=DRAWS)


def _null_answers(probes: Sequence[Probe], outcomes: Mapping[str, Outcome], confidence: float) -> dict[str, Estimate]:
    """Return how often an answer that says nothing beats the one that people prefer; a tie is half a win."""
    asked = [(probe, outcomes[probe.id].decision) for probe in probes if probe.group == "null"]
    scored = [(1 - decision, probe.cluster) for probe, decision in asked if decision is not None]
    if not scored:
        return {}
    return {"null_win_rate": win_rate([value for value, _ in scored], [c for _, c in scored], confidence)}


def _flips(
    probes: Sequence[Probe], outcomes: Mapping[str, Outcome], confidence: float
) -> tuple[dict[str, Estimate], dict[str, dict[str, Any]]]:
    """Return how often the worse completion wins with an addition where it did not win without."""
    before = _before(probes, outcomes)
    rates: dict[str, Estimate] = {}
    kinds: dict[str, dict[str, Any]] = {}
    for group, name in (("injection", "injection_flip_rate"), ("padding", "padding_flip_rate")):
        tried = [
            (probe, outcomes[probe.id].decision == 0.0)
            for probe in probes
            if probe.group == group and outcomes[probe.id].decision is not None
            and before.get(probe.origin) not in (None, 0.0)
        ]  # fmt: skip
        if tried:
            rates[name] = proportion_interval([f for _, f in tried], [p.cluster for p, _ in tried], confidence)
        totals, flipped = Counter(p.kind for p, _ in tried), Counter(p.kind for p, turned in tried if turned)
        kinds[group] = {kind: {"flipped": flipped[kind], "tried": totals[kind]} for kind in sorted(totals)}
    return rates, kinds


def _before(probes: Sequence[Probe], outcomes: Mapping[str, Outcome]) -> dict[str, float | None]:
    """Return what the judge said of each pair as it was, from the side of the completion that people prefer."""
    found: dict[str, float | None] = {}
    for probe in probes:
        decision = outcomes[probe.id].decision
        if probe.votes is not None:
            turned = decision is not None and probe.votes.majority < 0.5
            found[probe.origin] = 1 - decision if turned and decision is not None else decision
    return found


def _replaced(outcome: Outcome, probe: Probe) -> Outcome:
    """Return what people said of a pair in the place of what the judge said."""
    majority = probe.votes.majority if probe.votes else None
    return Outcome(id=outcome.id, cluster=outcome.cluster, win=majority, status=outcome.status)


def _failures(probes: Sequence[Probe], outcomes: Mapping[str, Outcome], confidence: float) -> Estimate:
    failed = [outcomes[probe.id].win is None for probe in probes]
    return proportion_interval(failed, [probe.cluster for probe in probes], confidence)


def card_entry(value: Estimate) -> dict[str, Any]:
    """Return an estimate as a card holds it."""
    return {"estimate": value.estimate, "low": value.low, "high": value.high, "n": value.n}


def _value(card: Card, name: str) -> float | None:
    value = card.get(name, {}).get("estimate")
    return None if value is None else float(value)


def short_of(words: str, value: float | None, side: str, bound: float) -> str:
    """Say what was measured and what is asked for."""
    found = "not estimable" if value is None else f"{value:.3g}"
    return f"{words}: {found}, and {side} {bound:.3g} is asked for"
