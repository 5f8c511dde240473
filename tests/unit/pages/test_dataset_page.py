"""The page of a data set accounts for every row, shows whose votes count, and lets no text out of its box."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from curated_counts import annotator, counts, examples, quality, share, source
from outline import HOSTILE, Outline

from pipeline.pages.dataset_charts import Bar, Panel, histogram, scorecard_plot, stacked_bars
from pipeline.pages.dataset_page import (
    COLOURS,
    FATES,
    MAX_LISTED,
    dataset_page,
    limits_text,
    share_text,
    write_dataset_page,
)


def page(**changes: Any) -> str:
    arguments: dict[str, Any] = {"counts": counts(), "examples": examples(), "quality": quality(), "title": "Desk"}
    return dataset_page(**(arguments | changes))


def words(html: str) -> str:
    return " ".join("".join(Outline(html).text).split())


def test_the_page_shows_every_part(tmp_path) -> None:
    text = words(page())
    for heading in (
        "Where every row went", "Tables and splits", "Lengths, in characters", "Filters", "Duplicates and leaks",
        "Licences and mixing", "How far the votes can be trusted", "Some rows",
    ):  # fmt: skip
        assert heading in text
    assert "144 of 160 rows from 2 sources are in the data set." in text
    assert "desk/demonstrations: quarantined 2 E_JSON, 1 E_EMPTY." in text
    assert "Comparisons by fold: 0: 10, 1: 30, 2: 10." in text
    assert "3 exact after normalisation, 1 near" in text
    assert "4 by the whole prompt, 1 by a shared run of words" in text
    assert "1 more near-duplicate pair" in text
    assert "exact of evaluation row e1" in text
    assert "442 given = 2 skipped + 220 set aside + 220 counted" in text
    assert "90 judged = 7 undecided + 83 comparisons" in text
    assert "personal_data: examples of what it dropped (1), changed (2), kept (1)" in text
    written = write_dataset_page(tmp_path, counts=counts(), examples=examples(), quality=quality(), title="Desk")
    assert (written.name, written.read_text(encoding="utf-8")) == ("report.html", page())


def cells(html: str, label: str) -> list[list[str]]:
    """Return the rows of the table in a region, as text."""
    region = re.search(rf'aria-label="{re.escape(label)}">(.*?)</table>', html, re.DOTALL)
    assert region is not None
    rows = re.findall(r"<tr.*?</tr>", region[1], re.DOTALL)
    return [
        [" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_every_source_adds_up_and_columns_without_rows_are_left_out() -> None:
    table = cells(page(), "Account of the sources")
    assert [cell.replace("\u00ad", "") for cell in table[0]] == [
        "Source", "Read", "Accepted", "Quarantined", "Filtered", "Duplicates", "Near-duplicates", "Leaks"
    ]  # fmt: skip
    assert table[1:] == [
        ["desk/demonstrations demonstrations", "100 ✓", "94", "3", "0", "3", "0", "0"],
        ["desk/votes comparisons", "60 ✓", "50", "0", "4", "0", "1", "5"],
        ["All", "160", "144", "3", "4", "3", "1", "5"],
    ]


def test_a_source_that_does_not_add_up_is_marked() -> None:
    broken = source("desk/votes", "comparisons", 60) | {"accepted": 58}
    table = cells(page(counts=counts(sources=[broken])), "Account of the sources")
    assert table[1][1] == "60 ✗ 2 unaccounted for"


def test_annotators_are_listed_with_those_set_aside_first_and_why() -> None:
    table = cells(page(), "Scorecards")
    assert table[1][:7] == ["lefty", "220", "20", "1", "90 % [86, 94]", "–", "99.0 % [97.0, 100.0]"]
    assert table[2] == ["Set aside : votes for what is shown first: 0.990"]
    assert table[3][0] == "ada"
    assert len(table) == 4
    text = words(page())
    assert "74 % [70, 78] of cases, and the longer completion in –" in text
    assert cells(page(), "Agreement")[1] == ["the only one", "pairwise", "90", "440", "0.612", "\u22120.031", "–"]
    assert "a beats b beats c beats the first" in text
    assert "item i2, lefty: a and b (votes v1, v2)" in text


def test_long_lists_are_cut_and_the_cut_is_stated() -> None:
    people = [annotator(f"a{number:03}") for number in range(MAX_LISTED + 5)]
    circles = [{"item": f"i{number}", "annotator": None, "candidates": ["a", "b", "c"]} for number in range(70)]
    text = words(page(quality=quality(annotators=people, cycles=circles)))
    assert "60 of 65 annotators" in text
    assert "a059" in text
    assert "a060" not in text
    assert "and 10 more in quality.json" in text


def test_a_data_set_without_votes_filters_or_examples_has_a_page() -> None:
    bare = counts(filters=[], lengths={}, folds={}, mixing=[], prompts_from_demonstrations={})
    nothing = {"filters": {}, "near_duplicates": [], "leaks": [], "rows": {}}
    text = words(dataset_page(counts=bare, examples=nothing, quality=None))
    assert "Filters" not in text
    assert "How far the votes" not in text
    assert "Licences and" not in text


def test_the_page_needs_nothing_else_and_can_run_nothing() -> None:
    html = page()
    outline = Outline(html)
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in html
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    assert not re.search(r"url\(|@import", html)
    names = {name for _, attributes in outline.tags for name in attributes}
    assert not names & {"src", "href", "xlink:href", "srcset", "data", "action"}
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    pictures = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(pictures) == 3  # the account, one histogram, the scorecards
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)


def replaced(value: Any) -> Any:
    """Put hostile text in place of every name and text, and under every key that a data set chooses."""
    if isinstance(value, dict):
        open_keys = {"quarantined", "filtered", "dropped", "licences", "by_status", "tables"}
        return {
            key: {HOSTILE: 1} if key in open_keys and isinstance(entry, dict) else replaced(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [replaced(entry) for entry in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text_wherever_it_comes_from() -> None:
    tables = {HOSTILE: {"train": 1}}
    hostile = replaced(counts()) | {"tables": tables}
    hostile["sources"] = [
        entry | {"quarantined": {HOSTILE: 1}, "filtered": {HOSTILE: 2}} for entry in hostile["sources"]
    ]
    shown = replaced(examples()) | {"rows": {HOSTILE: [{"id": HOSTILE, "source": HOSTILE, "text": HOSTILE}]}}
    shown["filters"] = {HOSTILE: replaced(examples()["filters"]["personal_data"])}
    html = dataset_page(counts=hostile, examples=shown, quality=replaced(quality()), title=HOSTILE)
    outline = Outline(html)
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
    assert html.count("&lt;script&gt;") > 60, "the hostile text is there, many times over"
    assert "{{ 7 * 7 }}" in "".join(outline.text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    html.encode("utf-8")
    with pytest.raises(AssertionError):
        Outline(html.replace("&lt;/div&gt;", "</div>", 1))  # what the page would be if one place forgot to escape


def test_shares_are_written_with_the_decimals_that_their_interval_supports() -> None:
    assert share_text(share(0.6123, 0.51, 0.71)) == "61\N{NO-BREAK SPACE}%"
    assert share_text(share(0.6123, 0.605, 0.619)) == "61.2\N{NO-BREAK SPACE}%"
    assert share_text(None) == "–"
    assert limits_text(share(0.6123, 0.51, 0.71)) == "[51,\N{NO-BREAK SPACE}71]"
    assert limits_text({"estimate": 0.6, "low": None, "high": None, "n": 1}) == limits_text(None) == ""


def boxes(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter("rect"))


def test_stacked_bars_share_the_whole_by_count() -> None:
    first, second = boxes(stacked_bars([Bar("desk", [("accepted", 75), ("leaks", 25)])], COLOURS, "account"))
    assert float(first.get("width", "")) == pytest.approx(3 * float(second.get("width", "")), rel=1e-3)
    assert float(second.get("x", "")) == pytest.approx(
        float(first.get("x", "")) + float(first.get("width", "")), abs=0.02
    )
    assert "".join(second.itertext()) == "leaks: 25 of 100"
    assert boxes(stacked_bars([Bar("empty", [("accepted", 0)])], COLOURS, "account")) == []
    assert {part for _, part in FATES.values()} == set(COLOURS)


def test_a_histograms_bars_are_as_high_as_its_counts() -> None:
    lengths = {"edges": [1, 10, 100, 1000], "counts": [20, 60, 0], "median": 35, "p95": 240, "max": 99}
    heights = [float(box.get("height", "")) for box in boxes(histogram(lengths, "prompt"))]
    assert heights == [pytest.approx(heights[1] / 3, rel=1e-3), max(heights), 0.0]
    with pytest.raises(ValueError, match="3 edges do not bound 3 counts"):
        histogram(lengths | {"edges": [1, 10, 100]}, "prompt")


def test_a_scorecard_has_a_mark_per_measured_share_and_hollow_ones_for_those_set_aside() -> None:
    people = [annotator("ada"), annotator("lefty", set_aside=True, first_share=share(1.0, 0.98, 1.0))]
    svg = ElementTree.fromstring(
        scorecard_plot(people, [Panel("first_share", "First", 0.5), Panel("gold", "Gold")], "cards")
    )
    ada, lefty = svg.iter("circle")
    (unbiased,) = [line for line in svg.iter("line") if line.get("class") == "zero"]
    assert ada.get("cx") == unbiased.get("x1")
    assert float(lefty.get("cx", "")) > float(ada.get("cx", ""))
    assert "filled" in ada.get("class", "")
    assert "hollow" in lefty.get("class", "")


def test_the_exports_are_accounted_for() -> None:
    row = cells(page(), "Annotation exports")[1]
    assert row == ["desk/votes label_studio", "95 ✓", "92", "3 3 E_SCHEMA", "0", "442", "4"]
    wrong = quality()
    wrong["exports"][0]["accepted"] = 91
    assert cells(page(quality=wrong), "Annotation exports")[1][1] == "95"  # no tick where it does not add up
