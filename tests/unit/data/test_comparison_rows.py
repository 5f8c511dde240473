"""Files that state one preference for each row become comparisons: every common shape, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.data import SourceConfig, SourceFormat, TableName
from pipeline.data.building import build_row
from pipeline.data.columns import Shape, choose_columns
from pipeline.data.readers import read_file
from pipeline.data.rows import BadRowError, Comparison
from pipeline.errors import ConfigError, DataError


def source(**more: Any) -> SourceConfig:
    return SourceConfig(table=TableName.comparisons, path="rows.jsonl", licence="MIT", **more)


def build(fields: dict[str, Any], **more: Any) -> Comparison:
    config = source(**more)
    row = build_row(fields, choose_columns(config, "data.sources[0]", list(fields)), config, "x/rows")
    assert isinstance(row, Comparison)
    return row


SYSTEM = {"role": "system", "content": "Be brief."}
USER, MORE = {"role": "user", "content": "Why?"}, {"role": "user", "content": "And then?"}
GOOD, BAD = {"role": "assistant", "content": "So."}, {"role": "assistant", "content": "No."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}

SHAPES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("text", {"prompt": "Why?", "chosen": "So.", "rejected": "No."}, [USER]),
    ("text and system", {"system": "Be brief.", "prompt": "Why?", "chosen": "So.", "rejected": "No."}, [SYSTEM, USER]),
    ("question", {"question": "Why?", "chosen": "So.", "rejected": "No."}, [USER]),
    ("instruction", {"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."}, [USER]),
    (
        "instruction and input",
        {"instruction": "Add", "input": "1", "chosen": "So.", "rejected": "No."},
        [{**USER, "content": "Add\n\n1"}],
    ),
    ("turns", {"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, [SYSTEM, USER]),
    ("implicit", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER]),
    (
        "implicit, several turns",
        {"chosen": [USER, BAD, MORE, GOOD], "rejected": [USER, BAD, MORE, BAD]},
        [USER, BAD, MORE],
    ),
    ("prompt said twice", {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER]),
    (
        "prompt said twice, system turn",
        {"prompt": "Why?", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]},
        [SYSTEM, USER],
    ),
    ("ShareGPT", {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}}, [USER]),
    (
        "OpenAI",
        {"input": {"messages": [USER], "tools": []}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        [USER],
    ),
    ("OpenAI, bare list", {"input": [USER], "preferred_output": [GOOD], "non_preferred_output": [BAD]}, [USER]),
    (
        "transcripts",
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        [USER],
    ),
    (
        "transcript as prompt",
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "So.", "rejected": "No."},
        [USER],
    ),
]


@pytest.mark.parametrize(("fields", "prompt"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_every_common_shape_gives_the_same_comparison(fields: dict[str, Any], prompt: list[Any]) -> None:
    row = build(fields)
    assert (row.prompt, row.chosen, row.rejected) == (prompt, [GOOD], [BAD])
    assert (row.confidence, row.num_votes, row.margin, row.tie, row.fold) == (1.0, 1, None, None, None)
    assert (row.source, row.licence) == ("x/rows", "MIT")


def test_the_sides_are_not_confused() -> None:
    one = build({"prompt": "Why?", "chosen": "So.", "rejected": "No."})
    other = build({"prompt": "Why?", "chosen": "No.", "rejected": "So."})
    assert (one.chosen, one.rejected) == (other.rejected, other.chosen)
    assert one.id != other.id


def test_the_mapping_of_the_user_rules() -> None:
    fields = {"q": "Why?", "better": "So.", "worse": "No.", "by": 2.5, "prompt": "ignored", "key": 7, "topic": "t"}
    columns = {"prompt": "q", "chosen": "better", "rejected": "worse", "margin": "by", "id": "key"}
    row = build(fields, columns=columns)
    assert (row.prompt, row.chosen, row.rejected) == ([USER], [GOOD], [BAD])
    assert (row.margin, row.id, row.topic) == (2.5, "7", "t")
    conversation = {"messages": [USER], "chosen": "So.", "rejected": "No."}
    assert build(conversation, columns={"messages": "messages"}).prompt == [USER]
    # An empty name says: the file has a prompt, and it is not to be read.
    row = build({"prompt": "other", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, columns={"prompt": ""})
    assert row.prompt == [USER]


@pytest.mark.parametrize(
    ("more", "margin"),
    [
        ({}, None),
        ({"margin": None}, None),
        ({"margin": 0}, 0.0),
        ({"margin": "1.5"}, 1.5),  # CSV has nothing but text
        ({"score_chosen": 8, "score_rejected": 5.5}, 2.5),
        ({"score_chosen": 8, "score_rejected": None}, None),
        ({"score_chosen": 8, "score_rejected": 5.5, "margin": 1}, 1.0),
        ({"score_chosen": 8}, None),
    ],
)
def test_the_margin_is_given_or_the_difference_of_two_scores(more: dict[str, Any], margin: float | None) -> None:
    assert build({"prompt": "Why?", "chosen": "So.", "rejected": "No.", **more}).margin == margin


PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
BAD_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("same text", {**PAIR, "rejected": "So."}, "E_SAMEPAIR"),
    ("same after normalisation", {**PAIR, "chosen": "Caf\u00e9 so", "rejected": "Cafe\u0301  so\n"}, "E_SAMEPAIR"),
    ("no rejected", {**PAIR, "rejected": None}, "E_SCHEMA"),
    ("empty chosen", {**PAIR, "chosen": "\u200b"}, "E_EMPTY"),
    ("empty list", {**PAIR, "chosen": []}, "E_EMPTY"),
    ("chosen is a number", {**PAIR, "chosen": True}, "E_SCHEMA"),
    ("contexts differ", {"chosen": [USER, GOOD], "rejected": [MORE, BAD]}, "E_SCHEMA"),
    ("lengths differ", {"chosen": [USER, GOOD], "rejected": [USER, BAD, MORE, BAD]}, "E_SCHEMA"),
    ("ends with the user", {"chosen": [USER], "rejected": [MORE]}, "E_ROLE"),
    ("another prompt", {"prompt": "When?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "E_SCHEMA"),
    ("prompt ends with a reply", {"prompt": [USER, GOOD], "chosen": [GOOD], "rejected": [BAD]}, "E_ROLE"),
    ("one side repeats the prompt", {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": "No."}, "E_ROLE"),
    ("a reply that calls tools", {**PAIR, "chosen": [{**GOOD, "tool_calls": [1]}]}, "E_SCHEMA"),
    (
        "tools within OpenAI's input",
        {"input": {"messages": [USER], "tools": [1]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        "E_SCHEMA",
    ),
    ("two system turns", {**PAIR, "system": "a", "prompt": [SYSTEM, USER]}, "E_SCHEMA"),
    ("a transcript and a text", {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "No."}, "E_SCHEMA"),
    ("margin below zero", {**PAIR, "margin": -1}, "E_LABEL"),
    ("scores the other way round", {**PAIR, "score_chosen": 1, "score_rejected": 2}, "E_LABEL"),
    ("margin is a word", {**PAIR, "margin": "four"}, "E_SCHEMA"),
    ("margin is true", {**PAIR, "margin": True}, "E_SCHEMA"),
    ("margin is not a number", {**PAIR, "margin": float("nan")}, "E_NONFINITE"),
    ("margin is a time stamp", {**PAIR, "margin": 10**400}, "E_RANGE"),
]


@pytest.mark.parametrize(("fields", "reason"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_a_pair_that_breaks_a_rule_has_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        build(fields)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"columns": {"completion": "a"}}, "comparisons have no such field"),
        ({"columns": {"chosn": "a"}}, "Did you mean `chosen`"),
        ({"columns": {"chosen": "a"}}, "`chosen` and `rejected` go together"),
        ({"columns": {"score_chosen": "a"}}, "`score_chosen` and `score_rejected` go together"),
        ({"columns": {"messages": "a", "prompt": "b"}}, "`messages` and `prompt` say the same"),
        ({"columns": {"score_chosen": "a", "score_rejected": "b", "margin": "c"}}, "say the same"),
        ({"reference_after": "####"}, "comparisons have no reference"),
    ],
)
def test_a_mapping_that_makes_no_comparison_is_a_configuration_error(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_columns(source(**more), "data.sources[0]", ["a", "b", "c", "chosen", "rejected"])


def test_files_without_a_preference_are_sent_where_they_belong() -> None:
    with pytest.raises(DataError, match=r"what was chosen.*`table: exports`"):
        choose_columns(source(), "data.sources[0]", ["prompt", "response1", "response2", "annotator1"])
    config = SourceConfig(table=TableName.demonstrations, path="rows.jsonl", columns={"chosen": "a"})
    with pytest.raises(ConfigError, match="demonstrations have no such field"):
        choose_columns(config, "data.sources[0]", ["a"])


@pytest.mark.parametrize(
    ("file", "shape", "accepted", "refused"),
    [
        # Counted in the raw file: 4 empty replies, 5 pairs of different conversations, 4 replies to a reply.
        ("hh-rlhf/test.jsonl.gz", Shape.implicit_preference, 2299, {"E_EMPTY": 4, "E_ROLE": 4, "E_SCHEMA": 5}),
        ("llamafactory/dpo_en_demo.json", Shape.preference, 300, {}),
        ("format-specimens/openai_dpo.jsonl", Shape.preference, 28, {"E_EMPTY": 2}),
        ("format-specimens/trl_preference_conversational.jsonl", Shape.preference, 28, {"E_EMPTY": 2}),
        ("trl/zen/standard_preference.jsonl", Shape.preference, 19, {}),
        ("trl/zen/standard_implicit_prompt_preference.jsonl", Shape.implicit_preference, 19, {}),
        ("trl/zen/conversational_preference.jsonl", Shape.preference, 19, {}),
        ("trl/zen/conversational_implicit_prompt_preference.jsonl", Shape.implicit_preference, 19, {}),
    ],
)
def test_real_preference_files(
    real_data: Path, file: str, shape: Shape, accepted: int, refused: dict[str, int]
) -> None:
    config = source()
    records = list(read_file(real_data / file, SourceFormat.auto))
    present = list(dict.fromkeys(name for record in records if record.fields for name in record.fields))
    mapping = choose_columns(config, "data.sources[0]", present)
    assert mapping.shape is shape
    counts: dict[str, int] = {}
    for record in records:
        assert record.fields is not None
        try:
            build_row(record.fields, mapping, config, "x/rows")
        except BadRowError as problem:
            counts[problem.reason] = counts.get(problem.reason, 0) + 1
    assert counts == refused
    assert len(records) - sum(counts.values()) == accepted
