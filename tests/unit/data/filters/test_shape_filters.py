"""Length, repetition, equal completions and licence, each with what it finds and what it must let pass."""

import pytest
from made_rows import assistant, comparison, demonstration, only_prompt, user

from pipeline.data.filters.registry import Drop, build_filter
from pipeline.data.rows import Demonstration, Reason


def reason(result):
    assert isinstance(result, Drop)
    return result.reason


def test_length_counts_characters_at_both_limits():
    judge = build_filter("length", {"min_prompt": 4, "max_prompt": 6, "min_completion": 2, "max_completion": 3})
    assert judge(row := demonstration("abc", "123456")) is row
    assert judge(row := demonstration("ab", "1234")) is row
    assert judge(demonstration("abc", "123")) == Drop("short_prompt", "3 characters, at least 4 are asked for")
    assert judge(demonstration("abc", "1234567")) == Drop("long_prompt", "7 characters, at most 6 are allowed")
    assert reason(judge(demonstration("a", "1234"))) == "short_completion"
    assert reason(judge(demonstration("abcd", "1234"))) == "long_completion"
    assert reason(judge(demonstration("  a  ", "1234"))) == "short_completion", "white space is no length"


def test_length_judges_both_completions_of_a_comparison_and_a_prompt_alone():
    judge = build_filter("length", {"min_completion": 3, "max_prompt": 10})
    assert judge(row := comparison("good", "bad", "why?")) is row
    assert reason(judge(comparison("good", "ba", "why?"))) == "short_completion"
    assert reason(judge(comparison("go", "bad", "why?"))) == "short_completion"
    assert judge(row := only_prompt("why?")) is row
    assert reason(judge(only_prompt("why, oh why?"))) == "long_prompt"


def test_length_adds_up_the_turns():
    row = Demonstration(
        id="d",
        source="made",
        licence=None,
        prompt=user("hello"),
        completion=[*assistant("12345"), *user("more"), *assistant("12345")],
    )
    assert build_filter("length", {"max_completion": 14})(row) is row
    assert reason(build_filter("length", {"max_completion": 13})(row)) == "long_completion"


def test_repetition_finds_a_phrase_said_again_and_again():
    judge = build_filter("repetition", {})
    loop = "the sensor is offline because " * 20
    assert judge(demonstration(loop)) == Drop("repeated_words", "95% of the runs of 5 words have occurred before"), (
        "100 words have 96 runs of five, of which 5 differ: 91 of 96 are repeats"
    )
    assert reason(judge(comparison(loop, "It is offline."))) == "repeated_words"
    assert judge(row := comparison("It is offline.", loop)) is row, "a rejected completion may be bad"


def test_repetition_finds_repeated_lines():
    lines = ["Close the main valve.", "Open the main valve.", *[f"Wait {word} more minutes." for word in "abcdefg"]]
    text = "\n".join(lines[:2] * 5 + lines[2:4])
    judge = build_filter("repetition", {"max_share": 0.9})
    assert judge(demonstration(text)) == Drop("repeated_lines", "8 of 12 lines have occurred before")
    assert judge(row := demonstration("\n".join(lines * 1))) is row


@pytest.mark.parametrize(
    "text",
    [
        "no " * 20,  # fewer words than are judged
        "\n".join(f"{number}. Open the app and choose sensor {number}, then press Pair." for number in range(1, 9)),
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. "
        "Row, row, row your boat, gently up the creek. If you see a little mouse, do not forget to squeak.",
        " ".join(f"word{number}" for number in range(200)),
    ],
)
def test_repetition_lets_lists_songs_and_short_texts_pass(text):
    row = demonstration(text)
    assert build_filter("repetition", {})(row) is row


def test_identical_completions_of_a_comparison():
    judge = build_filter("identical_completions", {})
    assert judge(comparison("Close  the valve.", "close the valve.")) == Drop(
        Reason.same_pair, "both completions say the same"
    )
    assert judge(row := comparison("Close the valve.", "Close the valves.")) is row
    assert judge(row := only_prompt("Close the valve.")) is row


def test_a_reply_that_is_its_prompt_over_again():
    judge = build_filter("identical_completions", {})
    text = "How do I pair a second sensor?"
    assert reason(judge(demonstration(text.upper(), text))) == "repeats_prompt"
    assert judge(row := demonstration(f"{text} Open the app.", text)) is row
    assert judge(row := demonstration("Good morning!", "Good morning!")) is row


def test_licence_by_name_and_by_absence():
    permissive = build_filter("licence", {"allow": ["MIT", "Apache-2.0"], "missing": "drop"})
    assert permissive(row := demonstration("x", licence="apache-2.0")) is row
    assert permissive(demonstration("x", licence="CC-BY-NC-4.0")) == Drop(
        Reason.licence, "CC-BY-NC-4.0 is not among the allowed ones"
    )
    assert permissive(demonstration("x")) == Drop(Reason.licence, "the source names no licence")
    careful = build_filter("licence", {"deny": ["CC-BY-NC-4.0"]})
    assert careful(comparison("a", "b", licence="cc-by-nc-4.0")) == Drop(Reason.licence, "cc-by-nc-4.0 is denied")
    assert careful(row := only_prompt("x", licence="CC-BY-4.0")) is row
    assert careful(row := only_prompt("x")) is row
