"""Transcripts with Human: and Assistant: before each turn, by hand and as hh-rlhf has them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.data.rows import BadRowError
from pipeline.data.transcripts import is_transcript, parse_transcript, parse_transcript_pair, split_pair


def test_turns_are_cut_at_markers_after_an_empty_line_only() -> None:
    text = "\n\nHuman: Why?\n\nAssistant: A sign:\nHuman: keep out.\n\nIt is  old. \n\nHuman:Oh\n\nAssistant: Yes."
    assert parse_transcript(text) == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "A sign:\nHuman: keep out.\n\nIt is  old. "},
        {"role": "user", "content": "Oh"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert is_transcript(text)
    assert not is_transcript(text[2:])
    assert not is_transcript(None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Why?", "E_SCHEMA"),
        ("", "E_SCHEMA"),
        ("Be brief.\n\nHuman: Why?\n\nAssistant: So.", "E_SCHEMA"),
        ("\n\nHuman: Why?\n\nAssistant:", "E_EMPTY"),
        ("\n\nHuman: Why?\n\nAssistant: \u200b ", "E_EMPTY"),
        ("\n\nAssistant: So.", "E_ROLE"),
        ("\n\nHuman: Why?\n\nAssistant: So.\n\nAssistant: And so.", "E_ROLE"),
        ("\n\nHuman: a\x00b\n\nAssistant: So.", "E_ENCODING"),
    ],
)
def test_what_is_no_conversation_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        parse_transcript(text)
    assert caught.value.reason == reason


def test_a_pair_shares_everything_but_the_last_reply() -> None:
    asked = "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: Really?"
    prompt, chosen, rejected = parse_transcript_pair(f"{asked}\n\nAssistant: Yes.", f"{asked}\n\nAssistant: No.")
    assert [turn["content"] for turn in prompt] == ["Why?", "So.", "Really?"]
    assert chosen == [{"role": "assistant", "content": "Yes."}]
    assert rejected == [{"role": "assistant", "content": "No."}]
    with pytest.raises(BadRowError, match="E_SCHEMA: chosen and rejected differ before the last reply"):
        parse_transcript_pair(f"{asked}\n\nAssistant: Yes.", "\n\nHuman: Why?\n\nAssistant: No.")
    with pytest.raises(BadRowError, match="E_SCHEMA: chosen and rejected differ"):
        split_pair([*prompt, *chosen], [{"role": "user", "content": "Why now?"}, *rejected])
    with pytest.raises(BadRowError, match="E_ROLE: rejected does not end"):
        split_pair([*prompt, *chosen], prompt)


def test_the_defects_of_hh_rlhf(real_data: Path) -> None:
    found: dict[int, str] = {}
    with gzip.open(real_data / "hh-rlhf/test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            row = json.loads(line)
            try:
                parse_transcript_pair(row["chosen"], row["rejected"])
            except BadRowError as error:
                found[number] = error.reason.value
    by_reason = {reason: [row for row, why in found.items() if why == reason] for reason in set(found.values())}
    assert by_reason == {
        "E_SCHEMA": [1254, 1688, 1950, 1952, 2036],  # different prompts
        "E_EMPTY": [86, 516, 925, 1103],  # no final answer
        "E_ROLE": [667, 763, 1319, 1849],  # two replies in a row, in both transcripts
    }
    assert Counter(found.values()).total() == 13
