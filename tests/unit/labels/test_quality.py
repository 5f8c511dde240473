"""What votes say about annotators, and who is set aside. The expected numbers are counted by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.config.ingest import IngestConfig, QualityConfig
from pipeline.errors import ConfigError
from pipeline.labels.quality import Quality, assess
from pipeline.labels.scorecards import Scorecard
from pipeline.labels.votes import Scale, Status
from tests.made_votes import Ballots


def run(ballots: Ballots, **floors: Any) -> Quality:
    config = IngestConfig(quality=QualityConfig(**({"min_votes": 1} | floors)))
    quality = assess(ballots.items, ballots.votes, config)
    json.dumps(quality.as_dict(), allow_nan=False)  # every number is one that JSON has
    return quality


def card(quality: Quality, annotator: str) -> Scorecard:
    (found,) = (one for one in quality.scorecards if one.annotator == annotator)
    return found


def estimates(entry: dict[str, Any] | None) -> tuple[float, int] | None:
    return entry and (entry["estimate"], entry["n"])


def test_agreement_with_the_majority_of_the_others() -> None:
    ballots = Ballots()
    for number, (ann, bob, cem) in enumerate([("AB", "AB", "AB"), ("AB", "BA", "BA"), ("AB", "BA", "A=B")]):
        item = ballots.item("AB", f"question {number}")
        for name, order in (("ann", ann), ("bob", bob), ("cem", cem)):
            ballots.vote(item, order, name)
    quality = run(ballots)
    # Ann: with both, against both, against Bob alone since Cem's tie is left out. Bob: with both; then Ann and Cem
    # cancel; against Ann. Cem: with both; Ann and Bob cancel; his own tie is left out.
    expected = {"ann": (1 / 3, 3), "bob": (0.5, 2), "cem": (1.0, 1)}
    for name, share in expected.items():
        assert estimates(card(quality, name).as_dict()["agreement"]) == pytest.approx(share)
    assert [card(quality, name).num_ties for name in expected] == [0, 0, 1]


def test_unnamed_voters_are_others_to_each_other_and_have_no_card() -> None:
    ballots = Ballots()
    item = ballots.item()
    for by in ("ann", None, None):
        ballots.vote(item, "AB", by)
    quality = run(ballots)
    assert [one.annotator for one in quality.scorecards] == ["ann"]
    assert estimates(card(quality, "ann").as_dict()["agreement"]) == (1.0, 1)
    assert quality.as_dict()["votes"] == {
        "by_status": {"submitted": 3}, "other_question": 0, "gold": 0, "ties": 0, "annotators": 1, "unnamed": 2,
    }  # fmt: skip


def test_who_judges_a_pair_twice_is_not_one_of_the_others() -> None:
    ballots = Ballots()
    item = ballots.item()
    ballots.vote(item, "AB", "ann")
    ballots.vote(item, "AB", "ann")
    assert card(run(ballots), "ann").agreement is None
    ballots.vote(item, "BA", "bob")
    assert estimates(card(run(ballots), "ann").as_dict()["agreement"]) == (0.0, 2)


def test_what_is_asked_otherwise_is_measured_by_itself() -> None:
    """Ann's first answers are right and her second ones are not, and over both questions she votes in a circle."""
    ballots = Ballots()
    item, circle = ballots.item(), ballots.item("ABC", "another question")
    for question, (ann, bob) in {"helpful": ("AB", "AB"), "harmless": ("AB", "BA")}.items():
        ballots.vote(item, ann, "ann", question=question)
        ballots.vote(item, bob, "bob", question=question)
    ballots.vote(item, "AB", gold=True, question="helpful")
    ballots.vote(item, "BA", gold=True, question="harmless")
    for order, question in (("AB", "helpful"), ("BC", "helpful"), ("CA", "harmless")):
        ballots.vote(circle, order, "ann", question=question)
    quality = run(ballots)
    assert estimates(card(quality, "ann").as_dict()["agreement"]) == (0.5, 2)
    assert estimates(card(quality, "ann").as_dict()["gold"]) == (0.5, 2)
    assert estimates(card(quality, "bob").as_dict()["gold"]) == (1.0, 2)
    assert [cycle["annotator"] for cycle in quality.as_dict()["cycles"]] == [None]  # the votes of all, not hers


def test_known_answers() -> None:
    ballots = Ballots()
    for number in range(4):
        item = ballots.item("AB", f"question {number}")
        ballots.vote(item, "A=B" if number == 3 else "AB", "lead", gold=True)
        ballots.vote(item, "BA" if number == 0 else "AB", "ann")
    item = ballots.item("AB", "a question with two answers")
    ballots.vote(item, "AB", "lead", gold=True)
    ballots.vote(item, "BA", "head", gold=True)
    ballots.vote(item, "AB", "ann")
    quality = run(ballots)
    assert estimates(card(quality, "ann").as_dict()["gold"]) == (0.5, 4)  # wrong, right, right, and no tie
    assert [one.annotator for one in quality.scorecards] == ["ann"]  # who sets the answers is not judged by them
    assert quality.as_dict()["votes"]["gold"] == 6


def test_position_and_length() -> None:
    ballots = Ballots()
    for number, (order, shown) in enumerate([("AB", "AB"), ("BA", "BA"), ("AB", "BA"), ("A=B", "AB")]):
        ballots.vote(ballots.item(["A", "B is longer"], f"question {number}"), order, "ann", shown=shown)
    ballots.vote(ballots.item(["A.", "B."], "of equal length"), "AB")
    quality = run(ballots)
    assert estimates(card(quality, "ann").as_dict()["first_share"]) == pytest.approx((2 / 3, 3))
    assert estimates(card(quality, "ann").as_dict()["longer_share"]) == pytest.approx((1 / 3, 3))
    assert estimates(quality.as_dict()["position_bias"]) == pytest.approx((2 / 3, 3))
    assert estimates(quality.as_dict()["length_bias"]) == pytest.approx((1 / 3, 3))
    nothing = run(Ballots()).as_dict()
    assert (nothing["position_bias"], nothing["length_bias"], nothing["agreement"]) == (None, None, [])


def test_repeats_and_contradictions() -> None:
    ballots = Ballots()
    item, other, third = (ballots.item("AB", f"question {number}") for number in range(3))
    old = {"status": Status.superseded}
    ballots.vote(item, "AB", "ann", **old)
    ballots.vote(item, "BA", "ann")
    ballots.vote(other, "AB", "ann", **old)
    ballots.vote(other, "AB", "ann")
    ballots.vote(third, "A=B", "ann", **old)
    ballots.vote(third, "AB", "ann")
    ballots.vote(item, "AB", "bob")
    ballots.vote(item, "BA", "bob", question="style")  # another question may have another answer
    ballots.vote(other, "BA", "ann", gold=True, **old)  # a known answer that was given again contradicts nobody
    ballots.vote(third, "AB", "ann", ratings={"A": 3.0, "B": 1.0}, **old)
    ballots.vote(third, "AB", "ann", ratings={"A": 2.0, "B": 1.0})  # the same order, and not the same judgement
    quality = run(ballots)
    ann = card(quality, "ann")
    assert (ann.num_votes, ann.num_repeats, ann.num_same) == (4, 4, 1)
    assert quality.as_dict()["contradictions"] == [
        {"item": item, "annotator": "ann", "candidates": sorted(ballots.items[item].candidates), "votes": ["v0", "v1"]}
    ]


def test_cycles() -> None:
    ballots = Ballots()
    item = ballots.item("ABCD")
    for order in ("AB", "BC", "CA", "AD"):
        ballots.vote(item, order, "ann")
        ballots.vote(item, order)
    straight = ballots.item("ABC", "another question")
    for order in ("AB", "BC", "AC"):
        ballots.vote(straight, order, "ann")
    (majority, own) = run(ballots).as_dict()["cycles"]
    assert (majority["item"], majority["annotator"], own["item"], own["annotator"]) == (item, None, item, "ann")
    letters = {key: made.messages[0]["content"] for key, made in ballots.items[item].candidates.items()}
    for cycle in (majority, own):
        said = "".join(letters[key] for key in cycle["candidates"])
        assert said in ("ABC", "BCA", "CAB")  # each beats the next, and D is in no circle
    # Negative control: two votes turn A over C round, and neither circle is left.
    for by in (None, None, None):
        ballots.vote(item, "AC", by)
    assert [cycle["annotator"] for cycle in run(ballots).as_dict()["cycles"]] == ["ann"]


def test_a_circle_of_four_is_found_whole() -> None:
    ballots = Ballots()
    item = ballots.item("ABCD")
    for order in ("AB", "BC", "CD", "DA"):
        ballots.vote(item, order)
    (cycle,) = run(ballots).as_dict()["cycles"]
    assert len(cycle["candidates"]) == 4


def test_cycles_are_those_of_the_votes_that_count() -> None:
    ballots = Ballots()
    item = ballots.item("ABC")
    for order in ("AB", "BC"):
        ballots.vote(item, order)
    ballots.vote(item, "CA", "bad")
    assert len(run(ballots).as_dict()["cycles"]) == 1
    assert run(ballots, set_aside=["bad"]).as_dict()["cycles"] == []


def test_an_order_weighs_one_in_a_majority_too() -> None:
    ballots = Ballots()
    item = ballots.item("ABC")
    ballots.vote(item, "ABC")  # a third each for A over B, A over C and B over C
    assert run(ballots).as_dict()["cycles"] == []
    ballots.vote(item, "CA")  # which outweighs the third for A over C
    assert len(run(ballots).as_dict()["cycles"]) == 1


def test_alpha_of_each_scale() -> None:
    ballots = Ballots()
    item, other = ballots.item("ABC"), ballots.item("ABC", "another question")
    for by, order in (("ann", "AB"), ("bob", "AB"), ("cem", "BA")):
        ballots.vote(item, order, by)
    ballots.vote(other, "BA", "ann")
    ballots.vote(other, "BA", "bob")
    for by, order in (("ann", "ABC"), ("bob", "ACB")):
        ballots.vote(item, order, by, question="order")
    for by, ratings in (("ann", (0, 4)), ("bob", (2, 4))):
        ballots.rate(item, by, A=ratings[0], B=ratings[1])
    rows = {(row["question"], row["scale"]): row for row in run(ballots).as_dict()["agreement"]}
    assert set(rows) == {("", "pairwise"), ("", "rating"), ("order", "ranking")}
    # Two alike and one against, and two alike, of five values. Which side is "first" depends on the hashes: the two
    # sides have three and two votes (chance 2 * 6 / 20) or four and one (2 * 4 / 20); D_o = (2 * 2 / 2) / 5 = 0.4.
    assert (rows["", "pairwise"]["num_units"], rows["", "pairwise"]["num_votes"]) == (2, 5)
    assert rows["", "pairwise"]["alpha_nominal"] in (pytest.approx(1 - 0.4 / 0.6), pytest.approx(1 - 0.4 / 0.4))
    # Places 1 1, 2 3 and 3 2: D_o = 4 / 6; squared differences of all places: 1 1 2 2 3 3 are 8 * 1 + 8 * 1 + 8 * 4.
    assert rows["order", "ranking"]["alpha_interval"] == pytest.approx(1 - (4 / 6) / ((8 + 8 + 32) / 30))
    # Ratings 0 2 | 4 4, as in the test of alpha itself.
    assert rows["", "rating"]["alpha_interval"] == pytest.approx(1 - 24 / 88)
    assert (rows["", "rating"]["num_units"], rows["", "rating"]["num_votes"]) == (2, 4)


def test_thumbs_agree_on_completions() -> None:
    ballots = Ballots()
    for number, (ann, bob) in enumerate([(1.0, 1.0), (0.0, 0.0), (1.0, 0.0)]):
        item = ballots.item("A", f"question {number}")
        for by, rating in (("ann", ann), ("bob", bob)):
            ballots.vote(item, "A", by, ratings={"A": rating}, scale=Scale.thumbs)
    quality = run(ballots).as_dict()
    # D_o = 2 / 6; D_e = 2 * 3 * 3 / 30.
    assert quality["agreement"][0]["alpha_nominal"] == pytest.approx(1 - (2 / 6) / 0.6)
    assert quality["votes"]["ties"] == 0  # a thumb on one completion compares nothing


def test_kappas() -> None:
    ballots = Ballots()
    for number, (ann, bob) in enumerate([("AB", "AB"), ("BA", "BA"), ("A=B", "AB")]):
        item = ballots.item("AB", f"question {number}")
        ballots.vote(item, ann, "ann")
        ballots.vote(item, bob, "bob")
    ballots.vote(item, "AB", "cem")
    quality = run(ballots).as_dict()
    assert [(entry["first"], entry["second"], entry["num_shared"]) for entry in quality["kappa"]] == [
        ("ann", "bob", 3), ("ann", "cem", 1), ("bob", "cem", 1),
    ]  # fmt: skip
    assert quality["num_kappas"] == 3


def many(ballots: Ballots, name: str, *, right: int, wrong: int, **more: Any) -> None:
    """Let an annotator agree and disagree so often with two reliable ones, on items of its own."""
    for number in range(right + wrong):
        item = ballots.item("AB", f"question {number} to {name}")
        for by in ("one", "two"):
            ballots.vote(item, "AB", by, shown="AB" if number % 2 else "BA", seconds=9.0)
        ballots.vote(item, "AB" if number < right else "BA", name, **({"shown": "AB" if number % 2 else "BA"} | more))


@pytest.mark.parametrize(
    ("right", "wrong", "aside"),
    [
        (40, 60, True),  # 0.40: at most 0.48
        (50, 50, True),  # 0.50: at most 0.58 with a confidence of 95 %
        (55, 45, False),  # 0.55 may be 0.63
        (8, 12, True),  # Wilson's upper 95 % bound of 8 in 20 is 0.582
        (9, 11, False),  # and of 9 in 20 0.628
        (0, 19, False),  # as wrong as can be, but fewer votes than it takes
    ],
)
def test_agreement_is_judged_by_its_bound(right: int, wrong: int, aside: bool) -> None:
    ballots = Ballots()
    many(ballots, "ann", right=right, wrong=wrong)
    quality = run(ballots, min_votes=20)
    assert set(quality.set_aside) == ({"ann"} if aside else set())
    if aside:
        (reason,) = quality.set_aside["ann"]
        assert reason.startswith(f"agreement with the others is {right / (right + wrong):.3f} of {right + wrong}: at")
        assert not run(ballots, min_votes=20, min_agreement=None).set_aside
        assert not run(ballots, min_votes=20, keep=["ann"]).set_aside
        assert card(run(ballots, keep=["ann"]), "ann").reasons[-1].startswith("stays")


def test_who_always_takes_the_side_shown_first() -> None:
    ballots = Ballots()
    many(ballots, "left", right=40, wrong=0)
    for vote in [vote for vote in ballots.votes if vote.annotator == "left"]:
        letters = [ballots.items[vote.item].candidates[key].messages[0]["content"] for key in vote.candidates]
        order = "".join(sorted(letters))
        ballots.votes.remove(vote)
        ballots.vote(vote.item, order, "left", shown=order)
        ballots.vote(vote.item, order, "right", shown=order[::-1])
    reasons = run(ballots).set_aside
    assert reasons == {
        "left": ["votes for what is shown first: 1.000 of 40, more than 0.9"],
        "right": ["votes for what is shown first: 0.000 of 40, less than 0.1"],
    }
    assert not run(ballots, max_side_share=None).set_aside


@pytest.mark.parametrize(
    ("fast", "slow", "aside"),
    [(30, 5, True), (20, 15, False), (15, 20, False)],  # 20 of 35 may be half: Wilson's lower 95 % bound is 0.433
)
def test_speeders(fast: int, slow: int, aside: bool) -> None:
    ballots = Ballots()
    for number in range(fast + slow):
        ballots.vote(ballots.item("AB", f"question {number}"), "AB", "ann", seconds=0.5 if number < fast else 30.0)
    quality = run(ballots, max_side_share=None)
    assert card(quality, "ann").as_dict()["median_seconds"] == (0.5 if fast > slow else 30.0)
    assert list(quality.set_aside.values()) == (
        [["the median vote takes 0.50 s, and the floor is 1 s"]] if aside else []
    )


def test_gold_accuracy_sets_aside() -> None:
    ballots = Ballots()
    for number in range(40):
        item = ballots.item("AB", f"question {number}")
        ballots.vote(item, "AB", gold=True)
        ballots.vote(item, "BA" if number % 2 else "AB", "coin")
        ballots.vote(item, "BA" if number % 5 == 0 else "AB", "good")
    reasons = run(ballots, min_agreement=None).set_aside
    assert list(reasons) == ["coin"]  # Wilson's upper bound of 20 in 40 is 0.626, of 32 in 40 0.884
    assert reasons["coin"][0].startswith("accuracy on known answers is 0.500 of 40: at most 0.626")


def test_names_in_the_configuration() -> None:
    ballots = Ballots()
    ballots.vote(ballots.item(), "AB", "ann")
    assert run(ballots, set_aside=["ann"]).set_aside == {"ann": ["named in ingest.quality.set_aside"]}
    with pytest.raises(ConfigError, match=r"ingest\.quality\.set_aside: there is no vote of `anne`\. Did you mean"):
        run(ballots, set_aside=["anne"])
    with pytest.raises(ConfigError, match=r"ingest\.quality\.keep: there is no vote of `bob`"):
        run(ballots, keep=["bob"])
    with pytest.raises(ConfigError, match="both name ann"):
        run(ballots, keep=["ann"], set_aside=["ann"])


def test_skips_and_models_are_told_from_votes() -> None:
    ballots = Ballots()
    item = ballots.item()
    ballots.vote(item, "AB", "ann")
    ballots.vote(item, "AB", "ann", ranks=None, status=Status.skipped)
    ballots.vote(item, "AB", "model-7", status=Status.prediction)
    quality = run(ballots)
    assert [(one.annotator, one.num_votes, one.num_skipped) for one in quality.scorecards] == [("ann", 1, 1)]
    assert quality.as_dict()["votes"]["by_status"] == {"prediction": 1, "skipped": 1, "submitted": 1}
