"""Whether a judge's ratings of single completions go the way of people's votes, criterion by criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.evaluation import CriterionConfig
from pipeline.config.judges import QualificationConfig
from pipeline.evaluation.judges.protocol import Answer, Question
from pipeline.evaluation.judges.wording import RATINGS
from pipeline.evaluation.probes import Probe, single_question
from pipeline.evaluation.scorecards import Card, card_entry, short_of
from pipeline.statistics.intervals import proportion_interval
from pipeline.statistics.win_rates import win_rate

AGREEMENT, END_SHARE = "rating_agreement/", "rating_end_share/"  # names in a card, before the criterion's
ENDS = (RATINGS[0], RATINGS[-1])


def questions_of_ratings(probes: Sequence[Probe], rubric: Sequence[CriterionConfig]) -> list[Question]:
    """Return what a judge is asked: both completions of every pair that people judged, by every criterion."""
    return [
        single_question(probe, text, criterion)
        for probe in probes
        if probe.votes is not None
        for text in (probe.first, probe.second)
        for criterion in rubric
    ]


def rating_measures(
    probes: Sequence[Probe],
    rubric: Sequence[CriterionConfig],
    answers: Mapping[str, Answer],
    confidence: float = 0.95,
) -> Card:
    """Return how often the completion that most people prefer is rated higher, and how often a rating is 1 or 5.

    Equal ratings are half an agreement. Pairs on which people are even, and pairs with a completion that got no rating,
    are not counted. A rating between two whole numbers counts as the nearer one.

    Args:
        probes: What the judge was asked; those without votes are passed over.
        rubric: The criteria.
        answers: What it said, by the key of the question.
        confidence: Of the intervals.
    """
    card: Card = {}
    for criterion in rubric:
        agreed: list[float] = []
        clusters: list[str] = []
        at_ends: list[bool] = []
        rated: list[str] = []
        for probe in probes:
            if probe.votes is None:
                continue
            keys = [single_question(probe, text, criterion).key for text in (probe.first, probe.second)]
            scores = [answers[key].score for key in keys]
            at_ends += [round(score) in ENDS for score in scores if score is not None]
            rated += [probe.cluster for score in scores if score is not None]
            first, second = scores
            if first is not None and second is not None and probe.votes.majority != 0.5:
                higher = (first > second) is (probe.votes.majority > 0.5)
                agreed.append(0.5 if first == second else float(higher))
                clusters.append(probe.cluster)
        card[AGREEMENT + criterion.name] = card_entry(win_rate(agreed, clusters, confidence))
        card[END_SHARE + criterion.name] = card_entry(proportion_interval(at_ends, rated, confidence))
    return card


def rating_shortcomings(card: Card, criterion: str, asked: QualificationConfig) -> list[str]:
    """Return why a judge's ratings by a criterion may not decide anything; nothing if they may."""
    agreement, ends = card.get(AGREEMENT + criterion), card.get(END_SHARE + criterion)
    if agreement is None or ends is None:
        return ["its ratings were not compared with people's votes"]
    reasons = []
    if agreement["n"] < asked.min_pairs:
        reasons.append(f"{agreement['n']} pairs on which most people prefer one side, fewer than {asked.min_pairs}")
    if agreement["low"] is None or agreement["low"] <= asked.min_rating_agreement_low:
        words = "the completion that most people prefer is rated higher, lower bound"
        reasons.append(short_of(words, agreement["low"], "more than", asked.min_rating_agreement_low))
    if ends["estimate"] is not None and ends["estimate"] > asked.max_rating_end_share:
        reasons.append(short_of("ratings of 1 or 5", ends["estimate"], "at most", asked.max_rating_end_share))
    return reasons


def rating_entries_of(card: Card, asked: QualificationConfig) -> list[dict[str, object]]:
    """Return which criteria of a card a judge's ratings may decide by, as a report holds them."""
    criteria = [name.removeprefix(AGREEMENT) for name in card if name.startswith(AGREEMENT)]
    found = [(criterion, rating_shortcomings(card, criterion, asked)) for criterion in criteria]
    return [{"criterion": criterion, "qualified": not reasons, "reasons": reasons} for criterion, reasons in found]
