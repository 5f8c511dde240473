"""From votes to comparisons with a confidence: the probability that the stated preference is right.

Every method gives a pair three probabilities: that its first completion is better, that its second is, and that they
are equally good. `confidence` is that of the likelier side plus half that of a tie, whatever `ties` says, so that it
means one thing. At exactly one half nobody can say which side to train on, and the pair is counted as undecided; with
ties as a label it is kept where a tie is at least as likely as either side, because that is a result.

- `majority`: shares of votes.
- `dawid_skene`: votes weighed by how reliable each annotator proves to be, over all items together. Votes without a
  name share one confusion matrix: they are a crowd. With one vote per pair it knows no more than its prior.
- `bradley_terry`: strengths of all candidates of an item, from every vote on it, ties as half a win for each. It knows
  no ties, so with ties as a label the tie's probability is its share of the pair's votes.

Votes on several questions of one item are votes on the same pairs; `ingest.questions` chooses between them. `margin` is
the mean difference of ratings or strengths in favour of the chosen side, over the votes that state one and the ties; it
is negative where few strong votes were outvoted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.ingest import Aggregation, IngestConfig, Ties
from pipeline.data.rows import Comparison, Reason
from pipeline.labels.probabilities import (
    UNDECIDED,
    Flags,
    Shares,
    mean_margins,
    reliable_shares,
    strength_shares,
    vote_shares,
)
from pipeline.labels.thumbs import AggregatedThumb, aggregate_thumbs
from pipeline.labels.verdicts import Fate, Pair, Vector, Verdicts, read_verdicts, select_questions
from pipeline.labels.votes import Item, Status, Vote, says_nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregatedPair:
    """A comparison and whether its prompt is protected, so that it may only be tested on."""

    row: Comparison
    protected: bool


@dataclass(kw_only=True)
class Aggregated:
    """What the votes say together, and what became of each of them.

    In ``counts``, the parts of ``votes`` and of ``pairs`` each sum to their first entry, and so do those of ``thumbs``
    and of ``completions``, which are there where completions were judged by themselves.
    """

    comparisons: list[AggregatedPair] = field(default_factory=list)
    unpaired: list[AggregatedThumb] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    # Dawid-Skene only: how reliable each annotator proved to be; "" is the crowd of those without a name.
    annotators: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


def aggregate(
    items: Mapping[str, Item], votes: Sequence[Vote], config: IngestConfig, set_aside: Collection[str]
) -> Aggregated:
    """Return the comparisons and the labelled completions that votes amount to.

    Args:
        items: What was judged, by id.
        votes: Of every status; only submitted ones that are not gold count.
        config: How they are aggregated.
        set_aside: Annotators whose votes do not count.

    Raises:
        ConfigError: A question that was chosen was never asked.
    """
    counting, fates = _counting(votes, config, set_aside)
    verdicts = read_verdicts(counting, min_rating_gap=config.min_rating_gap)
    evidence = verdicts.outcome != 0 if config.ties is Ties.drop else np.ones(len(verdicts.outcome), dtype=bool)
    fates.update(_fates_of_counting(verdicts, evidence))
    num_votes = np.bincount(verdicts.pair[evidence], minlength=len(verdicts.pairs))
    shares = vote_shares(verdicts, evidence)
    result = Aggregated()
    fit: dict[str, Any] = {}
    if config.aggregation is Aggregation.dawid_skene:
        shares, result.annotators, fit = reliable_shares(verdicts, evidence)
    elif config.aggregation is Aggregation.bradley_terry:
        shares = strength_shares(verdicts, evidence, shares)
    margins = mean_margins(verdicts, evidence)
    found: Counter[str] = Counter(dict.fromkeys(("same_pair", "empty", "too_few_votes", "undecided", "comparisons"), 0))
    for index, pair in enumerate(verdicts.pairs):
        if _is_empty(items[pair.item], pair):
            found["empty"] += 1
            result.problems.append(_empty_problem(pair))
            continue
        if num_votes[index] < config.min_votes:
            found["too_few_votes"] += 1
            continue
        row = _comparison(items[pair.item], pair, index, shares, margins, config, int(num_votes[index]))
        found["comparisons" if row else "undecided"] += 1
        if row:
            result.comparisons.append(AggregatedPair(row=row, protected=items[pair.item].protected))
    found["same_pair"] = len(verdicts.same_pairs)
    result.problems += [_same_pair_problem(pair, ids) for pair, ids in verdicts.same_pairs.items()]
    protected = sum(entry.protected for entry in result.comparisons)
    thumbs = aggregate_thumbs(items, counting, config)
    result.unpaired = thumbs.rows
    result.problems += thumbs.problems
    result.counts = {
        "votes": {"given": len(votes), **fates},
        "pairs": {"judged": sum(found.values()), **found},
        "comparisons": {"auto": len(result.comparisons) - protected, "test": protected},
        "verdicts": {"decided": int((verdicts.outcome != 0).sum()), "ties": int((verdicts.outcome == 0).sum())},
        **({"fit": fit} if fit else {}),
        **({"thumbs": thumbs.votes, "completions": thumbs.completions} if thumbs.votes else {}),
    }
    return result


def comparison_id(pair: Pair) -> str:
    """Return 16 hex digits that depend on the prompt and the two texts, and not on which of them won."""
    return hashlib.sha256("\n".join(pair).encode()).hexdigest()[:16]


def _counting(
    votes: Sequence[Vote], config: IngestConfig, set_aside: Collection[str]
) -> tuple[list[Vote], dict[str, int]]:
    """Return the votes that count, and how many do not, by the first reason that applies."""
    selected = select_questions(votes, config)
    fates = {"other_question": len(votes) - len(selected)}
    fates.update(dict.fromkeys([str(status) for status in Status if status is not Status.submitted], 0))
    fates.update(gold=0, set_aside=0, over_cap=0)
    counting = []
    for vote in selected:
        if vote.status is not Status.submitted:
            fates[vote.status] += 1
        elif vote.gold:
            fates["gold"] += 1
        elif vote.annotator is not None and vote.annotator in set_aside:
            fates["set_aside"] += 1
        else:
            counting.append(vote)
    kept = _capped(counting, config)
    fates["over_cap"] = len(counting) - len(kept)
    return kept, fates


def _capped(votes: list[Vote], config: IngestConfig) -> list[Vote]:
    """Keep so many votes of each annotator, chosen by hash and not by their order in the file."""
    if config.max_votes_per_annotator is None:
        return votes
    order = [hashlib.sha256(f"{config.seed}\n{vote.source}\n{vote.id}".encode()).digest() for vote in votes]
    taken: Counter[str] = Counter()
    kept = set()
    for index in sorted(range(len(votes)), key=order.__getitem__):
        annotator = votes[index].annotator
        if annotator is None or taken[annotator] < config.max_votes_per_annotator:
            kept.add(index)
        if annotator is not None:
            taken[annotator] += 1
    return [vote for index, vote in enumerate(votes) if index in kept]


def _fates_of_counting(verdicts: Verdicts, evidence: Flags) -> dict[str, int]:
    """Count the votes that could count by what they say about pairs."""
    fates = Counter(str(fate) for fate in verdicts.fates)
    silent = np.zeros(len(verdicts.votes), dtype=bool)
    silent[verdicts.vote] = True
    silent[verdicts.vote[evidence]] = False
    dropped = int(silent[verdicts.read_as].sum())
    counts = {str(fate): fates[fate] for fate in Fate}
    return {**counts, str(Fate.counted): fates[Fate.counted] - dropped, "ties_dropped": dropped}


def _comparison(
    item: Item, pair: Pair, index: int, shares: Shares, margins: Vector, config: IngestConfig, num_votes: int
) -> Comparison | None:
    """Return the row of a pair, or None where nothing says which side is better."""
    tie = float(shares.tie[index])
    first = float(shares.first[index]) + tie / 2
    if abs(first - 0.5) <= UNDECIDED:
        a_tie_won = tie >= max(shares.first[index], shares.second[index]) - UNDECIDED
        if config.ties is not Ties.label or not a_tie_won:
            return None
        first = 0.5
    chosen, rejected = (pair.first, pair.second) if first >= 0.5 else (pair.second, pair.first)
    margin = None if np.isnan(margins[index]) else float(margins[index]) * (1 if first >= 0.5 else -1) + 0.0  # no -0.0
    return Comparison(
        id=comparison_id(pair),
        source=item.source,
        licence=item.licence,
        prompt=item.prompt,
        chosen=item.candidates[chosen].messages,
        rejected=item.candidates[rejected].messages,
        confidence=min(1.0, max(first, 1 - first)),
        num_votes=num_votes,
        margin=margin,
        tie=tie if config.ties is Ties.label else None,
        topic=item.topic,
    )


def _is_empty(item: Item, pair: Pair) -> bool:
    return any(says_nothing(item.candidates[candidate].messages) for candidate in (pair.first, pair.second))


def _empty_problem(pair: Pair) -> dict[str, Any]:
    return {
        "reason": str(Reason.empty),
        "item": pair.item,
        "candidates": [pair.first, pair.second],
        "detail": "one completion of the pair has no visible text; its votes still count for the annotators",
    }


def _same_pair_problem(pair: Pair, ids: list[str]) -> dict[str, Any]:
    return {
        "reason": str(Reason.same_pair),
        "item": pair.item,
        "candidates": [pair.first, pair.second],
        "votes": ids,
        "detail": "both completions of the pair say the same, so no vote on it is a preference",
    }
