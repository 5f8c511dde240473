"""What people would have said, from a judge whose mistakes were counted, and several policies on one scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from help_desk import EVALUATE, generated, of

from pipeline.config.judges import JudgeConfig
from pipeline.evaluation.judged import ComparedPair, SealedCard, judge_entries, win_rates, wins_by_item
from pipeline.evaluation.outcomes import Outcome
from pipeline.evaluation.rankings import policy_rankings
from pipeline.evaluation.win_rates import corrected_win_rate, win_rate_with_votes
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.judge_correction import Confusion
from pipeline.statistics.ratings import ELO_PER_NAT
from pipeline.statistics.win_rates import win_rate

SHORT, LONG, BOLD = "one two", "one two three four five six seven eight", "one **two** three"


def outcomes(wins: list[float | None]) -> list[Outcome]:
    return [
        Outcome(id=f"i{k:03}", cluster=f"c{k}", win=win, status="ok" if win is not None else "timeout")
        for k, win in enumerate(wins)
    ]


def pair(policy: str, opponent: str, wins: list[float | None], texts: tuple[str, str] = (SHORT, SHORT)) -> ComparedPair:
    own, others = ([generated(f"i{k:03}", text) for k in range(len(wins))] for text in texts)
    return ComparedPair(
        suite="form", judge="llm", policy=policy, opponent=opponent, outcomes=outcomes(wins), own=own, others=others
    )


def covers(value: Estimate, truth: float) -> bool:
    return value.low is not None and value.high is not None and value.low <= truth <= value.high


def judge(right: float | None, n: int = 100) -> dict[str, Any]:
    card = {} if right is None else {"accuracy_where_both_decide": {"estimate": right, "n": n}}
    return {"name": "llm", "suite": None, "qualified": True, "is_people": False, "card": card}


def voted(wins: list[float | None]) -> ComparedPair:
    return replace(pair("new", "base", wins), judge="people")


PEOPLE = {"name": "people", "suite": None, "qualified": True, "is_people": True, "card": {}}


def test_votes_on_some_pairs_and_a_judge_on_all_say_what_people_would() -> None:
    # The judge sees 62 of 100 wins. People voted on the first 20, all of which it calls wins, and see 15 of them.
    said = pair("new", "base", [1.0] * 62 + [0.0] * 38)
    people = voted([1.0] * 15 + [0.0] * 5 + [None] * 80)
    found = {row["judge"]: row for row in win_rates([said, people], [judge(None), PEOPLE], EVALUATE)}
    entry = found["llm"]["with_votes"]
    # On the 80 others it sees 42 wins, and it errs by -5/20 where people voted.
    assert entry["estimate"] == pytest.approx(42 / 80 - 5 / 20)
    assert entry["votes"] == 20
    assert entry["low"] < entry["estimate"] < entry["high"]
    assert found["people"]["with_votes"] is None
    # Nobody voted on these two, on none of these pairs, or on all of them.
    assert win_rates([said], [judge(None), PEOPLE], EVALUATE)[0]["with_votes"] is None
    for wins in ([None] * 100, [1.0] * 100):
        assert win_rates([said, voted(wins)], [judge(None), PEOPLE], EVALUATE)[0]["with_votes"] is None


@pytest.mark.parametrize(("base", "told"), [("b" * 64, True), ("c" * 64, False), (None, None)])
def test_a_judge_that_shares_the_policies_base_is_told_from_others(base: str | None, told: bool | None) -> None:
    content = {"applies": True, "card": {"kappa": {"n": 3}}, "reliability": [], "kinds": {}}
    card = SealedCard(judge="llm", suite=None, content=content, base=base)
    (entry,) = judge_entries({"llm": JudgeConfig(name="llm", kind="local")}, [card], EVALUATE, ["a" * 64, "b" * 64])
    assert entry["self_family"] is told
    assert not entry["qualified"]
    assert entry["reasons"][0].startswith("3 pairs with human votes, fewer than")


def test_wins_are_kept_by_item_against_the_baseline_alone() -> None:
    pairs = [pair("new", "base", [1.0, None, 0.5]), pair("newer", "base", [0.0, 1.0, 1.0]),
             pair("newer", "new", [1.0, 1.0, 1.0])]  # fmt: skip
    samples = [
        of(policy, "form", [generated(f"i00{k}", SHORT) for k in range(3)]) for policy in ("base", "new", "newer")
    ]
    configs = {"llm": JudgeConfig(name="llm", kind="local")}
    (found,) = wins_by_item(pairs, configs, [judge(0.9)], samples, EVALUATE)
    assert found.wins == {
        "base": {"i000": 0.5, "i001": 0.5, "i002": 0.5}, "new": {"i000": 1.0, "i002": 0.5},
        "newer": {"i000": 0.0, "i001": 1.0, "i002": 1.0},
    }  # fmt: skip
    assert (found.qualified, found.against["completions"]) == (True, samples[0].artifact)
    other = wins_by_item(pairs, {"llm": replace(configs["llm"], seed=1)}, [judge(0.9)], samples, EVALUATE)[0]
    assert other.against["judge"] != found.against["judge"]


def test_completions_that_say_the_same_stay_ties_beside_votes() -> None:
    said = pair("new", "base", [1.0] * 6 + [0.0] * 4 + [0.5] * 10)
    same = [replace(outcome, identical=True) if outcome.win == 0.5 else outcome for outcome in said.outcomes]
    people = voted([1.0, 0.0, *[None] * 8, *[0.5] * 10])
    equal = [replace(outcome, identical=True) if outcome.win == 0.5 else outcome for outcome in people.outcomes]
    found = win_rates([replace(said, outcomes=same), replace(people, outcomes=equal)], [judge(None), PEOPLE], EVALUATE)[
        0
    ]["with_votes"]
    # Of ten pairs that differ two have votes: 4/8 - 1/2 = 0; the ten ties are half a win each.
    assert found["estimate"] == pytest.approx(0.25)
    assert found["votes"] == 2


@pytest.mark.slow
def test_votes_cover_what_people_would_say_and_the_judge_alone_does_not() -> None:
    generator, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(200):
        truth = (generator.random(300) < 0.6).astype(float)
        seen = np.where(generator.random(300) < 0.2, 1.0, truth)  # the judge turns losses into wins
        known = [float(win) if number < 80 else None for number, win in enumerate(truth)]
        pairs = [pair("new", "base", seen.tolist()), voted(known)]
        found = win_rate_with_votes(pairs[0].outcomes, pairs[1].outcomes, 0.95)
        assert found is not None
        covered += found["low"] <= 0.6 <= found["high"]
        naive += covers(win_rate(seen.tolist(), range(300)), 0.6)
    assert covered >= 179  # of 200 at 95 %: fewer are seen once in a thousand times
    assert naive < 100


def test_a_judges_mistakes_are_taken_out_of_a_win_rate() -> None:
    pairs = [pair("new", "base", [1.0] * 62 + [0.0] * 38)]
    (found,) = win_rates(pairs, [judge(0.8)], EVALUATE)
    assert found["estimate"] == pytest.approx(0.62)
    # (0.62 + 0.8 - 1) / (0.8 + 0.8 - 1)
    assert found["corrected"]["estimate"] == pytest.approx(0.7)
    assert found["corrected"]["high"] - found["corrected"]["low"] > found["high"] - found["low"]
    assert win_rates(pairs, [judge(None)], EVALUATE)[0]["corrected"] is None
    guessing = win_rates(pairs, [judge(0.55)], EVALUATE)[0]["corrected"]
    assert guessing["estimate"] is None
    assert "0.10 is below 0.2" in guessing["method"]


def test_ties_stay_half_a_win() -> None:
    confusion = Confusion(true_positives=80, positives=100, true_negatives=80, negatives=100)
    with_ties = corrected_win_rate(outcomes([1.0] * 62 + [0.0] * 38 + [0.5] * 100), confusion, 0.95)
    assert with_ties.estimate == pytest.approx(0.5 * 0.7 + 0.5 * 0.5)
    assert with_ties.n == 200
    assert corrected_win_rate(outcomes([0.5, 0.5]), confusion, 0.95).estimate is None


def test_the_corrected_interval_covers_and_the_judges_word_does_not() -> None:
    generator, hits, raw = np.random.default_rng(3), 0, 0
    for _ in range(300):
        people = generator.random(200) < 0.75
        said = np.where(generator.random(200) < 0.8, people, ~people)
        right = int(generator.binomial(120, 0.8))
        # Which completion of a voted pair stands first means nothing: each counts as a win and as a loss.
        confusion = Confusion(true_positives=right, positives=120, true_negatives=right, negatives=120)
        hits += covers(corrected_win_rate(outcomes(said.astype(float).tolist()), confusion, 0.95), 0.75)
        raw += covers(win_rate(said.astype(float).tolist(), range(200)), 0.75)
    assert hits / 300 >= 0.93
    assert raw / 300 < 0.2


def test_three_policies_stand_on_one_scale() -> None:
    # Everybody wins as often as odds of two to one say: best over middle, middle over worst, and four to one over both.
    pairs = [pair("middle", "worst", [1.0] * 80 + [0.0] * 40), pair("best", "middle", [1.0] * 80 + [0.0] * 40),
             pair("best", "worst", [1.0] * 96 + [0.0] * 24)]  # fmt: skip
    (found,) = policy_rankings(pairs, [judge(None)], EVALUATE)
    assert [entry["policy"] for entry in found["policies"]] == ["best", "middle", "worst"]
    best, middle, worst = (entry["estimate"] for entry in found["policies"])
    assert middle == pytest.approx(1000, abs=0.01)
    assert best - middle == pytest.approx(ELO_PER_NAT * np.log(2), rel=0.01)  # the prior pulls by less than 1 %
    assert best + worst == pytest.approx(2000, abs=0.01)
    assert all(entry["low"] < entry["estimate"] < entry["high"] for entry in found["policies"])
    assert (found["n"], found["clusters"], found["styles"]) == (360, 120, [])  # nothing differs in style
    assert policy_rankings(pairs[:1], [judge(None)], EVALUATE) == []  # of two the win rate says it all


def test_what_length_won_is_not_called_better() -> None:
    generator = np.random.default_rng(1)

    def won(chance: float) -> list[float]:
        return (generator.random(60) < chance).astype(float).tolist()

    # The judge takes the longer answer nine times in ten, whoever wrote it, and each policy writes both kinds.
    texts, wins = (LONG, SHORT), {"b": "a", "c": "a"}
    pairs = [pair(policy, other, won(0.9), texts) for policy, other in wins.items()]
    pairs += [pair("a", "b", won(0.9), texts), pair("c", "b", won(0.5)), pair("a", "c", won(0.5), (BOLD, BOLD))]
    (found,) = policy_rankings(pairs, [judge(None)], EVALUATE)
    (length,) = found["styles"]  # bold text stands on both sides alike
    assert length["style"] == "length"
    assert length["low"] > 0.5
    for entry in found["policies"]:
        assert entry["low"] < 1000 < entry["high"]


def test_missing_verdicts_rank_nobody() -> None:
    pairs = [pair(a, b, [1.0] * 5 + [None]) for a, b in (("b", "a"), ("c", "a"), ("c", "b"))]
    assert policy_rankings(pairs, [judge(None)], EVALUATE) == []
