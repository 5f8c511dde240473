"""Columns become rows: the shapes that are recognised, what the user may say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.data import SourceConfig, TableName
from pipeline.data.building import build_row
from pipeline.data.columns import choose_columns
from pipeline.data.rows import BadRowError, Demonstration, Prompt
from pipeline.errors import ConfigError, DataError


def source(table: TableName = TableName.demonstrations, **more: Any) -> SourceConfig:
    return SourceConfig(table=table, path="rows.jsonl", **more)


def build(fields: dict[str, Any], config: SourceConfig | None = None) -> Demonstration | Prompt:
    config = config or source()
    return build_row(fields, choose_columns(config, "data.sources[0]", list(fields)), config, "x/rows")


USER, REPLY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("fields", "prompt", "completion"),
    [
        ({"messages": [USER, REPLY]}, [USER], [REPLY]),
        ({"messages": [SYSTEM, USER, REPLY, USER, REPLY]}, [SYSTEM, USER], [REPLY, USER, REPLY]),
        ({"prompt": "Why?", "completion": "So."}, [USER], [REPLY]),
        ({"prompt": [SYSTEM, USER], "completion": [REPLY]}, [SYSTEM, USER], [REPLY]),
        ({"prompt": [USER, REPLY, USER], "completion": [REPLY]}, [USER, REPLY, USER], [REPLY]),
        ({"system": "Be brief.", "prompt": "Why?", "completion": "So."}, [SYSTEM, USER], [REPLY]),
        ({"question": "Why?", "answer": "So."}, [USER], [REPLY]),
        ({"instruction": "Why?", "input": "", "output": "So."}, [USER], [REPLY]),
        ({"instruction": "Add", "input": "1", "output": "So."}, [{**USER, "content": "Add\n\n1"}], [REPLY]),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, [USER], [REPLY]),
        ({"conversations": [USER, REPLY]}, [USER], [REPLY]),
    ],
)
def test_common_shapes_are_recognised(fields: Any, prompt: Any, completion: Any) -> None:
    row = build(fields)
    assert isinstance(row, Demonstration)
    assert (row.prompt, row.completion) == (prompt, completion)


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"prompt": "Why?"}, [USER]),
        ({"prompt": [SYSTEM, USER], "completion": "ignored"}, [SYSTEM, USER]),
        ({"messages": [USER, REPLY, USER]}, [USER, REPLY, USER]),
        ({"question": "Why?"}, [USER]),
        ({"instruction": "Why?"}, [USER]),
    ],
)
def test_prompts_need_no_reply(fields: Any, prompt: Any) -> None:
    row = build(fields, source(TableName.prompts))
    assert isinstance(row, Prompt)
    assert row.prompt == prompt


def test_the_mapping_of_the_user_rules_and_the_rest_is_named() -> None:
    config = source(columns={"prompt": "q", "completion": "a", "topic": ""})
    mapping = choose_columns(config, "data.sources[0]", ["q", "a", "id", "topic", "lang\x1b[2J"])
    assert mapping.columns == {"prompt": "q", "completion": "a", "id": "id"}
    assert mapping.describe() == "prompt <- q, completion <- a, id <- id; not read: topic, lang?[2J"


@pytest.mark.parametrize(
    ("columns", "present", "message"),
    [
        ({"prompt": "questoin", "completion": "answer"}, ["question", "answer"], "Did you mean `question`"),
        ({}, ["text"], "running text"),
        ({}, ["foo", "bar"], "has the columns foo, bar"),
        ({}, ["prompt", "chosen", "rejected"], "'chosen'"),
        ({}, ["prompt", "completion", "label"], "not to imitate"),
        ({}, ["id", "instruction", "instances"], "none of"),  # its inputs are nested where they would be lost
        ({}, ["prompt"], "none of"),  # demonstrations without replies
    ],
)
def test_columns_that_do_not_fit_are_one_error(columns: dict[str, str], present: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_columns(source(columns=columns), "data.sources[0]", present)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"columns": {"promt": "a"}}, "Did you mean `prompt`"),
        ({"columns": {"prompt": "a"}}, "`completion` is missing"),
        ({"columns": {"messages": "a", "system": "b"}}, "remove system"),
        ({"columns": {"prompt": "a", "completion": "b", "reference": "c"}, "reference_after": "####"}, "Keep one"),
    ],
)
def test_a_mapping_that_makes_no_row_is_a_configuration_error(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_columns(source(**more), "data.sources[0]", ["a", "b", "c"])


def test_a_user_may_say_that_every_chosen_reply_is_good() -> None:
    config = source(columns={"prompt": "prompt", "completion": "chosen"})
    row = build({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, config)
    assert isinstance(row, Demonstration)
    assert row.completion == [REPLY]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": None, "completion": "So."}, "E_SCHEMA"),
        ({"prompt": "Why?", "completion": 5}, "E_SCHEMA"),
        ({"prompt": "Why?", "completion": True}, "E_SCHEMA"),
        ({"prompt": " ", "completion": "So."}, "E_EMPTY"),
        ({"prompt": "Why?", "completion": ""}, "E_EMPTY"),
        ({"prompt": "Why?", "completion": []}, "E_EMPTY"),
        ({"prompt": [USER, REPLY], "completion": [REPLY]}, "E_ROLE"),
        ({"prompt": [USER], "completion": [REPLY, USER]}, "E_ROLE"),
        ({"system": "a", "prompt": [SYSTEM, USER], "completion": "So."}, "E_SCHEMA"),
        ({"messages": "Why?"}, "E_SCHEMA"),
        ({"messages": [USER]}, "E_ROLE"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "E_ROLE"),
        ({"conversations": [{"from": 5, "value": "x"}]}, "E_SCHEMA"),
        ({"conversations": [{"from": "human"}]}, "E_SCHEMA"),
        ({"instruction": "a", "input": "", "output": "b", "history": [["c", "d"]]}, "E_SCHEMA"),
        ({"messages": [USER, REPLY], "tools": [{"name": "f"}]}, "E_SCHEMA"),
        ({"id": 1.5, "prompt": "Why?", "completion": "So."}, "E_ID"),
        ({"topic": 5, "prompt": "Why?", "completion": "So."}, "E_SCHEMA"),
    ],
)
def test_a_row_that_breaks_a_rule_has_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        build(fields)
    assert caught.value.reason == reason


def test_a_missing_key_of_one_row_is_not_filled_with_null() -> None:
    config = source()
    mapping = choose_columns(config, "data.sources[0]", ["prompt", "completion"])
    with pytest.raises(BadRowError, match="'completion' is missing"):
        build_row({"prompt": "Why?"}, mapping, config, "x/rows")


@pytest.mark.parametrize("table", [TableName.demonstrations, TableName.prompts])
def test_the_reference_follows_the_last_marker(table: TableName) -> None:
    config = source(table, reference_after="####")
    row = build({"question": "Why?", "answer": "1 #### 2\n#### 1,234 \n"}, config)
    assert row.reference == "1,234"
    with pytest.raises(BadRowError, match="no reference answer"):
        build({"question": "Why?", "answer": "no marker"}, config)
    with pytest.raises(BadRowError, match="no reference answer"):
        build({"question": "Why?", "answer": "#### "}, config)


def test_a_row_without_an_id_is_named_after_its_content() -> None:
    one, other = build({"prompt": "Why?", "completion": "So."}), build({"prompt": "Why?", "completion": "No."})
    assert one.id.startswith("x/rows:")
    assert len(one.id) == len("x/rows:") + 12
    assert one.id != other.id
    assert one.id == build({"id": "", "prompt": "Why?", "completion": "So. "}).id
    assert build({"id": 7, "prompt": "Why?", "completion": "So."}).id == "7"
