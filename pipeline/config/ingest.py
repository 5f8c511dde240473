"""How votes become comparisons and labelled completions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.fields import option


class Aggregation(StrEnum):
    """How several votes on one pair become one probability."""

    majority = "majority"  # the share of votes
    dawid_skene = "dawid_skene"  # votes weighed by how reliable each annotator proves to be
    bradley_terry = "bradley_terry"  # strengths of an item's candidates, from all its rankings, ratings and pairs


class Ties(StrEnum):
    """What a vote for "equally good" is."""

    half = "half"  # half a vote for each side
    label = "label"  # a third outcome, whose probability the comparison carries
    drop = "drop"  # no vote


@dataclass(kw_only=True)
class QualityConfig:
    """Floors below which an annotator is set aside, each judged by a confidence bound so that few votes condemn nobody.

    Null turns a floor off. Who is set aside is listed with the reason; `keep` brings an annotator back.
    """

    min_votes: int = option(20, ge=1)  # with fewer an annotator is never set aside
    min_gold_accuracy: float | None = option(0.7, ge=0, le=1)  # on votes with a known answer
    min_agreement: float | None = option(0.6, ge=0, le=1)  # with the others' majority, ties left out
    max_side_share: float | None = option(0.9, ge=0.5, le=1)  # of votes for one screen position
    min_median_seconds: float | None = option(1.0, ge=0)  # per vote
    confidence: float = option(0.95, gt=0.5, lt=1)  # of the bound that must lie beyond the floor
    keep: list[str] = option(factory=list)  # annotators who stay whatever the floors say
    set_aside: list[str] = option(factory=list)  # annotators whose votes do not count


@dataclass(kw_only=True)
class IngestConfig:
    """How annotation exports become comparisons, and completions that are good or bad, with a confidence."""

    seed: int = option(0, ge=0)
    aggregation: Aggregation = Aggregation.majority
    ties: Ties = Ties.half
    min_votes: int = option(1, ge=1)  # a pair, or a completion by itself, with fewer votes makes no row
    min_rating_gap: float = option(0.0, ge=0)  # a smaller difference between two ratings is a tie
    # Ratings that make a completion good or bad by itself, in the file's own unit; between the two it is neither. Null:
    # only thumbs do.
    min_good_rating: float | None = None
    max_bad_rating: float | None = None
    questions: list[str] = option(factory=list)  # of exports that ask several; empty is all of them
    quality: QualityConfig = option(factory=QualityConfig)
    max_votes_per_annotator: int | None = option(None, ge=1)  # chosen by hash
    # Bad records are set aside with a reason; more than this share of a source stops the run.
    max_quarantined_fraction: float = option(0.02, ge=0, le=1, affects_results=False)


def ingest_problems(ingest: IngestConfig) -> Iterator[str]:
    """Yield what contradicts in the section."""
    good, bad = ingest.min_good_rating, ingest.max_bad_rating
    if (good is None) != (bad is None):
        yield f"ingest.min_good_rating={good} and ingest.max_bad_rating={bad} go together. Set both, or none."
    elif good is not None and bad is not None and good <= bad:
        yield f"ingest.min_good_rating={good:g} must be above ingest.max_bad_rating={bad:g}."
