"""Sections of the report's page beyond the metrics: gates, win rates, judges, reward models, over-optimisation."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import made_report
import pytest
from outline import HOSTILE, Outline

from pipeline.pages.gate_charts import gate_bar
from pipeline.pages.gate_text import claim_text, gate_lines
from pipeline.pages.judge_charts import between, reliability_diagram, win_rate_matrix
from pipeline.pages.measures_card import judge_card, measure_groups
from pipeline.pages.numbers import duration_text, verdict
from pipeline.pages.report_page import report_page


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    return made_report.report()


@pytest.mark.slow
def test_every_section_is_there_and_none_without_something_to_show() -> None:
    text = " ".join("".join(Outline(made_report.page()).text).split())
    for words in (
        "better ppo is better than base on 3 of 3 primary metrics and worse on none.", "6 PASS 2 FAIL 1 INCONCLUSIVE",
        "trained in 2 h 42 min, writes 30 tokens/s", "house_style, judged by small_llm not qualified",
        "Raw (filled) against length-controlled (hollow)", "Over-optimisation", "20 shown",
        "the judge small_llm has not qualified", "d0007 in demonstrations/x1", "empty_text: empty text scores as high",
        "Mean score by thirds of the length", "Share of distinct pairs of tokens",
    ):  # fmt: skip
        assert words in text
    small = report_page(made_report.report() | {"gates": [], "win_rates": [], "judges": [], "reward_models": []})
    for heading in ("Gates", "Win rates", "Judges", "Reward models", "Over-optimisation", "Learning curves"):
        assert f"<h2>{heading}</h2>" not in small


def test_the_time_of_a_thousand_questions_stands_on_the_card_of_the_judge_that_took_it() -> None:
    made = made_report.report()
    name, other = (judge["name"] for judge in made["judges"][:2])
    page = report_page(made, judge_seconds={name: 412.4})
    assert page.count("6 min 52 s for 1,000 questions") == 1
    card = page.split(f"<h3>{name} ")[1].split("</article>")[0]
    assert "6 min 52 s for 1,000 questions" in card
    assert other != name
    assert "for 1,000 questions" not in report_page(made)


def test_hostile_words_of_judges_gates_and_audits_stay_words() -> None:
    made = made_report.report()
    for entry in (*made["judges"], *made["reward_models"]):
        entry |= {"name": HOSTILE, "kind": HOSTILE, "reasons": [HOSTILE], HOSTILE: 1.0}
    for entry in made["win_rates"]:
        entry |= {"judge": HOSTILE, "unscored": {HOSTILE: 1}}
    for entry in made["gates"]:
        entry |= {"name": HOSTILE, "reason": HOSTILE}
    outline = Outline(report_page(made))
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in "".join(outline.text)


def test_a_win_rate_is_turned_round_and_even_at_one_half() -> None:
    entry = {"policy": "new", "opponent": "old", "estimate": 0.7, "low": 0.6, "high": 0.75, "n": 9}
    turned = between([entry], "old", "new")
    assert turned is not None
    assert (turned["estimate"], turned["low"], turned["high"]) == pytest.approx((0.3, 0.25, 0.4))
    assert [verdict(v) for v in (between([entry], "new", "old"), turned) if v] == ["better", "worse"]
    even = between([entry | {"low": 0.45}], "new", "old")
    assert even is not None
    assert verdict(even) == "no clear difference"
    assert between([entry], "new", "other") is None
    root = ElementTree.fromstring(win_rate_matrix([entry], ["old", "new", "third"], "x"))
    cells = [rect.get("class") for rect in root.iter("rect")]
    assert cells == ["cell empty", "cell worse", "cell better", "cell empty"]  # a policy that nobody judged has no row


def test_a_reliability_diagram_puts_the_honest_on_the_diagonal() -> None:
    right = {"low": 0.6, "high": 0.9, "n": 40}
    bins = [{"confidence": c, "accuracy": right | {"estimate": a}} for c, a in ((0.75, 0.75), (0.95, 0.7))]
    root = ElementTree.fromstring(reliability_diagram(bins, "x"))
    (even,) = [line for line in root.iter("line") if line.get("class") == "even"]
    x1, y1, x2, y2 = (float(even.get(name, "")) for name in ("x1", "y1", "x2", "y2"))
    honest, sure = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter("circle")]

    def on_the_line(x: float) -> float:
        return y1 + (y2 - y1) * (x - x1) / (x2 - x1)

    assert honest[1] == pytest.approx(on_the_line(honest[0]), abs=0.02)
    assert sure[1] > on_the_line(sure[0]) + 20  # below the diagonal, and y grows downwards


@pytest.mark.parametrize(("higher", "left_of_even"), [(True, True), (False, False)])
def test_the_bound_of_a_gate_lies_where_worse_is(higher: bool, left_of_even: bool) -> None:
    gate = {"name": "g", "kind": "non_inferiority", "unit": "share", "higher_is_better": higher, "bound": None,
            "margin": 0.03, "estimate": 0.0, "low": -0.05, "high": 0.05, "outcome": "INCONCLUSIVE",
            "minimum_detectable": 0.07}  # fmt: skip
    bar = gate_bar(gate)
    assert bar is not None
    lines = {line.get("class"): float(line.get("x1", "")) for line in ElementTree.fromstring(bar).iter("line")}
    assert (lines["bound"] < lines["zero"]) is left_of_even
    assert gate_bar(gate | {"minimum_detectable": None}) is None


def test_gates_in_words(report: dict[str, list[dict[str, object]]]) -> None:
    said = {str(gate["name"]): claim_text(gate) for gate in report["gates"]}
    assert said["better_style"] == "ppo is better than base on items that pass all checks (house_style)"
    assert said["no_forgetting"] == "ppo is not worse than base by 0.02 bits/byte on bits per byte (heldout)"
    assert said["style_floor"] == "items that pass all checks (house_style) of ppo: at least 90 %"
    assert said["panel_qualified"] == "whether the judge panel has qualified"
    lines = gate_lines(report["gates"])
    assert lines[0] == "gates: 6 PASS, 2 FAIL, 1 INCONCLUSIVE"
    assert lines[6].split()[0] == "FAIL"
    assert lines[7].strip() == "waived by A. Kern (first_release): The floor is for release two"
    assert len(lines) == 1 + len(report["gates"]) + 1
    assert gate_lines([]) == []


def test_cards_show_numbers_groups_and_counts() -> None:
    card = {
        "accuracy": {"estimate": 0.74, "low": 0.7, "high": 0.78, "n": 420}, "nll": 0.523, "reliability": [1],
        "by_source": {"forum": {"estimate": 0.5, "low": None, "high": None, "n": 2}}, "absent": None, "rule": "longer",
    }  # fmt: skip
    own, source = measure_groups(card)
    assert own.measures == [
        ("accuracy", "74\N{NO-BREAK SPACE}%", "[70,\N{NO-BREAK SPACE}78]", 420), ("nll", "0.523", "", None),
        ("rule", "longer", "", None),
    ]  # fmt: skip
    assert (source.title, source.measures[0][0], source.measures[0][3]) == ("by source", "forum", 2)


def test_a_judges_card_is_read_in_its_own_order() -> None:
    def measured(n: int) -> dict[str, object]:
        return {"estimate": 0.5 if n else None, "low": None, "high": None, "n": n}

    card = {"failure_rate": measured(9), "consistency": measured(0), "kappa": measured(9), "human_kappa": measured(9)}
    kinds = {"injection": {"chat_end": {"flipped": 1, "tried": 9}}}
    own, mistakes = measure_groups(judge_card(card, kinds))
    # No pair was shown in both orders, so that consistency does not apply.
    assert [name for name, *_ in own.measures] == ["kappa with most people", "kappa of two people",
                                                   "questions without a verdict"]  # fmt: skip
    assert mistakes.title == "mistakes by kind, injection"
    assert mistakes.measures == [("chat end", "1 of 9", "", None)]


def test_durations() -> None:
    assert [duration_text(seconds) for seconds in (0.42, 52, 412, 9720)] == [
        "0.42 s",
        "52 s",
        "6 min 52 s",
        "2 h 42 min",
    ]
    assert re.fullmatch(r"1 min 00 s", duration_text(60))
