"""The data card says where rows come from, under which licence, what was done, and what nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from curated_counts import counts, quality

from pipeline.config.data import (
    CurateConfig,
    DataConfig,
    DecontaminationConfig,
    FilterConfig,
    NearDuplicatesConfig,
    SourceConfig,
    SourceFormat,
    SourceSplit,
    TableName,
)
from pipeline.data.card import write_card


def data(**changes: Any) -> DataConfig:
    sources = [
        SourceConfig(table=TableName.demonstrations, path="data/demonstrations.jsonl", licence="MIT"),
        SourceConfig(table=TableName.exports, path="data/votes.json"),
        SourceConfig(
            table=TableName.prompts,
            path="org/prompts",
            format=SourceFormat.hub,
            revision="abc123",
            licence="CC-BY-SA-4.0",
            split=SourceSplit.test,
        ),
    ]
    return DataConfig(name="desk", **({"sources": sources} | changes))


@pytest.fixture
def card(tmp_path):
    def write(**changes: Any) -> str:
        arguments: dict[str, Any] = {"counts": counts(), "quality": quality(), "data": data(), "config": CurateConfig()}
        path = write_card(tmp_path, **(arguments | changes))
        assert path == tmp_path / "data_card.md"
        return path.read_text(encoding="utf-8")

    return write


def test_the_card_begins_with_the_rows(card) -> None:
    assert card().splitlines()[:6] == [
        "# desk",
        "",
        "| table | train | validation | test |",
        "| --- | --- | --- | --- |",
        "| demonstrations | 80 | 8 | 6 |",
        "| comparisons | 40 | 5 | 5 |",
    ]


def test_every_source_stands_with_its_licence_and_counts(card) -> None:
    lines = card().splitlines()
    assert "| `desk/demonstrations` | demonstrations | MIT | 100 | 94 |" in lines
    assert "| `desk/votes` | exports | **none declared** | – | – |" in lines, "its comparisons count by themselves"
    assert "| `org/prompts` at abc123 | prompts, protected | CC-BY-SA-4.0 | – | – |" in lines
    assert "| `desk/votes` | comparisons | of its exports | 60 | 50 |" in lines


def test_missing_and_different_licences_are_said_plainly(card) -> None:
    text = card(counts=counts(licences={"MIT": 94, "CC-BY-NC-SA-4.0": 6, "none": 50}))
    assert "- MIT: 94 rows." in text
    assert "- CC-BY-NC-SA-4.0: 6 rows; it forbids commercial use and asks for the same licence." in text
    assert "**No licence is declared for 50 rows**, from `desk/votes`. Nobody has said that they may be used" in text
    assert "The rows are under different licences." in text
    clean = card(counts=counts(licences={"MIT": 144}))
    assert "No licence is declared" not in clean
    assert "different licences" not in clean


def test_what_was_done_stands_with_its_thresholds(card) -> None:
    config = CurateConfig(
        filters=[
            FilterConfig(name="personal_data", params={"action": "mask"}, tables=[TableName.comparisons]),
            FilterConfig(name="language", params={"allowed": ["en", "de"]}),
        ]
    )
    text = card(config=config)
    assert "- Splits by the hash of the prompt, seed 0: 10 % validation, 10 % test." in text
    assert "Jaccard similarity of runs of 5 words of at least 0.7, found by MinHash with 128 permutations." in text
    assert "by its normalised text or by 13 words in a row." in text
    assert "- Filter `personal_data` (`action: mask`) on comparisons." in text
    assert "- Train rows of `desk/votes` have weight 2: 20 became 40." in text
    assert "- Languages: en and de, and text too short to tell." in text
    assert "- Personal data was looked for by patterns and checksums" in text
    off = CurateConfig(
        filters=[],
        near_duplicates=NearDuplicatesConfig(enabled=False),
        decontamination=DecontaminationConfig(enabled=False),
    )
    text = card(config=off)
    assert "- Near-duplicates were not looked for." in text
    assert "- Leaks of evaluation prompts were not looked for." in text
    assert "- No filter was applied." in text
    assert "- Languages were not determined." in text
    assert "- Personal data was not removed." in text


def test_what_was_removed_adds_up(card) -> None:
    text = card()
    section = text.partition("## What was removed")[2].partition("##")[0].split("\n")
    assert [line for line in section if line] == [
        "Of 160 rows read, 144 were kept and 16 were not:",
        "- 2 bad rows: E_JSON",
        "- 1 bad rows: E_EMPTY",
        "- 4 dropped by the filter `personal_data`",
        "- 3 exact duplicates, after normalisation",
        "- 1 near-duplicates",
        "- 5 rows that hold an evaluation prompt",
        "- 7 kept, but changed by `personal_data`",
    ]
    assert sum(int(line.split()[1]) for line in section if line.startswith("- ") and "kept" not in line) == 16


def test_annotators_are_described_and_not_named(card) -> None:
    text = card()
    assert "440 submitted votes of 2 annotators, 40 of them ties." in text
    assert "- Krippendorff's alpha (pairwise, nominal): 0.612 over 90 units" in text
    assert "- what was shown first was preferred in 74.0 % [70.0, 78.0] of cases" in text
    assert "- 1 of 2 annotators were set aside; their votes do not count" in text
    assert "votes for what is shown first: 0.990" in text
    assert "lefty" not in text
    assert "ada" not in text
    assert "- Fewer than three annotators are known" in text
    assert "## Votes" not in card(quality=None)


def test_names_cannot_break_the_cards_tables(card) -> None:
    hostile = [SourceConfig(table=TableName.prompts, path="a|b`c\n.jsonl", licence="x | <b>*y*\n# z")]
    lines = card(data=data(sources=hostile)).splitlines()
    assert "| `desk/a/bc` | prompts | x \\| \\<b\\>\\*y\\* # z | – | – |" in lines
