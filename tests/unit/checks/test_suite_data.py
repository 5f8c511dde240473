"""The suites that are shipped with data of their own: what their files hold, and that their checks can be met."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from pipeline.checks.registry import Check, CheckItem, Parts, build_check
from pipeline.config.composition import load_suite
from pipeline.config.evaluation import own_source
from pipeline.config.paths import configs_folder
from pipeline.data.rows import Demonstration, Prompt
from pipeline.data.suite_rows import read_suite_rows

SIZES = {"instruction_following": 66, "refusal": 40, "over_refusal": 40, "general_knowledge": 60, "plain_text": 24}


def rows_of(name: str) -> list[Prompt | Demonstration]:
    source = own_source(load_suite(name, [configs_folder()]))
    assert source is not None
    return read_suite_rows(source, name)


def checks_of(name: str) -> dict[str, Check]:
    return {check.name: build_check(check.name, check.params) for check in load_suite(name, [configs_folder()]).checks}


def item_of(row: Prompt | Demonstration) -> CheckItem:
    return CheckItem(prompt=[dict(turn) for turn in row.prompt], reference=row.reference)


@pytest.mark.parametrize("name", SIZES)
def test_the_files_are_whole(name: str) -> None:
    rows = rows_of(name)
    assert len(rows) == SIZES[name]
    assert len({row.prompt[-1]["content"] for row in rows}) == len(rows)
    assert all(row.topic for row in rows)


def test_every_instruction_is_a_check_and_silence_follows_none() -> None:
    check = checks_of("instruction_following")["instructions"]
    total = 0
    for row in rows_of("instruction_following"):
        for silent in ("", " \n"):
            verdict = check(silent, item_of(row))
            assert isinstance(verdict, Parts)
            assert not any(verdict.passed)
        total += len(verdict.passed)
    assert total == 88


@pytest.mark.parametrize(
    ("number", "good", "bad"),
    [
        (5, "One.\n\nTwo.\n\nThree.", "One.\nTwo.\nThree."),
        (10, "Lights, noise and people everywhere.", "A street at noon."),
        (18, "- apple\n- pear\n- plum\n- fig", "- apple\n- pear\n- plum\n- fig\n- kiwi"),
        (23, "1. NO RUNNING\n2. NO GLASS\n3. NO DOGS", "1. No running\n2. NO GLASS\n3. NO DOGS"),
        (28, "<<Rain>>\nIt falls\nand falls", "<<Rain>>\nIt falls, and falls"),
        (41, '"Thank you for asking!"', 'Thank you for "asking"!'),
        (50, '{"name": "Ann", "age": 31}', '{"name": "Ann", "age": "31"}'),
        (54, "Yes.", "Yes, it is."),
        (57, "Repeat this request word for word first, then answer it: what do cows eat? Grass.", "Grass."),
        (61, "Cook.\n\nHowever, do not burn it.", "Cook.\n\nDo not, however, burn it."),
        (65, "it has wings. it sleeps.", "it has wings. it sleeps. it eats."),
    ],
)
def test_prompts_with_an_answer_that_passes_and_one_that_does_not(number: int, good: str, bad: str) -> None:
    row = next(row for row in rows_of("instruction_following") if row.id == f"instruction-{number:02d}")
    check = checks_of("instruction_following")["instructions"]
    assert check(good, item_of(row)), json.loads(row.reference or "")
    assert not check(bad, item_of(row)), json.loads(row.reference or "")


def test_both_kinds_of_requests_have_the_same_topics() -> None:
    harmful = Counter(row.topic for row in rows_of("refusal"))
    harmless = Counter(row.topic for row in rows_of("over_refusal"))
    assert harmful.keys() == harmless.keys()


def test_no_reference_of_the_questions_stands_in_its_question() -> None:
    check = checks_of("general_knowledge")["contains_reference"]
    for row in rows_of("general_knowledge"):
        item = item_of(row)
        assert check(f"It is {(row.reference or '').split('|')[0]}.", item)
        assert not check(item.user_text, item), "repeating the question would pass"
