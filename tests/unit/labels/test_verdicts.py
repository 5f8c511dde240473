"""What a vote of each scale says about pairs."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from pipeline.config.ingest import IngestConfig
from pipeline.errors import ConfigError
from pipeline.labels.verdicts import Fate, Verdicts, read_verdicts, select_questions
from pipeline.labels.votes import Scale
from tests.made_votes import Ballots


def read(ballots: Ballots, min_rating_gap: float = 0.0) -> Verdicts:
    return read_verdicts(ballots.votes, min_rating_gap=min_rating_gap)


def said(ballots: Ballots, min_rating_gap: float = 0.0) -> Counter[str]:
    """Count what was said, written as "A>B" or "A=B" with the letter that comes first in front of a tie."""
    verdicts = read(ballots, min_rating_gap)
    found: Counter[str] = Counter()
    for number, outcome in zip(verdicts.pair.tolist(), verdicts.outcome.tolist(), strict=True):
        item, *ids = verdicts.pairs[number]
        texts = [ballots.items[item].candidates[key].messages[0]["content"][0] for key in ids]
        found["=".join(sorted(texts)) if outcome == 0 else ">".join(texts if outcome > 0 else texts[::-1])] += 1
    return found


def test_pairwise_votes() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    ballots.vote(item, "AB", shown="AB")
    ballots.vote(item, "BA", shown="AB")
    ballots.vote(item, "A=B")
    verdicts = read(ballots)
    assert said(ballots) == {"A>B": 1, "B>A": 1, "A=B": 1}
    assert verdicts.weight.tolist() == [1, 1, 1]
    # The side shown first was preferred by the first voter and not by the second; the third saw no order.
    assert (verdicts.shown * verdicts.outcome).tolist() == [1, -1, 0]
    assert [math.isnan(gap) for gap in verdicts.gap] == [True, True, True]


def test_an_order_is_all_its_pairs_and_weighs_one() -> None:
    ballots = Ballots()
    item = ballots.item("ABCD")
    ballots.vote(item, "CA=BD")
    assert said(ballots) == {"C>A": 1, "C>B": 1, "C>D": 1, "A=B": 1, "A>D": 1, "B>D": 1}
    assert read(ballots).weight.tolist() == pytest.approx([1 / 6] * 6)


def test_what_was_not_placed_is_no_evidence() -> None:
    ballots = Ballots()
    item = ballots.item("ABCD")
    ballots.vote(item, "BA|CD")
    assert said(ballots) == {"B>A": 1}
    assert read(ballots).weight.tolist() == [1]
    ballots.vote(item, "B|ACD")
    ballots.vote(item, "AB", ranks=None)
    assert said(ballots) == {"B>A": 1}
    assert read(ballots).fates == [Fate.counted, Fate.no_verdict, Fate.no_verdict]


def test_strength_is_an_amount_in_favour_of_the_winner() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    ballots.vote(item, "AB", strength=3.0)
    ballots.vote(item, "BA", strength=2.0)
    ballots.vote(item, "A=B", strength=0.0)
    verdicts = read(ballots)
    assert (verdicts.gap * verdicts.outcome).tolist() == [3.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (0.0, {"A>B": 1, "A>C": 1, "B=C": 1}),
        (1.0, {"A>B": 1, "A>C": 1, "B=C": 1}),  # a difference of exactly the gap counts
        (1.5, {"A=B": 1, "A=C": 1, "B=C": 1}),
    ],
)
def test_ratings_that_differ_by_less_than_the_gap_are_a_tie(gap: float, expected: dict[str, int]) -> None:
    ballots = Ballots()
    ballots.rate(ballots.item("ABCD"), A=4.1, B=3.1, C=3.1, D=None)  # 4.1 - 3.1 is slightly less than 1 in binary
    assert said(ballots, gap) == expected
    assert sorted(abs(read(ballots, gap).gap)) == pytest.approx([0, 1, 1])


def test_thumbs_have_no_amounts() -> None:
    ballots = Ballots()
    item = ballots.item("ABC")
    ballots.vote(item, "A=B=C", ratings={"A": 1.0, "B": 0.0, "C": 1.0}, scale=Scale.thumbs)
    assert said(ballots, 5.0) == {"A>B": 1, "C>B": 1, "A=C": 1}
    assert all(math.isnan(gap) for gap in read(ballots).gap)


def test_one_completion_alone_is_compared_only_with_others_of_the_same_annotator() -> None:
    ballots = Ballots()
    item, other = ballots.item("ABC"), ballots.item("AB", "another question")
    ballots.rate(item, "ann", A=4)
    ballots.rate(item, "ann", B=1)
    ballots.rate(item, "bob", C=3)
    ballots.rate(item, A=5)
    ballots.rate(item, B=5)
    ballots.rate(other, "ann", B=2)
    ballots.vote(other, "A", "ann", ratings={"A": 1.0}, scale=Scale.thumbs)  # another scale is another thing
    verdicts = read(ballots)
    assert said(ballots) == {"A>B": 1}
    assert abs(verdicts.gap).tolist() == [3.0]
    assert verdicts.fates == [Fate.counted] * 2 + [Fate.single_candidate] * 5
    assert verdicts.read_as.tolist() == [0, 0, 2, 3, 4, 5, 6]


def test_a_pair_of_a_completion_with_itself_is_none() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    same, other = ballots.candidate(item, "A"), ballots.candidate(item, "B")
    ballots.vote(item, "AB", candidates=(same, same), ranks=(1, 2))
    ballots.vote(item, "AB", candidates=(same, same, other), ranks=(1, 2, 3))
    verdicts = read(ballots)
    assert said(ballots) == {"A>B": 2}
    assert verdicts.weight.tolist() == [0.5, 0.5]
    assert verdicts.fates == [Fate.same_pair, Fate.counted]
    assert list(verdicts.same_pairs.values()) == [["v0", "v1"]]


def test_questions_are_chosen_by_name() -> None:
    ballots = Ballots()
    item = ballots.item()
    helpful = ballots.vote(item, "AB", question="helpful")
    ballots.vote(item, "BA", question="harmless")
    assert select_questions(ballots.votes, IngestConfig()) == ballots.votes
    assert select_questions(ballots.votes, IngestConfig(questions=["helpful"])) == [helpful]
    with pytest.raises(ConfigError, match=r"ingest\.questions: no vote answers `helpfull`\. Did you mean `helpful`\?"):
        select_questions(ballots.votes, IngestConfig(questions=["helpfull"]))


def test_no_votes() -> None:
    assert said(Ballots()) == {}
    assert read(Ballots()).pairs == []
