"""Refusals, listed words and languages."""

import sys

import pytest
from made_rows import assistant, comparison, demonstration, only_prompt, user

from pipeline.checks.languages import language_identifier
from pipeline.data.filters.registry import Drop, build_filter
from pipeline.data.rows import Demonstration
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    "reply",
    [
        "I can't help with that.",
        "I cannot assist with this request.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can\N{RIGHT SINGLE QUOTATION MARK}t help with that.",
        "Sorry, I am unable to help you there.",
        "Oh, I'm so sorry! I can't do that.",
        "Unfortunately, I cannot provide legal advice.",
        "My apologies, but I must decline.",
        "As an AI language model, I do not have opinions.",
        "I'm sorry, but as an AI, I cannot see your screen.",
        "  \n*I won't help* you with this.",
        "I CAN'T COMPLY with that.",
    ],
)
def test_a_refusal_at_the_start_is_found(reply):
    result = build_filter("refusals", {})(demonstration(reply))
    assert isinstance(result, Drop)
    assert result.reason == "refusal"


@pytest.mark.parametrize(
    "reply",
    [
        "Open Settings. If the sensor stays offline, I can't help with that from here; call us.",
        "I can help with that.",
        "I can't help within the hour, but tomorrow works.",
        "Sorry to hear that. Close the main valve first.",
        "I'm afraid of spiders too, and this is what helps.",
        "You write: I cannot help with that. A friendlier way is: Let me find someone who can.",
        "As an AI assistant, I'd be more than happy to help you plan your trip.",
        "As an aide, I do not decide this; the senator does.",
        "As an AI. I do not know.",  # another sentence
        "I will not be long: it takes two minutes.",
    ],
)
def test_what_only_resembles_a_refusal_passes(reply):
    row = demonstration(reply)
    assert build_filter("refusals", {})(row) is row


def test_only_replies_that_are_learned_may_not_refuse():
    judge = build_filter("refusals", {})
    refusal = "I cannot help with that."
    assert judge(row := comparison("Close the valve.", refusal)) is row
    assert isinstance(judge(comparison(refusal, "Close the valve.")), Drop)
    assert judge(row := only_prompt(refusal)) is row
    turns = [*assistant("Close the valve."), *user(refusal), *assistant("Then call us.")]
    row = Demonstration(id="d", source="made", licence=None, prompt=user(refusal), completion=turns)
    assert judge(row) is row
    later = Demonstration(
        id="d", source="made", licence=None, prompt=user("Hi"), completion=turns[:2] + assistant(refusal)
    )
    assert isinstance(judge(later), Drop)


def test_refusals_by_a_list_of_ones_own(tmp_path):
    phrases = tmp_path / "absagen.txt"
    phrases.write_text("# auf Deutsch\nDas kann ich … nicht\n", encoding="utf-8")
    judge = build_filter("refusals", {"phrases": str(phrases)})
    assert isinstance(judge(demonstration("Das kann ich leider nicht beantworten.")), Drop)
    assert judge(row := demonstration("Das kann ich. Es ist nicht schwer.")) is row
    assert judge(row := demonstration("I cannot help with that.")) is row


@pytest.fixture
def word_list(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("damn\nhell\nBloody Hell\nblödsinn\n", encoding="utf-8")
    return str(words)


@pytest.mark.parametrize(
    "text",
    [
        "Damn!",
        "Oh (damn), it broke",
        "What the\nHELL?",
        "so ein Blödsinn",
        "\N{LEFT DOUBLE QUOTATION MARK}hell\N{RIGHT DOUBLE QUOTATION MARK}",
    ],
)
def test_listed_words_are_found_whole_and_in_any_case(text, word_list):
    judge = build_filter("toxicity", {"words": word_list})
    for row in (demonstration(text), only_prompt(text), comparison("Fine.", text)):
        result = judge(row)
        assert isinstance(result, Drop)
        assert result.reason == "listed_words"


@pytest.mark.parametrize("text", ["hello shell", "Michelle asked", "a damned soul", "hell-bent", "he'll come"])
def test_words_that_only_contain_a_listed_one_pass(text, word_list):
    row = demonstration(text)
    assert build_filter("toxicity", {"words": word_list})(row) is row


def test_the_share_of_listed_words_decides(word_list):
    row = demonstration("one two three damn", "five six seven eight")
    assert build_filter("toxicity", {"words": word_list, "max_share": 0.125})(row) is row, "one of eight"
    result = build_filter("toxicity", {"words": word_list, "max_share": 0.124})(row)
    assert result == Drop("listed_words", "1 of 8 words stand in words.txt")
    phrase = build_filter("toxicity", {"words": word_list, "max_share": 0.124})(
        demonstration("oh bloody hell", "a b c d e")
    )
    assert phrase == Drop("listed_words", "2 of 8 words stand in words.txt"), "the word and the phrase it stands in"


ENGLISH = "Close the main valve before you call anybody, because every minute of flowing water costs money."
GERMAN = "Bitte schließen Sie zuerst das Hauptventil, denn jede Minute, in der das Wasser läuft, kostet Geld."
FRENCH = "Fermez d'abord la vanne principale, car chaque minute pendant laquelle l'eau coule coûte de l'argent."
CODE = "```python\nfür = [wert for wert in zahlen if wert]\nreturn sum(für) / len(für)\n```"


def test_language_keeps_what_is_allowed_and_drops_the_rest():
    english = build_filter("language", {"allowed": ["en"]})
    assert english(row := demonstration(ENGLISH)) is row
    for text in (GERMAN, FRENCH):
        result = english(demonstration(text, text))
        assert isinstance(result, Drop)
        assert result.reason == "language"
    both = build_filter("language", {"allowed": ["en", "de"]})
    assert both(row := demonstration(GERMAN, GERMAN)) is row
    assert isinstance(both(demonstration(FRENCH, FRENCH)), Drop)


@pytest.mark.parametrize(
    "text", ["Ja", "ok", "Ventil schließen", CODE, "x = 3 * (y + 4) / 12 - 7 = {4} [5]", "12 34 56 78"]
)
def test_short_text_code_and_mathematics_are_of_no_known_language(text):
    row = only_prompt(text)
    assert build_filter("language", {"allowed": ["en"]})(row) is row


def test_language_says_what_to_install(monkeypatch):
    language_identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"needs py3langid: pip install finetune-pipeline\[language\]"):
        build_filter("language", {"allowed": ["en"]})
    language_identifier.cache_clear()
