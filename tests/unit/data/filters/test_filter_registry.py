"""The registry of filters: what it holds, what it refuses, and which files it names."""

import re
from pathlib import Path

import pytest
from made_rows import comparison, demonstration, only_prompt

from pipeline.checks.refusals import REFUSALS
from pipeline.data.filters.registry import Drop, Filter, build_filter, files_read, register_filter, registered_filters
from pipeline.errors import ConfigError

BUILT_IN = [
    "blobs",
    "broken_characters",
    "control_tokens",
    "identical_completions",
    "invisible",
    "language",
    "length",
    "licence",
    "personal_data",
    "placeholders",
    "refusals",
    "repetition",
    "secrets",
    "toxicity",
]
NEEDED = {"language": {"allowed": ["en"]}, "licence": {"deny": ["CC-BY-NC-4.0"]}, "toxicity": {"words": "words.txt"}}


def test_every_built_in_filter_is_registered_and_described():
    known = registered_filters()
    assert [name for name in known if not name.endswith("for_this_test")] == BUILT_IN
    assert all(summary.endswith(".") for summary in known.values())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_filter_passes_an_ordinary_row_of_every_type_as_the_same_object(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("damn\n", encoding="utf-8")
    judge = build_filter(name, NEEDED.get(name, {}))
    answer, other = "Water has flowed for two hours. Close the main valve.", "I do not know what it means."
    rows = [demonstration(answer), only_prompt("What does the leak alert mean, please?"), comparison(answer, other)]
    for row in rows:
        assert judge(row) is row


def test_a_plugin_registers_a_filter_of_its_own():
    @register_filter("mentions_for_this_test")
    def mentions(*, word: str) -> Filter:
        """The reference contains the word."""
        return lambda row: row if word in str(row) else Drop("unrelated", word)

    judge = build_filter("mentions_for_this_test", {"word": "valve"})
    assert judge(only_prompt("Which valve?")) == only_prompt("Which valve?")
    assert judge(only_prompt("Which pump?")) == Drop("unrelated", "valve")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lenght", {}, r"there is no filter `lenght`\. Did you mean `length`\? Filters: blobs,"),
        ("length", {"min": 3}, r"the filter `length` has no parameter `min`\."),
        ("length", {"min_prompt": "3"}, r"length\.min_prompt must be int \| None, not '3'\."),
        ("length", {"min_prompt": 9, "max_prompt": 3}, r"length\.min_prompt \(9\) is above length\.max_prompt \(3\)\."),
        ("repetition", {"ngram": 0}, r"repetition\.ngram \(0\) must be at least 1"),
        ("repetition", {"max_share": 1.0}, r"repetition\.max_share must be at least 0 and below 1, not 1\.0\."),
        ("licence", {}, r"licence drops nothing like this\. Set allow, deny or missing: drop\."),
        ("licence", {"missing": "ask"}, r"licence\.missing must be one of keep, drop, not 'ask'\."),
        ("language", {}, r"the filter `language` needs allowed\."),
        ("language", {"allowed": []}, r"language\.allowed is empty\. Known: "),
        ("language", {"allowed": ["english"]}, r"language\.allowed names 'english', which is unknown\. Known: "),
        ("language", {"allowed": ["en"], "min_probability": 0}, r"language\.min_probability must lie above 0"),
        ("refusals", {"phrases": "none.txt"}, r"refusals\.phrases: no such file: none\.txt"),
        ("toxicity", {}, r"the filter `toxicity` needs words\."),
        ("personal_data", {"action": "hide"}, r"personal_data\.action must be one of drop, mask, keep, not 'hide'\."),
        ("personal_data", {"kinds": ["name"]}, r"personal_data\.kinds names 'name'; it may name card, email, iban"),
        ("personal_data", {"kinds": []}, r"personal_data\.kinds is empty; it may name card"),
        ("control_tokens", {"tokens": [""]}, r"control_tokens\.tokens must be of at least two characters each\."),
        ("broken_characters", {"max_count": -1}, r"broken_characters\.max_count must be at least 0, not -1\."),
        ("blobs", {"min_characters": 10}, r"blobs\.min_characters must be at least 80, not 10"),
    ],
)
def test_a_wrong_name_or_parameter_says_where_and_what_was_meant(name, params, message):
    with pytest.raises(ConfigError, match=f"^{re.escape('curate.filters[0]')}: {message}"):
        build_filter(name, params, where="curate.filters[0]")


def test_the_files_of_a_filter_are_named_so_that_they_can_be_hashed(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("damn\n", encoding="utf-8")
    assert files_read("toxicity", {"words": str(words)}) == [words]
    assert files_read("refusals", {}) == [REFUSALS], "the shipped list counts too: results change with it"
    assert files_read("length", {"min_prompt": 3}) == []


def test_a_list_without_phrases_and_one_that_is_not_text_are_refused(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("# nothing yet\n\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="words.txt lists no phrase. Write one a line"):
        build_filter("toxicity", {"words": str(words)})
    words.write_bytes(b"caf\xe9\n")
    with pytest.raises(ConfigError, match="words.txt is not UTF-8"):
        build_filter("toxicity", {"words": str(words)})
