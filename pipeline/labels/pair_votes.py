"""What each vote says about a pair: the verdicts of people, before anything is aggregated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.ingest import IngestConfig
from pipeline.labels.verdicts import Pair, read_verdicts
from pipeline.labels.votes import Item, Status, Vote, candidate_id, item_id

OUTCOMES = {1: 1.0, 0: 0.5, -1: 0.0}  # first better, neither, second better


@dataclass(frozen=True, kw_only=True)
class PairVotes:
    """The votes on one pair. A score of 1 says that the first of the pair is better, 1/2 that neither is."""

    pair: Pair
    scores: list[float]  # one per vote, in the order of the file
    annotators: list[str | None]

    @property
    def mean(self) -> float:
        """Return the mean score."""
        return sum(self.scores) / len(self.scores)

    @property
    def majority(self) -> float:
        """Return what most say: 1, 0, or 1/2 where neither side has more votes than the other."""
        return 0.5 if self.mean == 0.5 else float(self.mean > 0.5)


def votes_on_pairs(votes: Sequence[Vote]) -> dict[Pair, PairVotes]:
    """Return the pairs on which there are votes that count, in the order in which they were first judged."""
    counting = [vote for vote in votes if vote.status is Status.submitted and not vote.gold]
    verdicts = read_verdicts(counting, min_rating_gap=IngestConfig().min_rating_gap)
    found: dict[Pair, PairVotes] = {}
    for index, vote, outcome in zip(verdicts.pair, verdicts.vote, verdicts.outcome, strict=True):
        pair = verdicts.pairs[index]
        entry = found.setdefault(pair, PairVotes(pair=pair, scores=[], annotators=[]))
        entry.scores.append(OUTCOMES[int(outcome)])
        entry.annotators.append(counting[vote].annotator)
    return found


def pair_of(prompt: Sequence[Mapping[str, str]], first: str, second: str) -> tuple[Pair, bool]:
    """Return the pair that two completions of a prompt are, and whether they stand in it the other way round."""
    ids = [candidate_id([{"role": "assistant", "content": text}]) for text in (first, second)]
    ordered = sorted(ids)
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in prompt]
    return Pair(item_id(turns), ordered[0], ordered[1]), ids != ordered  # type: ignore[arg-type]


def text_of(item: Item, candidate: str) -> str | None:
    """Return a candidate's text, or None where it is more than one turn."""
    turns = item.candidates[candidate].messages
    return turns[0]["content"] if len(turns) == 1 else None
