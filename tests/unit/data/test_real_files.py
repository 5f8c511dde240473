"""Real public files as their publishers wrote them. The expected counts were taken from the raw JSON, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from curating import DEMONSTRATIONS, PROMPTS, Bench, Made

from pipeline.config.data import NearDuplicatesConfig, SourceConfig, TableName
from pipeline.data.curation import SPLITS
from pipeline.errors import DataError


@pytest.fixture
def curate(tmp_path: Path) -> Callable[..., Made]:
    def run(path: Path, table: TableName = DEMONSTRATIONS, *, bad: list[Any] | None = None, **more: Any) -> Made:
        bench = Bench(tmp_path)
        bench.bad = [] if bad is None else bad
        # What is counted here is what was read; near-duplicates are counted in the tests of the curation.
        near = NearDuplicatesConfig(enabled=False)
        return bench.curate(SourceConfig(table=table, path=str(path), **more), near_duplicates=near)

    return run


def counts(made: Made) -> dict[str, Any]:
    account = made.accounts[0].as_dict()
    keys = ("read", "accepted", "quarantined", "duplicates", "leaks", "over_limit")
    return {key: account[key] for key in keys if account[key]}


@pytest.mark.slow
def test_gsm8k_with_reference_answers(real_data: Path, curate: Callable[..., Made]) -> None:
    columns = {"prompt": "question", "completion": "answer"}
    curated = curate(real_data / "gsm8k/train.jsonl", columns=columns, reference_after="####", licence="MIT")
    assert counts(curated) == {"read": 7473, "accepted": 7473}
    rows = [row for split in SPLITS for row in curated.rows(DEMONSTRATIONS, split)]
    first = next(row for row in rows if row.prompt[0]["content"].startswith("Natalia sold clips"))
    assert (first.reference, first.licence, first.source) == ("72", "MIT", "desk/train")
    assert first.completion[0]["content"].endswith("#### 72")
    sizes = curated.counts["tables"]["prompts"]
    assert sum(sizes.values()) == 7473
    # 10 % of 7473 with a standard deviation of 26: five of them on either side.
    assert 617 < sizes["test"] < 877
    assert 617 < sizes["validation"] < 877


@pytest.mark.slow
def test_gsm8k_with_a_limit(real_data: Path, curate: Callable[..., Made]) -> None:
    curated = curate(real_data / "gsm8k/train.jsonl", limit=200)
    assert counts(curated) == {"read": 7473, "accepted": 200, "over_limit": 7273}


@pytest.mark.parametrize(
    ("file", "table", "expected"),
    [
        ("fastchat/dummy_conversation.json", DEMONSTRATIONS, {"read": 500, "accepted": 500}),
        ("llamafactory/alpaca_en_demo.json", DEMONSTRATIONS, {"read": 999, "accepted": 985, "duplicates": 14}),
        ("llamafactory/identity.json", DEMONSTRATIONS, {"read": 91, "accepted": 91}),
        ("axolotl/alpaca.json", DEMONSTRATIONS, {"read": 2, "accepted": 2}),
        ("axolotl/conversation.json", DEMONSTRATIONS, {"read": 1, "accepted": 1}),
        ("inspect-examples/biology_qa.jsonl", DEMONSTRATIONS, {"read": 20, "accepted": 20}),
        ("trl/zen/conversational_language_modeling.jsonl", DEMONSTRATIONS, {"read": 19, "accepted": 19}),
        ("trl/zen/conversational_prompt_completion.jsonl", DEMONSTRATIONS, {"read": 19, "accepted": 19}),
        ("trl/zen/standard_prompt_completion.jsonl", DEMONSTRATIONS, {"read": 19, "accepted": 19}),
        ("trl/zen/standard_prompt_only.jsonl", PROMPTS, {"read": 19, "accepted": 19}),
        ("trl/zen/conversational_prompt_only.jsonl", PROMPTS, {"read": 19, "accepted": 19}),
        ("arena-hard/question.jsonl", PROMPTS, {"read": 500, "accepted": 500}),
    ],
)
def test_files_of_other_tools_are_recognised(
    real_data: Path, curate: Callable[..., Made], file: str, table: TableName, expected: dict[str, int]
) -> None:
    assert counts(curate(real_data / file, table)) == expected


def test_self_instruct_needs_a_mapping(real_data: Path, curate: Callable[..., Made]) -> None:
    file = real_data / "self-instruct/user_oriented_instructions.jsonl"
    with pytest.raises(DataError, match="columns id, motivation_app, instruction, instances"):
        curate(file, PROMPTS)
    mapped = curate(file, PROMPTS, columns={"prompt": "instruction"})
    assert counts(mapped) == {"read": 252, "accepted": 251, "duplicates": 1}
    file = real_data / "self-instruct/text-davinci-003_predictions.jsonl"
    mapped = curate(file, columns={"prompt": "prompt", "completion": "response"})
    assert counts(mapped) == {"read": 252, "accepted": 252}


def test_a_conversation_with_missing_turns_is_set_aside(real_data: Path, curate: Callable[..., Made]) -> None:
    bad: list[dict[str, Any]] = []
    with pytest.raises(DataError, match="No row is left in demonstrations"):
        curate(real_data / "axolotl/conversation.missingturns.json", bad=bad)
    assert [(entry["reason"], entry["line"]) for entry in bad] == [("E_EMPTY", 1)]


def test_a_reply_that_says_not_to_be_trained_on_is_set_aside(real_data: Path, curate: Callable[..., Made]) -> None:
    bad: list[dict[str, Any]] = []
    curate(real_data / "format-specimens/openai_chat.jsonl", bad=bad)
    assert {entry["reason"] for entry in bad} == {"E_SCHEMA"}
    assert all("'weight'" in entry["detail"] for entry in bad)


@pytest.mark.parametrize(
    "file",
    [
        "trl/zen/standard_language_modeling.jsonl",
        "trl/zen/standard_preference.jsonl",
        "trl/zen/conversational_implicit_prompt_preference.jsonl",
        "trl/zen/conversational_unpaired_preference.jsonl",
        "trl/zen/standard_stepwise_supervision.jsonl",
        "llamafactory/c4_demo.jsonl",
        "llamafactory/dpo_en_demo.json",
        "llamafactory/kto_en_demo.json",
        "hh-rlhf/test.jsonl.gz",
        "self-instruct/seed_tasks.jsonl",
        "labelstudio-exports/sft.csv",
        "labelstudio-exports/sft.json",
    ],
)
def test_what_is_no_demonstration_is_never_taken_for_one(
    real_data: Path, curate: Callable[..., Made], file: str
) -> None:
    with pytest.raises(DataError, match=r"data\.sources\[0\]\.columns"):
        curate(real_data / file)
