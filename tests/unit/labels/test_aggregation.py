"""Votes become comparisons. The expected probabilities are shares counted by hand or closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.config.ingest import Aggregation, IngestConfig, Ties
from pipeline.data.rows import Comparison
from pipeline.labels.aggregation import Aggregated, aggregate
from pipeline.labels.votes import Status
from tests.made_votes import Ballots

METHODS = list(Aggregation)


def run(ballots: Ballots, set_aside: tuple[str, ...] = (), **config: Any) -> Aggregated:
    result = aggregate(ballots.items, ballots.votes, IngestConfig(**config), set_aside)
    counts = result.counts
    given, judged = counts["votes"]["given"], counts["pairs"]["judged"]
    assert given == len(ballots.votes) == sum(counts["votes"].values()) - given
    assert judged == sum(counts["pairs"].values()) - judged
    assert counts["pairs"]["comparisons"] == len(result.comparisons) == sum(counts["comparisons"].values())
    return result


def rows(result: Aggregated) -> dict[str, Comparison]:
    """Return the rows by what they say, as "A>B"."""
    return {
        f"{entry.row.chosen[0]['content'][0]}>{entry.row.rejected[0]['content'][0]}": entry.row
        for entry in result.comparisons
    }


def pair(votes: str) -> Ballots:
    """Return one item with one vote per letter: A and B for a side, T for a tie."""
    ballots = Ballots()
    item = ballots.item("AB", topic="sums")
    for letter in votes:
        ballots.vote(item, {"A": "AB", "B": "BA", "T": "A=B"}[letter])
    return ballots


@pytest.mark.parametrize(
    ("votes", "ties", "expected"),
    [
        ("A", "half", ("A>B", 1.0, 1, None)),
        ("AAB", "half", ("A>B", 2 / 3, 3, None)),
        ("BBT", "half", ("B>A", 2.5 / 3, 3, None)),
        ("AABT", "half", ("A>B", 2.5 / 4, 4, None)),
        ("AABT", "drop", ("A>B", 2 / 3, 3, None)),
        ("AABT", "label", ("A>B", 2.5 / 4, 4, 1 / 4)),  # P(A) 1/2, P(tie) 1/4, P(B) 1/4
        ("AB", "half", None),
        ("T", "half", None),
        ("T", "drop", None),
        ("AB", "label", None),  # no side is better, and nobody said that they are equal
        ("AABBT", "label", None),  # either side is likelier than the tie
        ("T", "label", (None, 0.5, 1, 1.0)),
        ("ABT", "label", (None, 0.5, 3, 1 / 3)),  # a tie is as likely as either
    ],
)
def test_majority(votes: str, ties: str, expected: tuple[str | None, float, int, float | None] | None) -> None:
    result = run(pair(votes), ties=Ties(ties))
    if expected is None:
        assert result.comparisons == []
        left_out = result.counts["pairs"]["undecided"] + result.counts["pairs"]["too_few_votes"]
        assert left_out == 1
        return
    preference, confidence, num_votes, tie = expected
    ((key, row),) = rows(result).items()
    assert key == preference or preference is None
    assert row.confidence == pytest.approx(confidence)
    assert (row.num_votes, row.tie, row.margin) == (num_votes, tie, None)
    assert (row.source, row.licence, row.topic, row.fold) == ("made", "CC0-1.0", "sums", None)


def test_ties_that_are_dropped_are_counted() -> None:
    assert run(pair("AATT"), ties=Ties.drop).counts["votes"]["ties_dropped"] == 2
    result = run(pair("TT"), ties=Ties.drop)
    assert (result.counts["votes"]["counted"], result.counts["pairs"]["too_few_votes"]) == (0, 1)
    assert run(pair("AATT")).counts["verdicts"] == {"decided": 2, "ties": 2}


def test_a_comparison_keeps_its_id_whoever_wins() -> None:
    ids = {row.id for votes in ("A", "B") for row in rows(run(pair(votes))).values()}
    assert len(ids) == 1
    other = Ballots()
    other.vote(other.item("AC"), "AC")
    assert not ids & {row.id for row in rows(run(other)).values()}


@pytest.mark.parametrize(("min_votes", "num_rows"), [(3, 1), (4, 0)])
def test_pairs_with_too_few_votes_are_no_comparisons(min_votes: int, num_rows: int) -> None:
    result = run(pair("AAB"), min_votes=min_votes)
    assert (len(result.comparisons), result.counts["pairs"]["too_few_votes"]) == (num_rows, 1 - num_rows)


def test_margins_are_mean_differences_for_the_chosen_side() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    ballots.rate(item, "ann", A=4, B=1)
    ballots.rate(item, "bob", A=3, B=2)
    ballots.rate(item, "cem", A=1, B=2)
    ballots.rate(item, "dan", A=2, B=2)
    row = rows(run(ballots))["A>B"]
    assert row.margin == pytest.approx((3 + 1 - 1 + 0) / 4)
    assert row.confidence == pytest.approx(2.5 / 4)
    # With ties dropped the fourth says nothing, of the margin neither.
    assert rows(run(ballots, ties=Ties.drop))["A>B"].margin == pytest.approx(1.0)
    # Few strong votes that were outvoted pull the other way.
    ballots.rate(item, "eve", A=0, B=9)
    ballots.rate(item, "fay", A=5, B=4)
    assert rows(run(ballots))["A>B"].margin == pytest.approx((3 + 1 - 1 + 0 - 9 + 1) / 6)


def test_margins_of_strengths() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    ballots.vote(item, "BA", strength=3.0)
    ballots.vote(item, "BA", strength=1.0)
    ballots.vote(item, "A=B")
    ballots.vote(item, "AB")  # a preference of unknown strength says nothing of it
    assert rows(run(ballots))["B>A"].margin == pytest.approx(4 / 3)


def test_an_order_weighs_as_much_as_one_vote() -> None:
    ballots = Ballots()
    item = ballots.item("ABC")
    ballots.vote(item, "ABC", "ann")
    assert set(rows(run(ballots))) == {"A>B", "A>C", "B>C"}
    ballots.vote(item, "BA", "bob")
    row = rows(run(ballots))["B>A"]  # a whole vote against a third of one
    assert (row.confidence, row.num_votes) == (pytest.approx(3 / 4), 2)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_count_changes_nothing(method: Aggregation) -> None:
    def row(ballots: Ballots) -> Comparison:
        return rows(run(ballots, ("bad",), aggregation=method, questions=[""]))["A>B"]

    ballots = pair("AAB")
    alone = row(ballots)
    item = next(iter(ballots.items))
    for status in Status:
        if status is not Status.submitted:
            ballots.vote(item, "BA", status=status)
    ballots.vote(item, "BA", gold=True)
    ballots.vote(item, "BA", "bad")
    ballots.vote(item, "BA", question="style")
    ballots.rate(item, A=1)
    ballots.rate(item, "ann", A=None, B=3)
    assert row(ballots) == alone
    counts = run(ballots, ("bad",), questions=[""]).counts["votes"]
    assert counts == {
        "given": 15, "other_question": 1, "skipped": 1, "draft": 1, "discarded": 1, "prediction": 1, "refused": 1,
        "superseded": 1, "invalid": 1, "gold": 1, "set_aside": 1, "over_cap": 0, "counted": 3, "single_candidate": 1,
        "no_verdict": 1, "same_pair": 0, "ties_dropped": 0,
    }  # fmt: skip
    # Negative control: the same vote submitted, and the result is another.
    ballots.vote(item, "AB")
    assert row(ballots) != alone


def test_completions_that_say_the_same_are_a_problem_with_a_code() -> None:
    ballots = pair("A")
    item = next(iter(ballots.items))
    same = ballots.candidate(item, "A")
    ballots.vote(item, "AB", candidates=(same, same), ranks=(1, 2))
    result = run(ballots)
    assert [(entry["reason"], entry["item"], entry["votes"]) for entry in result.problems] == [
        ("E_SAMEPAIR", item, ["v1"])
    ]
    assert (result.counts["pairs"]["same_pair"], result.counts["votes"]["same_pair"]) == (1, 1)
    assert len(result.comparisons) == 1


def test_a_completion_without_visible_text_is_judged_and_never_trained_on() -> None:
    ballots = pair("A")
    item = ballots.item(["A", "\u200b"], "another question")
    blank = next(one.id for one in ballots.items[item].candidates.values() if one.messages[0]["content"] != "A")
    ballots.vote(item, "A", "ann", candidates=(ballots.candidate(item, "A"), blank), ranks=(1, 2))
    result = run(ballots)
    assert [entry["reason"] for entry in result.problems] == ["E_EMPTY"]
    assert (result.counts["pairs"]["empty"], result.counts["votes"]["counted"], len(result.comparisons)) == (1, 2, 1)


def test_one_vote_per_pair_leaves_dawid_skene_its_prior() -> None:
    ballots = Ballots()
    for number in range(50):
        ballots.vote(ballots.item("ABCD", f"question {number}"), "ABCD")
    result = run(ballots, aggregation=Aggregation.dawid_skene)
    assert len(result.comparisons) == 300
    assert all(entry.row.confidence == pytest.approx(0.7, abs=0.01) for entry in result.comparisons)


def test_protected_prompts_are_told_apart() -> None:
    ballots = pair("A")
    ballots.vote(ballots.item("AB", "of the test", protected=True), "AB")
    result = run(ballots)
    assert [entry.protected for entry in result.comparisons] == [False, True]
    assert result.counts["comparisons"] == {"auto": 1, "test": 1}


def test_a_cap_per_annotator_does_not_go_by_the_order_of_the_votes() -> None:
    ballots = Ballots()
    for number in range(40):
        item = ballots.item("AB", f"question {number}")
        ballots.vote(item, "AB", "busy")
        if number < 3:
            ballots.vote(item, "AB", "idle")
    one = run(ballots, max_votes_per_annotator=10)
    assert (one.counts["votes"]["over_cap"], one.counts["votes"]["counted"]) == (30, 13)
    ballots.votes.reverse()
    other = run(ballots, max_votes_per_annotator=10)
    assert {entry.row.id: entry.row.num_votes for entry in one.comparisons} == {
        entry.row.id: entry.row.num_votes for entry in other.comparisons
    }
    # Negative control: another seed chooses others. Votes without a name have no cap.
    seeded = run(ballots, max_votes_per_annotator=10, seed=1)
    assert {entry.row.id for entry in seeded.comparisons} != {entry.row.id for entry in one.comparisons}
    assert run(pair("AAAA"), max_votes_per_annotator=1).counts["votes"]["over_cap"] == 0


def test_bradley_terry_lets_an_item_s_other_votes_speak() -> None:
    ballots = Ballots()
    item = ballots.item("ABC")
    for _ in range(4):
        ballots.vote(item, "AB")
        ballots.vote(item, "BC")
    ballots.vote(item, "CA")  # against the current: four votes each say A over B over C
    found = rows(run(ballots, aggregation=Aggregation.bradley_terry))
    assert set(found) == {"A>B", "B>C", "A>C"}
    assert found["A>C"].num_votes == 1
    assert rows(run(ballots))["C>A"].confidence == 1.0  # the majority of that pair alone
    # One vote alone: 1 / (1 + e^d) = d / 18 at d = 2.051.
    (row,) = rows(run(pair("A"), aggregation=Aggregation.bradley_terry)).values()
    assert row.confidence == pytest.approx(1 / (1 + math.exp(-2.0512)), abs=1e-4)


def test_dawid_skene_believes_who_proves_reliable() -> None:
    ballots = Ballots()
    for number in range(30):
        item = ballots.item("AB", f"question {number}")
        ballots.vote(item, "AB", "ann")
        ballots.vote(item, "AB", "bob")
        ballots.vote(item, "BA" if number % 2 else "AB", "coin")
    item = ballots.item("AB", "the last question")
    ballots.vote(item, "AB", "ann")
    ballots.vote(item, "BA", "coin")
    assert run(ballots).counts["pairs"]["undecided"] == 1
    result = run(ballots, aggregation=Aggregation.dawid_skene)
    last = next(entry.row for entry in result.comparisons if entry.row.prompt[0]["content"] == "the last question")
    assert last.chosen[0]["content"] == "A"
    assert last.confidence > 0.85
    accuracies = {name: learned["accuracy"] for name, learned in result.annotators.items()}
    assert accuracies["ann"] > 0.9
    assert accuracies["coin"] == pytest.approx(0.5, abs=0.1)
    assert result.annotators["coin"]["num_votes"] == 31
    assert result.counts["fit"]["converged"]


def test_dawid_skene_gives_ties_a_probability() -> None:
    ballots = Ballots()
    for number in range(20):
        item = ballots.item("AB", f"question {number}")
        for name in ("ann", "bob", "cem"):
            ballots.vote(item, "A=B" if number < 5 else "AB", name)
    labelled = run(ballots, aggregation=Aggregation.dawid_skene, ties=Ties.label)
    ties = [entry.row for entry in labelled.comparisons if entry.row.tie is not None and entry.row.tie > 0.9]
    assert len(ties) == 5
    assert all(row.confidence == 0.5 for row in ties)
    assert all(row.confidence > 0.9 for row in (entry.row for entry in labelled.comparisons) if row not in ties)
    assert run(ballots, aggregation=Aggregation.dawid_skene).counts["pairs"]["undecided"] == 5


@pytest.mark.parametrize("method", METHODS)
def test_order_of_votes_and_no_votes(method: Aggregation) -> None:
    ballots = pair("AABAT")
    forwards = rows(run(ballots, aggregation=method))["A>B"]
    ballots.votes.reverse()
    assert rows(run(ballots, aggregation=method))["A>B"].confidence == pytest.approx(forwards.confidence, abs=1e-12)
    assert run(Ballots(), aggregation=method).comparisons == []
