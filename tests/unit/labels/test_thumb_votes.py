"""Judgements of single completions become labels. Expected probabilities are shares counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.ingest import Aggregation, IngestConfig, Ties, ingest_problems
from pipeline.labels.aggregation import Aggregated, aggregate
from pipeline.labels.votes import Scale, Status
from tests.made_votes import Ballots
from tests.read_exports import read_export


def run(ballots: Ballots, set_aside: tuple[str, ...] = (), **config: Any) -> Aggregated:
    """Aggregate, and check that both accounts add up."""
    result = aggregate(ballots.items, ballots.votes, IngestConfig(**config), set_aside)
    for name, total in (("thumbs", "given"), ("completions", "judged")):
        account = result.counts[name]
        assert account[total] == sum(account.values()) - account[total]
    assert result.counts["completions"]["unpaired"] == len(result.unpaired)
    return result


def labels(result: Aggregated) -> dict[str, tuple[bool, float, int]]:
    """Return label, confidence and number of votes by the letter of the completion."""
    return {
        entry.row.completion[0]["content"]: (entry.row.label, entry.row.confidence, entry.row.num_votes)
        for entry in result.unpaired
    }


def thumb(ballots: Ballots, item: str, letter: str, rating: float, by: str | None = None, **more: Any) -> None:
    ballots.vote(item, letter, by, ratings={letter: rating}, scale=Scale.thumbs, **more)


def test_shares_of_thumbs_are_labels_with_a_confidence() -> None:
    ballots = Ballots()
    item = ballots.item("ABCD")
    for letter, ratings in {"A": (1, 1, 0), "B": (0,), "C": (1, 0), "D": (0, 0, 0, 1)}.items():
        for rating in ratings:
            thumb(ballots, item, letter, rating)
    result = run(ballots)
    assert labels(result) == {"A": (True, pytest.approx(2 / 3), 3), "B": (False, 1.0, 1), "D": (False, 0.75, 4)}
    assert result.counts["completions"] == {
        "judged": 4, "empty": 0, "too_few_votes": 0, "undecided": 1, "unpaired": 3,
    }  # fmt: skip
    assert result.counts["thumbs"] == {
        "given": 10, "counted": 10, "neither_dropped": 0, "other_scale": 0, "no_verdict": 0,
    }  # fmt: skip
    assert labels(run(ballots, min_votes=3)).keys() == {"A", "D"}


def test_only_votes_that_count_make_labels() -> None:
    ballots = Ballots()
    item = ballots.item("A")
    thumb(ballots, item, "A", 1, "ann")
    thumb(ballots, item, "A", 0, "careless")
    thumb(ballots, item, "A", 0, "eve", status=Status.skipped)
    thumb(ballots, item, "A", 0, "key", gold=True)
    result = run(ballots, ("careless",))
    assert labels(result) == {"A": (True, 1.0, 1)}
    assert result.counts["thumbs"]["given"] == 1
    assert labels(run(ballots)) == {}, "without setting the careless one aside the votes are split"


@pytest.mark.parametrize(
    ("ties", "expected"),
    [("half", {"A": (True, 0.75, 2)}), ("label", {"A": (True, 0.75, 2)}), ("drop", {"A": (True, 1.0, 1)})],
)
def test_ratings_are_thumbs_where_thresholds_say_so(ties: str, expected: dict[str, Any]) -> None:
    """A is called good and neither; B is only called neither, so that nobody can say."""
    ballots = Ballots()
    item = ballots.item("AB")
    ballots.rate(item, A=5)
    ballots.rate(item, A=3)
    ballots.rate(item, B=3)
    result = run(ballots, min_good_rating=4.0, max_bad_rating=2.0, ties=Ties(ties))
    assert labels(result) == expected
    assert result.counts["thumbs"]["neither_dropped"] == (2 if ties == "drop" else 0)
    silent = aggregate(ballots.items, ballots.votes, IngestConfig(), ())
    assert silent.unpaired == []
    assert "thumbs" not in silent.counts


def test_the_thresholds_themselves_are_good_and_bad() -> None:
    ballots = Ballots()
    item = ballots.item("ABCD")
    for letter, rating in {"A": 4.0, "B": 3.0, "C": 2.0, "D": 1.0}.items():
        ballots.rate(item, **{letter: rating})
    result = run(ballots, min_good_rating=4.0, max_bad_rating=2.0)
    assert labels(result) == {"A": (True, 1.0, 1), "C": (False, 1.0, 1), "D": (False, 1.0, 1)}
    assert result.counts["completions"]["undecided"] == 1


def test_labels_of_protected_prompts_are_told_apart() -> None:
    ballots = Ballots()
    thumb(ballots, ballots.item("A"), "A", 1)
    thumb(ballots, ballots.item("A", "of the test", protected=True), "A", 0)
    assert [(entry.row.label, entry.protected) for entry in run(ballots).unpaired] == [(True, False), (False, True)]


def test_a_vote_on_several_completions_says_something_of_each_and_of_their_pair() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    ballots.vote(item, "AB", "ann", ratings={"A": 1.0, "B": 0.0}, scale=Scale.thumbs)
    result = run(ballots)
    assert labels(result) == {"A": (True, 1.0, 1), "B": (False, 1.0, 1)}
    assert [entry.row.chosen[0]["content"] for entry in result.comparisons] == ["A"]


def test_an_empty_completion_is_never_a_row() -> None:
    ballots = Ballots()
    item = ballots.item(["A", "\u200b"])
    empty = next(one.id for one in ballots.items[item].candidates.values() if one.messages[0]["content"] == "\u200b")
    thumb(ballots, item, "A", 1)
    ballots.votes.append(
        type(ballots.votes[0])(
            id="empty", source="made", item=item, annotator=None, question="", scale=Scale.thumbs, candidates=(empty,),
            ranks=(1,), ratings=(0.0,),
        )
    )  # fmt: skip
    result = run(ballots)
    assert (len(result.unpaired), result.counts["completions"]["empty"]) == (1, 1)
    assert [problem["candidates"] for problem in result.problems] == [[empty]]


def test_reliable_annotators_weigh_more() -> None:
    """Five who agree on twenty completions outvote one who says the contrary; a majority gives 5 in 6 everywhere."""
    ballots = Ballots()
    item = ballots.item("ABCDEFGHIJKLMNOPQRST")
    for number, letter in enumerate("ABCDEFGHIJKLMNOPQRST"):
        for person in range(5):
            thumb(ballots, item, letter, number % 2, f"good-{person}")
        thumb(ballots, item, letter, 1 - number % 2, "contrary")
    majority = labels(run(ballots))
    weighed = labels(run(ballots, aggregation=Aggregation.dawid_skene))
    assert {round(confidence, 6) for _, confidence, _ in majority.values()} == {0.833333}
    assert {name: label for name, (label, _, _) in weighed.items()} == {
        letter: bool(number % 2) for number, letter in enumerate("ABCDEFGHIJKLMNOPQRST")
    }
    assert min(confidence for _, confidence, _ in weighed.values()) > 0.95


def test_neither_counts_half_however_votes_are_joined() -> None:
    """Three people call six completions good, six bad and six neither."""
    ballots = Ballots()
    item = ballots.item("ABCDEFGHIJKLMNOPQR")
    for number, letter in enumerate("ABCDEFGHIJKLMNOPQR"):
        for name in ("ann", "bob", "cem"):
            ballots.rate(item, name, **{letter: (5.0, 1.0, 3.0)[number % 3]})
    thresholds = {"min_good_rating": 4.0, "max_bad_rating": 2.0}
    found = labels(run(ballots, aggregation=Aggregation.dawid_skene, **thresholds))
    assert all(found[letter][:2] == (True, pytest.approx(1.0, abs=0.1)) for letter in "ADGJMP")
    assert all(found[letter][:2] == (False, pytest.approx(1.0, abs=0.1)) for letter in "BEHKNQ")
    # What is half to nine digits is undecided, and no row.
    assert all(found.get(letter, (None, 0.5))[1] == pytest.approx(0.5, abs=0.1) for letter in "CFILOR")


def test_every_vote_of_a_real_file_of_thumbs_becomes_a_row(real_data: Path) -> None:
    export = read_export(real_data / "llamafactory/kto_en_demo.json")
    result = aggregate(export.collected.items, export.votes, IngestConfig(), ())
    assert result.counts["thumbs"]["counted"] == 300 == result.counts["thumbs"]["given"]
    labelled = [entry.row.label for entry in result.unpaired]
    assert (len(labelled), sum(labelled)) == (result.counts["completions"]["judged"], 150)


def test_thresholds_go_together() -> None:
    assert list(ingest_problems(IngestConfig(min_good_rating=4.0, max_bad_rating=0.0))) == []
    assert "go together" in next(ingest_problems(IngestConfig(min_good_rating=4.0)))
    assert "above" in next(ingest_problems(IngestConfig(min_good_rating=2.0, max_bad_rating=2.0)))
