"""What judges add to a report: the win rate of every pair of policies, and who may be believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from pipeline.artifacts.hashing import sha256_text
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.judges import JudgeConfig
from pipeline.evaluation.joining import PolicySamples
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.outcomes import Outcome, outcomes_of
from pipeline.evaluation.rated_votes import rating_entries_of
from pipeline.evaluation.samples import GenerationSample
from pipeline.evaluation.scorecards import shortcomings
from pipeline.evaluation.verdicts import VerdictRow
from pipeline.evaluation.win_rates import win_rate_entry
from pipeline.statistics.judge_correction import Confusion

NO_VOTES = "there are no human votes to measure it against: set `inputs.evaluate.labels`"
NOT_APPLICABLE = (
    "it goes by references, and the pairs that people judged have none, so nothing says how far to trust it"
)
PEOPLE = "people's votes are what other judges are measured against"


@dataclass(frozen=True, kw_only=True)
class JudgedPolicies:
    """The rows of one judge on one suite, about one policy or about two side by side."""

    judge: str
    suite: str
    policies: list[str]
    rows: Sequence[VerdictRow]


@dataclass(frozen=True, kw_only=True)
class SealedCard:
    """The scorecard of a judge; of one that goes by the checks of a suite there is one per suite."""

    judge: str
    suite: str | None
    content: Mapping[str, Any]
    base: str | None  # digest of the model that judged


def judge_entries(
    judges: Mapping[str, JudgeConfig],
    cards: Sequence[SealedCard],
    evaluate: EvaluateConfig,
    bases: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the judges as a report holds them, each with its scorecard and whether it may decide anything.

    Args:
        judges: Their configurations, by name.
        cards: What was measured of them.
        evaluate: What is asked of a judge.
        bases: Digests of the base models of the policies.
    """
    entries = []
    for name, config in judges.items():
        judge = build_judge(config)
        own: list[SealedCard | None] = [card for card in cards if card.judge == name]
        for card in own or [None]:
            if judge.is_people:
                reasons = []
            elif card is None:
                reasons = [NO_VOTES]
            elif not card.content["applies"]:
                reasons = [NOT_APPLICABLE]
            else:
                reasons = shortcomings(judge, card.content["card"], evaluate.qualification)
            entries.append(
                {
                    "name": name,
                    "kind": config.kind,
                    "description": config.description,
                    "suite": card.suite if card else None,  # null: it is the same judge on every suite
                    "is_people": judge.is_people,
                    "applies": card is None or card.content["applies"],
                    "qualified": not reasons,
                    "reasons": reasons or ([PEOPLE] if judge.is_people else []),
                    "ratings": rating_entries_of(card.content["card"] if card else {}, evaluate.qualification),
                    # A judge that shares the policies' base may prefer its own kind of text.
                    "self_family": card.base in bases if card and card.base else None,
                    "card": card.content["card"] if card else {},
                    "reliability": card.content["reliability"] if card else [],
                    "kinds": card.content["kinds"] if card else {},
                }
            )
    return entries


def is_qualified(entries: Sequence[Mapping[str, Any]], judge: str, suite: str) -> bool:
    """Whether a judge may decide something on a suite."""
    own = [entry for entry in entries if entry["name"] == judge and entry["suite"] in (None, suite)]
    return bool(own) and all(entry["qualified"] for entry in own)


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """What one judge said of two policies on one suite; the later policy is named first."""

    suite: str
    judge: str
    policy: str
    opponent: str
    outcomes: Sequence[Outcome]  # of the items of which both have a completion
    own: Sequence[GenerationSample]  # all items
    others: Sequence[GenerationSample]  # the opponent's


def compared_pairs(
    judged: Sequence[JudgedPolicies], samples: Sequence[PolicySamples], evaluate: EvaluateConfig
) -> list[ComparedPair]:
    """Return every pair of policies by suite and judge; the baseline is always the opponent."""
    rows = {(entry.suite, entry.policy): _generated(entry.rows) for entry in samples}
    policies = list(dict.fromkeys(entry.policy for entry in samples))
    policies.sort(key=lambda policy: policy != evaluate.baseline)  # stable: the others keep their order
    pairs = []
    for suite, judge in dict.fromkeys((entry.suite, entry.judge) for entry in judged):
        parts = [(entry.policies, entry.rows) for entry in judged if (entry.suite, entry.judge) == (suite, judge)]
        for opponent, policy in combinations(policies, 2):
            about = [part for part in parts if set(part[0]) <= {policy, opponent}]
            pairs.append(
                ComparedPair(
                    suite=suite, judge=judge, policy=policy, opponent=opponent,
                    outcomes=outcomes_of(about, (policy, opponent)),
                    own=rows[suite, policy], others=rows[suite, opponent],
                )
            )  # fmt: skip
    return pairs


def win_rates(
    pairs: Sequence[ComparedPair], judges: Sequence[Mapping[str, Any]], evaluate: EvaluateConfig
) -> list[dict[str, Any]]:
    """Return the win rate of every pair of policies by suite and judge.

    Args:
        pairs: What judges said.
        judges: Entries of `judge_entries`.
        evaluate: The confidence of the intervals, and how many verdicts may be missing.
    """
    people = {entry["name"] for entry in judges if entry["is_people"]}
    return [
        {
            "suite": pair.suite,
            "judge": pair.judge,
            "qualified": is_qualified(judges, pair.judge, pair.suite),
            "policy": pair.policy,
            "opponent": pair.opponent,
            **win_rate_entry(
                pair.outcomes,
                pair.own,
                pair.others,
                confidence=evaluate.confidence,
                max_failure_rate=evaluate.qualification.max_failure_rate,
                confusion=_confusion(judges, pair.judge, pair.suite),
                voted=_votes(pairs, pair, people),
            ),
        }
        for pair in pairs
    ]


@dataclass(frozen=True, kw_only=True)
class JudgedWins:
    """How each policy fares against the baseline in the eyes of a judge, item by item."""

    suite: str
    judge: str
    qualified: bool
    against: dict[str, str]  # what two runs must have in common: the judge, and what it compared with
    wins: dict[str, dict[str, float]]  # policy -> item -> in [0, 1]; the baseline has one half


def wins_by_item(
    pairs: Sequence[ComparedPair],
    judges: Mapping[str, JudgeConfig],
    entries: Sequence[Mapping[str, Any]],
    samples: Sequence[PolicySamples],
    evaluate: EvaluateConfig,
) -> list[JudgedWins]:
    """Return what judges said of every policy beside the baseline; items without a verdict are left out."""
    found: dict[tuple[str, str], JudgedWins] = {}
    artifacts = {(entry.suite, entry.policy): entry.artifact for entry in samples}
    for pair in pairs:
        if pair.opponent != evaluate.baseline:
            continue
        own = found.setdefault(
            (pair.suite, pair.judge),
            JudgedWins(
                suite=pair.suite,
                judge=pair.judge,
                qualified=is_qualified(entries, pair.judge, pair.suite),
                against={
                    "judge": sha256_text(repr(replace(judges[pair.judge], description=""))),
                    "completions": artifacts[pair.suite, pair.opponent],
                },
                wins={pair.opponent: {row.id: 0.5 for row in pair.others}},
            ),
        )
        own.wins[pair.policy] = {outcome.id: outcome.win for outcome in pair.outcomes if outcome.win is not None}
    return list(found.values())


def _votes(pairs: Sequence[ComparedPair], pair: ComparedPair, people: Collection[str]) -> Sequence[Outcome]:
    """Return what people said of the same two policies; nothing where the judge is people."""
    if pair.judge in people:
        return ()
    same = (pair.suite, pair.policy, pair.opponent)
    return next(
        (one.outcomes for one in pairs if one.judge in people and (one.suite, one.policy, one.opponent) == same), ()
    )


def _confusion(judges: Sequence[Mapping[str, Any]], judge: str, suite: str) -> Confusion | None:
    """Return how often a judge was right on pairs that it and most people decide; None where nobody measured it.

    Which completion of a voted pair stands first means nothing, so every pair is one that the first wins, and turned
    round one that the second wins: the judge errs alike on both. Counted twice, a pair widens what is known of the
    errors more than it should, never less.
    """
    measured = [
        entry["card"]["accuracy_where_both_decide"]
        for entry in judges
        if entry["name"] == judge and entry["suite"] in (None, suite) and "accuracy_where_both_decide" in entry["card"]
    ]
    if not measured or measured[0]["estimate"] is None:
        return None
    n = int(measured[0]["n"])
    right = round(n * measured[0]["estimate"])
    return Confusion(true_positives=right, positives=n, true_negatives=right, negatives=n)


def _generated(rows: Sequence[Any]) -> list[GenerationSample]:
    return [row for row in rows if isinstance(row, GenerationSample)]
