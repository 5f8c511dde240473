"""The page shows what the report holds, needs nothing else, and lets no text out of its box."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from help_desk import EVALUATE, FIT, FORM, GOOD, PLAIN, SUITES, generated, help_desk, of, scored
from outline import HOSTILE, Outline

from pipeline.evaluation.report import build_report
from pipeline.pages.charts import NARROW, Series, averaged, bar_chart, forest_plot, line_chart
from pipeline.pages.report_inputs import LineageEntry, StageCosts, StageCurves
from pipeline.pages.report_page import report_page
from pipeline.pages.svg import Scale, scale_around, tick_step, tick_text
from pipeline.pages.training_charts import curve_charts

COLOURS = {"base": 0, "tuned": 1}


def difference(estimate: float, low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    base = {"metric": "regex", "policy": "tuned", "baseline": "base", "unit": "share", "higher_is_better": True}
    return base | {"estimate": estimate, "low": low, "high": high} | changes


def full_page(**changes: Any) -> str:
    rows = [{"step": step, "loss": 2.0 / (step + 1), "learning_rate": 1e-4, "grad_norm": 1.0} for step in range(5)]
    rows[4]["validation_loss"] = 0.7
    arguments: dict[str, Any] = {
        "curves": [StageCurves(stage="sft", artifact="sft-1", rows=rows)],
        "costs": [StageCosts(label="sft", artifact="sft-1", costs={"wall_seconds": 412.34, "device": "cpu"})],
        "lineage": [LineageEntry(id="sft-1", kind="policy", stage="sft", parents=[("dataset", "curate-1")],
                                 config={"rank": 16})],
    }  # fmt: skip
    return report_page(build_report(help_desk(), SUITES, EVALUATE, {"base": ["0" * 64]}), **(arguments | changes))


def test_the_page_shows_every_part() -> None:
    outline = Outline(full_page())
    text = " ".join("".join(outline.text).split())
    for heading in (
        "Differences from base", "How often each policy passes", "All metrics", "What became of the items",
        "Learning curves", "Side by side", "Costs", "Lineage",
    ):  # fmt: skip
        assert heading in text
    assert "tuned cannot be told from base on items that pass all checks (form): +50 points" in text
    assert "wall seconds 412" in text
    assert '"rank": 16' in text
    assert full_page() == full_page()


def test_the_page_needs_nothing_else_and_can_run_nothing() -> None:
    page = full_page()
    outline = Outline(page)
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in page
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    assert not re.search(r"url\(|@import", page)
    names = {name for _, attributes in outline.tags for name in attributes}
    assert not names & {"src", "href", "xlink:href", "srcset", "data", "action"}
    assert not [name for name in names if name.startswith("on")]


def test_the_page_can_be_heard_and_walked_through() -> None:
    outline = Outline(full_page())
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in outline.tags
    assert tags.count("caption") == tags.count("table")
    pictures = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(pictures) == 9  # a forest per suite and one chart of bars, each wide and narrow; three curves
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)


def test_hostile_text_stays_text_wherever_it_comes_from() -> None:
    samples = [of(policy, "form", [generated(f"{HOSTILE[:60]}{k}", HOSTILE, prompt=HOSTILE) for k in range(3)])
               for policy in ("base", 's"ft</title><script>x')]  # fmt: skip
    report = build_report(samples, {"form": FORM}, EVALUATE, {"base": [HOSTILE]})
    page = report_page(
        report,
        title=HOSTILE,
        costs=[StageCosts(label=HOSTILE, artifact=HOSTILE, costs={HOSTILE: HOSTILE})],
        lineage=[LineageEntry(id=HOSTILE, kind="policy", stage=HOSTILE, parents=[(HOSTILE, HOSTILE)],
                              config={HOSTILE: HOSTILE})],
        curves=[StageCurves(stage=HOSTILE, artifact=HOSTILE, rows=[{"step": 1, "loss": 1.0}])],
    )  # fmt: skip
    outline = Outline(page)
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in "".join(outline.text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    page.encode("utf-8")
    control = page.replace("&lt;script&gt;", "<script>", 1)  # what the page would be if one place forgot to escape
    assert "<script>" in control
    with pytest.raises(AssertionError):
        Outline(control)


def test_one_policy_on_its_own_has_a_page_without_comparisons() -> None:
    single = report_page(build_report([of("base", "fit", [scored("a", 1.0)])], {"fit": FIT}, EVALUATE, {}))
    assert "Differences from" not in single
    assert "[no\N{NO-BREAK SPACE}interval]" in single


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_a_forest_plot_puts_zero_better_and_the_marks_where_they_belong() -> None:
    entries = [difference(0.5, 0.25, 0.75), difference(0.0, -0.25, 0.25, metric="max_words")]
    root = parsed(forest_plot(entries, COLOURS, "form"))
    (zero,) = [line for line in root.iter("line") if line.get("class") == "zero"]
    sure, unsure = root.iter("circle")
    assert float(sure.get("cx", "")) > float(zero.get("x1", ""))
    assert unsure.get("cx") == zero.get("x1")
    assert "filled" in sure.get("class", "")
    assert "hollow" in unsure.get("class", "")
    whisker = next(line for line in root.iter("line") if "whisker" in line.get("class", ""))
    middle = (float(whisker.get("x1", "")) + float(whisker.get("x2", ""))) / 2
    assert middle == pytest.approx(float(sure.get("cx", "")), abs=0.02)
    texts = ["".join(node.itertext()) for node in root.iter("text")]
    assert "better →" in texts
    assert "+50 points [25,\N{NO-BREAK SPACE}75]" in texts
    lower = forest_plot([difference(-0.5, -0.6, -0.4, higher_is_better=False, unit="bits/byte")], COLOURS, "fit")
    assert "← better" in lower
    assert "better" not in forest_plot([difference(3, -1, 7, higher_is_better=None, unit="tokens")], COLOURS, "x")


def test_a_difference_without_an_interval_has_a_mark_and_no_whisker() -> None:
    root = parsed(forest_plot([difference(0.5, None, None)], COLOURS, "form"))
    assert len(list(root.iter("circle"))) == 1
    assert not [line for line in root.iter("line") if "whisker" in line.get("class", "")]


def test_bars_are_as_long_as_their_share() -> None:
    rates = [difference(0.5, 0.4, 0.6, baseline=None), difference(1.0, 0.9, 1.0, baseline=None, policy="base")]
    half, full = (float(bar.get("width", "")) for bar in parsed(bar_chart(rates, COLOURS, "form")).iter("rect"))
    assert full == pytest.approx(2 * half)


def test_the_course_of_a_stage_that_samples_is_drawn_by_rollout() -> None:
    rows = [
        {"step": step, "learning_rate": 1e-4, "score": step / 4, "kl": 0.2 * step, "entropy": 2.0} for step in (1, 2, 3)
    ]
    rows.append({"step": 0, "monitor_score": 0.1})
    drawn = [str(chart) for chart in curve_charts(StageCurves(stage="ppo", artifact="ppo-1", rows=rows))]
    titles = [re.findall(r'aria-label="([^"]+)"', chart)[0] for chart in drawn]
    assert titles == ["Learning rate", "Score", "KL to the reference, nats per completion", "Entropy, nats per token"]
    assert all("rollout" in chart and "optimizer step" not in chart for chart in drawn)
    assert "held-out" in drawn[1]
    assert "held-out" not in drawn[2]


def test_curves_of_any_length_stay_small_and_keep_their_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(10_001)]
    short = averaged(points, 400)
    assert len(short) <= 400
    assert averaged(points[:400], 400) == points[:400]
    assert short[0] == (12.5, pytest.approx(sum(step % 7 for step in range(26)) / 26))
    chart = line_chart([Series("training", points, 1), Series("validation", [(5.0, 3.0)], 2)], "Loss", "step")
    assert len(list(parsed(chart).iter("polyline"))) == 2
    assert "10,000" in chart


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 100.0, [0, 20, 40, 60, 80, 100]),
        (-0.31, 0.02, [-0.3, -0.2, -0.1, 0]),
        (0.0, 0.00023, [0, 0.00005, 0.0001, 0.00015, 0.0002]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert Scale(low, high, 0, 1).ticks() == pytest.approx(expected)


def test_ticks_are_written_with_the_decimals_of_their_step() -> None:
    assert [tick_text(value, 0.05) for value in (-0.1, 0.0, 0.05)] == ["−0.10", "0", "0.05"]
    assert [tick_text(value, 20) for value in (-20, 1000)] == ["−20", "1,000"]
    assert tick_text(0.0002, 1e-4) == "2e−4"
    assert tick_step(1.0, 5) == pytest.approx(0.2)


def test_a_scale_of_one_value_has_a_width() -> None:
    scale = scale_around([2.0, 2.0], 0, 100)
    assert scale(2.0) == pytest.approx(50)
    assert scale_around([], 0, 1).low < scale_around([], 0, 1).high
    assert Scale(0, 1, 0, 100)(7) == 100  # held at the edge


def test_a_plain_and_a_good_answer_show_their_checks() -> None:
    samples = [of("base", "form", [generated("a", PLAIN)]), of("tuned", "form", [generated("a", GOOD)])]
    page = report_page(build_report(samples, {"form": FORM}, EVALUATE, {}))
    assert re.search(r'class="failed">✗ regex', page)
    assert re.search(r'class="passed">✓ regex', page)


def test_an_outer_tick_of_a_narrow_plot_stands_inside_the_picture() -> None:
    """Without a spread the scale goes from -1 to 1, and its first tick stands on the edge."""
    alike = difference(0.0, None, None, unit="score")
    root = ElementTree.fromstring(forest_plot([alike], COLOURS, "x", NARROW))
    ticks = {str(tick.text): tick for tick in root.iter("text") if tick.get("class") == "tick"}
    assert ticks["\N{MINUS SIGN}1.0"].get("text-anchor") == "start"
    assert ticks["0"].get("text-anchor") == "middle"
    for words, tick in ticks.items():
        left = float(tick.get("x", "")) - {"start": 0.0, "middle": 0.5, "end": 1.0}[tick.get("text-anchor", "")] * 7 * (
            len(words)
        )
        assert 0 <= left <= left + 7 * len(words) <= NARROW.width
