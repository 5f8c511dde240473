"""The help-desk data are what their card says: counts, ids, topics, no leak from test to training."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pipeline.checks.registry import CheckItem, build_check

DATA = Path(__file__).parents[3] / "data"
HELPDESK = DATA / "helpdesk"


def rows(name):
    return [json.loads(line) for line in (HELPDESK / name).read_text(encoding="utf-8").splitlines()]


DEMONSTRATIONS, TEST_PROMPTS = rows("demonstrations.jsonl"), rows("test_prompts.jsonl")
FACTS = yaml.safe_load((HELPDESK / "fact_sheet.yaml").read_text(encoding="utf-8"))
CONTACT = "support@hearthlog.example"  # what the right answer names where the fact sheet has none
REFERENCES = [(row["id"], row["reference"]) for row in TEST_PROMPTS if row["reference"] != CONTACT]


def normalised(text):
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def user_words(messages):
    return normalised(" ".join(message["content"] for message in messages if message["role"] == "user"))


def test_there_are_enough_rows_of_every_topic():
    assert len(DEMONSTRATIONS) >= 160
    assert len(TEST_PROMPTS) >= 200
    topics = Counter(row["topic"] for row in DEMONSTRATIONS)
    assert len(topics) == 12
    assert set(topics) == {row["topic"] for row in TEST_PROMPTS} == set(FACTS["topics"])
    assert min(topics.values()) == 20


def test_ids_are_unique_over_both_files():
    ids = [row["id"] for row in [*DEMONSTRATIONS, *TEST_PROMPTS]]
    assert len(set(ids)) == len(ids)


def test_no_prompt_occurs_twice_neither_within_a_file_nor_across():
    demonstrated = [user_words(row["messages"]) for row in DEMONSTRATIONS]
    tested = [user_words(row["prompt"]) for row in TEST_PROMPTS]
    openings = [normalised(row["messages"][0]["content"]) for row in DEMONSTRATIONS]
    asked_last = [normalised(row["prompt"][-1]["content"]) for row in TEST_PROMPTS]
    for prompts in (demonstrated, tested, openings, asked_last):
        assert [prompt for prompt, count in Counter(prompts).items() if count > 1] == []
    assert set(demonstrated + openings) & set(tested + asked_last) == set()


@pytest.mark.slow
def test_no_test_prompt_is_a_near_copy_of_a_demonstration():
    """By shared words: two prompts of which three in five words are common ask the same thing in the same way."""
    demonstrated = [(row["id"], set(user_words(row["messages"]).split())) for row in DEMONSTRATIONS]
    near = [
        (row["id"], other)
        for row in TEST_PROMPTS
        for other, words in demonstrated
        if len(words & (asked := set(user_words(row["prompt"]).split()))) >= 0.6 * len(words | asked)
    ]
    assert near == []


def test_roles_alternate_and_end_where_they_must():
    for messages, last in [
        *((row["messages"], "assistant") for row in DEMONSTRATIONS),
        *((row["prompt"], "user") for row in TEST_PROMPTS),
    ]:
        assert [message["role"] for message in messages] == (["user", "assistant"] * len(messages))[: len(messages)]
        assert messages[-1]["role"] == last
        assert all(message["content"].strip() == message["content"] != "" for message in messages)
    assert sum(len(row["messages"]) > 2 for row in DEMONSTRATIONS) == 24


@pytest.mark.parametrize(("row_id", "reference"), REFERENCES)
def test_a_reference_stands_in_the_fact_sheet_and_in_a_demonstration_but_not_in_its_own_prompt(row_id, reference):
    row = next(row for row in TEST_PROMPTS if row["id"] == row_id)
    facts = "\n".join([*FACTS["topics"][row["topic"]], *FACTS["topics"]["plans"]])
    assert reference in facts
    taught = [message["content"] for other in DEMONSTRATIONS if other["topic"] == row["topic"]
              for message in other["messages"] if message["role"] == "assistant"]  # fmt: skip
    contains = build_check("contains_reference", {})
    item = CheckItem(row["prompt"], reference)
    assert any(contains(completion, item) for completion in taught)
    assert not contains(row["prompt"][-1]["content"], item), "echoing the question would pass"


def test_each_topic_has_one_question_that_the_fact_sheet_cannot_answer():
    unanswerable = Counter(row["topic"] for row in TEST_PROMPTS if row["reference"] == CONTACT)
    assert unanswerable == dict.fromkeys(FACTS["topics"], 1)
    assert any(CONTACT in fact for fact in FACTS["contact"])


@pytest.mark.parametrize("row", DEMONSTRATIONS, ids=lambda row: row["id"])
def test_every_demonstration_contains_its_reference(row):
    first_reply = next(message["content"] for message in row["messages"] if message["role"] == "assistant")
    check = build_check("contains_reference", {})
    assert check(first_reply, CheckItem(row["messages"][:1], row["reference"]))


def test_the_card_states_the_counts_of_the_files():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    stated = {
        topic: tuple(int(count) for count in counts.split("|"))
        for topic, counts in re.findall(r"(?m)^\| `?([a-z_]+)`? \|((?: *\d+ *\|){2} *\d+) *\|$", card)
    }
    counted = {
        topic: (
            len(FACTS["topics"][topic]),
            sum(row["topic"] == topic for row in DEMONSTRATIONS),
            sum(row["topic"] == topic for row in TEST_PROMPTS),
        )
        for topic in FACTS["topics"]
    }
    totals = tuple(sum(column) for column in zip(*counted.values(), strict=True))
    assert stated == {**counted, "all": totals}
