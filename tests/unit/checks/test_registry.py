"""The registry: what is known, what is refused, and what the refusal says."""

from pathlib import Path

import pytest

from pipeline.checks.registry import (
    Check,
    CheckItem,
    build_check,
    files_read,
    register_check,
    registered_checks,
)
from pipeline.errors import ConfigError

BUILT_IN = [
    "all_lower_case",
    "all_upper_case",
    "answer_first",
    "contains_reference",
    "does_not_refuse",
    "ends_with",
    "exact_match",
    "exactly_one_next_step",
    "excludes_words",
    "facts_only",
    "has_postscript",
    "has_title",
    "in_language",
    "includes_words",
    "instructions",
    "instructions_loose",
    "json_schema",
    "letter_frequency",
    "max_words",
    "min_words",
    "no_commas",
    "num_bullets",
    "num_headings",
    "num_highlights",
    "num_list_items",
    "num_paragraphs",
    "num_placeholders",
    "num_sections",
    "num_sentences",
    "num_upper_case_words",
    "numeric_answer",
    "one_of",
    "paragraph_starts_with",
    "quoted",
    "refuses",
    "regex",
    "repeats_prompt",
    "starts_with",
    "two_answers",
    "word_frequency",
]
ITEM = CheckItem([{"role": "user", "content": "Where is my parcel?"}])


def test_every_built_in_check_is_registered_and_described():
    known = registered_checks()
    assert [name for name in known if name in BUILT_IN] == BUILT_IN
    assert all(summary.endswith(".") for name, summary in known.items() if name in BUILT_IN)


def test_a_plugin_registers_a_check_of_its_own():
    @register_check("mentions_for_this_test")
    def mentions(*, word: str) -> Check:
        """The completion contains the word."""
        return lambda completion, item: word in completion

    check = build_check("mentions_for_this_test", {"word": "parcel"})
    assert check("Your parcel left today.", ITEM)
    assert not check("It left today.", ITEM)
    assert registered_checks()["mentions_for_this_test"] == "The completion contains the word."


def test_a_taken_name_is_refused_and_both_places_are_named():
    with pytest.raises(ConfigError, match=r"test_registry\.py:\d+: the check name `max_words` is taken by .*style\.py"):

        @register_check("max_words")
        def rival(*, limit: int) -> Check:
            return lambda completion, item: True

    assert build_check("max_words", {"limit": 1})("two words", ITEM) is False, "the rival replaced the built-in check"


def test_a_parameter_that_is_positional_or_untyped_is_refused():
    with pytest.raises(ConfigError, match="`word` of the check `positional_for_this_test` must be typed"):

        @register_check("positional_for_this_test")
        def positional(word: str) -> Check:
            return lambda completion, item: True

    assert "positional_for_this_test" not in registered_checks()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "max_word",
            {"limit": 3},
            r"suite: there is no check `max_word`\. Did you mean `max_words` or `min_words`\? Checks: all_",
        ),
        ("max_words", {"limt": 3}, r"suite: the check `max_words` has no parameter `limt`\. Did you mean `limit`\?"),
        ("max_words", {}, r"suite: the check `max_words` needs limit\. Add it under `params`\."),
        ("max_words", {"limit": "60"}, r"suite: max_words\.limit must be int, not '60'\."),
        ("max_words", {"limit": True}, r"suite: max_words\.limit must be int, not True\."),
        ("max_words", {"limit": 0}, r"suite: max_words\.limit must be at least 1, not 0\."),
        ("answer_first", {"openings": "hi"}, r"suite: answer_first\.openings must be list\[str\], not 'hi'\."),
        ("answer_first", {"openings": ["hi", 1]}, r"suite: answer_first\.openings must be list\[str\]"),
        ("exactly_one_next_step", {"marker": " "}, r"suite: exactly_one_next_step\.marker must not be empty\."),
        ("regex", {"pattern": "(open"}, r"suite: regex\.pattern '\(open' is no regular expression: missing \)"),
        ("regex", {"pattern": 3}, r"suite: regex\.pattern must be str, not 3\."),
        ("numeric_answer", {"tolerance": -0.1}, r"suite: numeric_answer\.tolerance must be at least 0, not -0\.1\."),
        ("exact_match", {"ignore_case": 1}, r"suite: exact_match\.ignore_case must be bool, not 1"),
        ("contains_reference", {"word": "x"}, r"suite: the check `contains_reference` has no parameter `word`\."),
        ("facts_only", {"fact_sheet": "missing.yaml"}, r"suite: facts_only\.fact_sheet: no such file: .*missing\.yaml"),
        ("facts_only", {"fact_sheet": 3}, r"suite: facts_only\.fact_sheet must be a path, not 3\."),
    ],
)
def test_a_wrong_name_or_parameter_says_where_and_what_was_meant(name, params, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        build_check(name, params, where="suite")


def test_a_whole_number_serves_where_a_fraction_is_wanted():
    assert build_check("numeric_answer", {"tolerance": 1})("73", CheckItem([], "72"))


def test_a_file_is_looked_up_in_the_working_directory_before_the_project(tmp_path, monkeypatch):
    nearby = tmp_path / "data" / "helpdesk" / "fact_sheet.yaml"
    params = {"fact_sheet": "data/helpdesk/fact_sheet.yaml"}
    monkeypatch.chdir(tmp_path)
    assert files_read("facts_only", params) == [Path(__file__).parents[3] / "data" / "helpdesk" / "fact_sheet.yaml"]
    nearby.parent.mkdir(parents=True)
    nearby.write_text("topics: {plans: [Ember is free.]}\n", encoding="utf-8")
    assert files_read("facts_only", params) == [nearby.resolve()]


def test_a_check_without_files_reads_none():
    assert files_read("max_words", {"limit": 60}) == []
