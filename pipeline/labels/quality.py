"""How far votes can be trusted, and whose are set aside.

Everything is measured on submitted votes that are not known answers, of set-aside annotators too, so that the report
describes what was collected; only the majorities in which cycles are looked for leave them out, as aggregation does.
Annotators without a name are measured together and never set aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.ingest import IngestConfig
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError
from pipeline.labels.contradictions import contradictions, majority_cycles, own_cycles
from pipeline.labels.scorecards import Scorecard, judge, make_scorecards, numbered
from pipeline.labels.verdicts import Pair, Verdicts, read_verdicts, select_questions
from pipeline.labels.votes import Item, Scale, Status, Vote
from pipeline.statistics.agreement import Level, cohen_kappas, krippendorff_alpha

MAX_KAPPAS = 1000  # listed, those of most shared judgements first; how many there are is stated beside them


@dataclass(kw_only=True)
class Quality:
    """The report on a collection of votes."""

    scorecards: list[Scorecard]
    numbers: dict[str, Any]  # everything but the annotators, as in `quality.json`

    @property
    def set_aside(self) -> dict[str, list[str]]:
        """Whose votes do not count, with the reasons."""
        return {card.annotator: card.reasons for card in self.scorecards if card.set_aside}

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report as JSON can hold it."""
        return {**self.numbers, "annotators": [card.as_dict() for card in self.scorecards]}


def assess(items: Mapping[str, Item], votes: Sequence[Vote], config: IngestConfig) -> Quality:
    """Measure agreement, reliability and bias, and judge every annotator by the configured floors.

    Args:
        items: What was judged, by id.
        votes: Of every status.
        config: The floors, and how votes are read.

    Raises:
        ConfigError: `keep` or `set_aside` names nobody who voted, or both name one annotator.
    """
    selected = select_questions(votes, config)
    _check_names(config, {vote.annotator for vote in votes if vote.annotator is not None})
    counting = [vote for vote in selected if vote.status is Status.submitted and not vote.gold]
    verdicts = read_verdicts(counting, min_rating_gap=config.min_rating_gap)
    cards, biases = make_scorecards(items, selected, verdicts, config)
    judge(cards, config.quality)
    set_aside = {card.annotator for card in cards if card.set_aside}
    earlier = [vote for vote in selected if vote.status is Status.superseded and not vote.gold]
    kappas = _kappas(verdicts, [card.annotator for card in cards])
    numbers = {
        "votes": {
            "by_status": dict(sorted(Counter(str(vote.status) for vote in votes).items())),
            "other_question": len(votes) - len(selected),
            "gold": sum(vote.gold and vote.status is Status.submitted for vote in selected),
            "ties": sum(vote.is_tie and len(vote.candidates) > 1 for vote in counting),
            "annotators": len(cards),
            "unnamed": sum(vote.annotator is None for vote in counting),
        },
        "bound_confidence": config.quality.confidence,
        "agreement": _agreement(counting, verdicts),
        "kappa": kappas[:MAX_KAPPAS],
        "num_kappas": len(kappas),
        **biases,
        "cycles": majority_cycles(verdicts, set_aside) + own_cycles(verdicts),
        "contradictions": contradictions(verdicts, read_verdicts(earlier, min_rating_gap=config.min_rating_gap)),
    }
    return Quality(scorecards=cards, numbers=numbers)


def _check_names(config: IngestConfig, known: set[str]) -> None:
    quality = config.quality
    for key, names in (("keep", quality.keep), ("set_aside", quality.set_aside)):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"ingest.quality.{key}: there is no vote of `{name}`.{near_miss(name, known)} "
                    f"Annotators: {', '.join(sorted(known)[:20]) or 'none has a name'}."
                )
    if both := sorted(set(quality.keep) & set(quality.set_aside)):
        raise ConfigError(f"ingest.quality: `keep` and `set_aside` both name {', '.join(both)}. Remove one.")


def _agreement(counting: Sequence[Vote], verdicts: Verdicts) -> list[dict[str, Any]]:
    """Return Krippendorff's alpha of each question and scale, over what was judged at least twice.

    A pairwise vote is first, tie or second of its pair; an order gives each candidate its place among those shown with
    it; ratings and thumbs are the numbers themselves.
    """
    judged: dict[tuple[str, Scale], list[tuple[tuple[Any, ...], float]]] = {}
    columns = (verdicts.vote.tolist(), verdicts.pair.tolist(), verdicts.outcome.tolist())
    for vote_number, pair_number, outcome in zip(*columns, strict=True):
        vote = verdicts.votes[vote_number]
        if vote.scale is Scale.pairwise:
            judged.setdefault((vote.question, vote.scale), []).append(((pair_number,), float(outcome)))
    for vote in counting:
        values: Sequence[float | None] | None = vote.ranks if vote.scale is Scale.ranking else vote.ratings
        if vote.scale is not Scale.pairwise and values is not None:
            shown = vote.candidates if vote.scale is Scale.ranking else ()
            judged.setdefault((vote.question, vote.scale), []).extend(
                ((vote.item, shown, candidate), float(value))
                for candidate, value in zip(vote.candidates, values, strict=True)
                if value is not None
            )
    rows = []
    for (question, scale), entries in sorted(judged.items()):
        numbers: dict[tuple[Any, ...], int] = {}
        units = np.array([numbers.setdefault(unit, len(numbers)) for unit, _ in entries], dtype=np.intp)
        given = np.array([value for _, value in entries])
        sizes = np.bincount(units)
        alphas = {f"alpha_{level}": krippendorff_alpha(units, given, level) for level in Level}
        rows.append(
            {
                "question": question,
                "scale": str(scale),
                "num_units": int((sizes >= 2).sum()),
                "num_votes": int(sizes[sizes >= 2].sum()),
                **alphas,
            }
        )
    return rows


def _kappas(verdicts: Verdicts, people: Sequence[str]) -> list[dict[str, Any]]:
    """Return Cohen's kappa of every two annotators on the pairs both judged, those who share most first."""
    annotators = verdicts.of_votes(numbered((vote.annotator for vote in verdicts.votes), people))
    keys: dict[tuple[Pair, str, Scale], int] = {}
    units = []
    for number, vote_number in zip(verdicts.pair.tolist(), verdicts.vote.tolist(), strict=True):
        vote = verdicts.votes[vote_number]
        units.append(keys.setdefault((verdicts.pairs[number], vote.question, vote.scale), len(keys)))
    cells = np.stack([annotators, np.array(units, dtype=np.intp)])
    _, once = np.unique(cells, axis=1, return_index=True)  # the first of several orders that hold the same pair
    once = once[annotators[once] >= 0]
    found = cohen_kappas(cells[1, once], cells[0, once], verdicts.outcome[once])
    found.sort(key=lambda kappa: (-kappa.num_shared, kappa.first, kappa.second))
    return [
        {
            "first": people[entry.first],
            "second": people[entry.second],
            "num_shared": entry.num_shared,
            "kappa": entry.kappa,
        }
        for entry in found
    ]
