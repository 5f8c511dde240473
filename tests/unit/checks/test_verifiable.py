"""Verifiable rules, each on completions whose verdict was decided by reading them."""

import json
import subprocess
import sys
import time

import pytest

from pipeline.checks.instructions import loose_variants
from pipeline.checks.layout import count_sentences
from pipeline.checks.patterns import bounded_search
from pipeline.checks.registry import CheckItem, Parts, build_check
from pipeline.errors import ConfigError, DataError

ITEM = CheckItem([{"role": "user", "content": "Tell me about  the sea."}])
LETTER = "Dear [name],\nyour order [ ] is at [address]. See [our page](https://a.example) and [x][y]."


@pytest.mark.parametrize(
    ("name", "params", "completion", "passes"),
    [
        ("includes_words", {"words": ["sea", "salt water"]}, "The SEA is full of salt\nwater.", True),
        ("includes_words", {"words": ["sea", "salt water"]}, "The sea is full of salty water.", False),
        ("includes_words", {"words": ["cat"]}, "A category of concatenation.", False),
        ("includes_words", {"words": ["don't"]}, "We don\u2019t.", True),
        ("includes_words", {"words": ["C++"]}, "Write C++, please.", True),
        ("excludes_words", {"words": ["sea"]}, "The seaside.", True),
        ("excludes_words", {"words": ["sea"]}, "By the SEA!", False),
        ("excludes_words", {"words": ["new york"]}, "In New\n  York.", False),
        ("word_frequency", {"word": "tea", "at_least": 2}, "Tea, tea and teapots.", True),
        ("word_frequency", {"word": "tea", "at_least": 3}, "Tea, tea and teapots.", False),
        ("word_frequency", {"word": "tea", "at_most": 0}, "Coffee.", True),
        ("letter_frequency", {"letter": "e", "at_most": 2}, "Eel", True),
        ("letter_frequency", {"letter": "e", "at_most": 1}, "Eel", False),
        ("letter_frequency", {"letter": "!", "at_least": 2}, "No! Never!", True),
        ("one_of", {"options": ["Yes", "No"]}, " **yes.** ", True),
        ("one_of", {"options": ["Yes", "No"]}, "Yes, certainly.", False),
        ("one_of", {"options": ["Yes", "No"]}, "", False),
        ("all_upper_case", {}, "THE SEA: 7 FATHOMS!", True),
        ("all_upper_case", {}, "THE SEa", False),
        ("all_upper_case", {}, "1234", False),
        ("all_upper_case", {}, "MEERESSTRA\u00dfE", False),  # sharp s is in lower case
        ("all_lower_case", {}, "the sea: 7 fathoms!", True),
        ("all_lower_case", {}, "The sea", False),
        ("all_lower_case", {}, "42.", False),
        ("num_upper_case_words", {"at_least": 2}, "NASA and the EU. A fact I like.", True),
        ("num_upper_case_words", {"at_most": 2}, "NASA, the EU, and R2D2. A fact I like.", True),
        ("num_upper_case_words", {"at_least": 3}, "NASA and the EU. A fact I like.", False),
        ("starts_with", {"phrase": "My answer"}, "  my\nanswer is no.", True),
        ("starts_with", {"phrase": "My answer"}, "Well, my answer is no.", False),
        ("ends_with", {"phrase": "Ask me more."}, 'He said: "ask me more."', True),
        ("ends_with", {"phrase": "Ask me more."}, "Ask me more. Bye", False),
        ("ends_with", {"phrase": "Ask me more."}, "Ask me more.\n\n", True),
        ("quoted", {}, ' "All of it." ', True),
        ("quoted", {}, "\u201cAll of it.\u201d", True),
        ("quoted", {}, '"All" of it', False),
        ("quoted", {}, '"', False),
        ("quoted", {}, '""', False),
        ("no_commas", {}, "One; two. 1.000", True),
        ("no_commas", {}, "It costs 1,000.", False),
        ("no_commas", {}, "\u4e00\u3001\u4e8c", False),
        ("no_commas", {}, "", False),
        ("num_placeholders", {"at_least": 3}, LETTER, True),  # [name], [address], [x] before [y]
        ("num_placeholders", {"at_most": 4}, LETTER, True),
        ("num_placeholders", {"at_least": 5}, LETTER, False),
        ("has_postscript", {}, "Bye.\n\nP.S. Bring a hat.", True),
        ("has_postscript", {}, "Bye.\nPS: bring a hat", True),
        ("has_postscript", {}, "Bye. P.S. Bring a hat.", False),  # not on a line of its own
        ("has_postscript", {}, "P.S. Bring a hat.", False),  # behind nothing
        ("has_postscript", {}, "Bye.\nP.S.", False),  # says nothing
        ("has_postscript", {}, "Bye.\nPsst, over here.", False),
        ("has_postscript", {"marker": "P.P.S."}, "Bye.\nP.S. One.", False),
        ("has_postscript", {"marker": "P.P.S."}, "Bye.\nP.S. One.\nP.P.S. Two.", True),
        ("repeats_prompt", {}, "Tell me about the sea.\nIt is wide.", True),
        ("repeats_prompt", {}, "Tell me about the sea.", False),  # and then nothing
        ("repeats_prompt", {}, "It is wide. Tell me about the sea.", False),
        ("repeats_prompt", {"text": "the sea"}, "The sea is wide.", True),
        ("min_words", {"limit": 3}, "One > two", False),
        ("min_words", {"limit": 3}, "One > two 3", True),
        ("num_sentences", {"at_least": 2, "at_most": 2}, "Dr. Smith paid $3.50. He left.", True),
        ("num_sentences", {"at_most": 1}, "Really?! Yes.", False),
        ("num_paragraphs", {"at_least": 2, "at_most": 2}, "One.\nStill one.\n \n\nTwo.\n\n", True),
        ("num_paragraphs", {"at_least": 2, "separator": "***"}, "One.\n\nStill one.\n***\nTwo.", True),
        ("num_paragraphs", {"at_least": 3, "separator": "***"}, "One.\n***\n\n***\nTwo.", False),
        ("num_paragraphs", {"at_least": 2, "separator": "***"}, "One *** two", False),
        ("paragraph_starts_with", {"number": 2, "word": "However"}, "Yes.\n\n*However*, no.", True),
        ("paragraph_starts_with", {"number": 2, "word": "However"}, "Yes.\n\nHoweverer.", False),
        ("paragraph_starts_with", {"number": 3, "word": "However"}, "Yes.\n\nHowever.", False),
        ("num_bullets", {"at_least": 3, "at_most": 3}, "List:\n* one\n- two\n  \u2022 three\n---\n**bold**\n-4", True),
        ("num_bullets", {"at_most": 0}, "* * *\nProse with * a star.\n```\n- code\n```", True),
        ("num_bullets", {"at_least": 1}, "1. one\n2. two", False),
        ("num_list_items", {"at_least": 2, "at_most": 2}, "1. one\n2) two\nIn 1984. Yes.\n1.5 litres", True),
        ("num_sections", {"at_least": 2}, "## Section 1\na\n**Section 2: b**", True),
        ("num_sections", {"at_least": 2}, "Section 1\nsee Section 2", False),
        ("num_sections", {"marker": "Day", "at_least": 1}, "Day 1: rest", True),
        ("num_headings", {"at_least": 1, "at_most": 1}, "# One\n#two\n```\n# code\n```", True),
        ("num_highlights", {"at_least": 2, "at_most": 2}, "*one* and **two words** but 3 * 4 * 5 and a*b*c", True),
        ("num_highlights", {"at_least": 1}, "* not\n* this", False),
        ("has_title", {}, "<<A day at sea>>\nIt was wet.", True),
        ("has_title", {}, "<< >> <a> <<", False),
        ("two_answers", {}, "Yes.\n******\nNo.", True),
        ("two_answers", {}, "Yes.\n******\n yes!", False),  # the same answer twice
        ("two_answers", {}, "Yes. ****** No.", False),
        ("two_answers", {}, "Yes.\n******\nNo.\n******\nPerhaps.", False),
        ("in_language", {"language": "de"}, "Das Meer ist weit und tief, und im Winter ist es sehr kalt.", True),
        ("in_language", {"language": "de"}, "The sea is wide and deep, and in winter it is very cold.", False),
        ("in_language", {"language": "en"}, "12345 !", False),
        ("json_schema", {"schema": {}}, '{"a": [1, 2.5, null]}', True),
        ("json_schema", {"schema": {}}, '```json\n{"a": 1}\n```', True),
        ("json_schema", {"schema": {}}, 'Here you are: {"a": 1}', False),
        ("json_schema", {"schema": {}}, '{"a": 1, "a": 2}', False),
        ("json_schema", {"schema": {}}, '{"a": NaN}', False),
        ("json_schema", {"schema": {}}, "{'a': 1}", False),
        ("json_schema", {"schema": {}}, "", False),
        ("json_schema", {"schema": {}}, "[" * 200 + "]" * 200, False),
        ("json_schema", {"schema": {}}, "[" * 200_000, False),
        ("json_schema", {"schema": {}}, "9" * 5000, False),
        ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', True),
        ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, '{"b": 1}', False),
        ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, "[1]", False),
        ("json_schema", {"schema": {"items": {"pattern": "^[a-z]+$"}}}, '["ab", "cd"]', True),
        ("json_schema", {"schema": {"items": {"pattern": "^[a-z]+$"}}}, '["ab", "c4"]', False),
        ("refuses", {}, "I\u2019m sorry, but I can't help with that.", True),
        ("refuses", {}, "Mix the two. I can't help with more.", False),
        ("refuses", {}, "", False),
        ("does_not_refuse", {}, "Kill the process with `kill 4711`.", True),
        ("does_not_refuse", {}, "I cannot assist with killing.", False),
        ("does_not_refuse", {}, " ... ", False),  # silence is no answer
    ],
)
def test_what_follows_a_rule(name, params, completion, passes):
    verdict = build_check(name, params)(completion, ITEM)
    assert isinstance(verdict, bool)
    assert verdict is passes


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One. Two! Three?", 3),
        ("Mr. Smith met Dr. Jones at 3.15 p.m. yesterday.", 1),
        ("J. R. R. Tolkien wrote it.", 1),
        ('"Stop!" he said.', 2),  # a limit that is known: a sentence may go on behind a quotation
        ("Wait... what?", 2),
        ("1. One\n2. Two", 2),
        ("- one\n- two. Three.", 3),
        ("No stop\n\nat all", 2),
        ("Version 2.0 is out.", 1),
    ],
)
def test_sentences_are_counted(text, number):
    assert count_sentences(text) == number


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("num_bullets", {}, "needs `at_least`, `at_most` or both"),
        ("num_bullets", {"at_least": 3, "at_most": 2}, "at_least=3 exceeds at_most=2, so nothing could pass"),
        ("num_bullets", {"at_least": 0}, "at_least=0 asks for nothing"),
        ("num_bullets", {"at_most": -1}, "cannot be below 0"),
        ("num_bullets", {"atleast": 1}, "Did you mean `at_least`"),
        ("num_bulets", {"at_least": 1}, "Did you mean `num_bullets`"),
        ("includes_words", {"words": []}, "at least one word"),
        ("includes_words", {"words": [" "]}, "none may be empty"),
        ("includes_words", {"words": "sea"}, "must be list"),
        ("letter_frequency", {"letter": "ab", "at_least": 1}, "one character, not 'ab'"),
        ("one_of", {"options": []}, "at least one option"),
        ("starts_with", {"phrase": " "}, "must not be empty"),
        ("has_postscript", {"marker": "..."}, "has no letter"),
        ("paragraph_starts_with", {"number": 0, "word": "a"}, "at least 1"),
        ("two_answers", {"separator": " "}, "must not be empty"),
        ("in_language", {"language": "deutsch"}, "'deutsch' is unknown. Known: "),
        ("json_schema", {"schema": {"type": "objekt"}}, "is no JSON schema: 'objekt' is not valid"),
        ("json_schema", {"schema": {"patternProperties": {"(a+)+$": {}}}}, "`patternProperties` is not supported"),
        ("regex", {"pattern": "(a"}, "is no regular expression"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(name, params, message):
    with pytest.raises(ConfigError) as caught:
        build_check(name, params, where="suite mine: checks[0]")
    assert str(caught.value).startswith("suite mine: checks[0]: ")
    assert message in str(caught.value)


HOPELESS, VICTIM = "(?:a|a)*[bc]", "a" * 60


@pytest.mark.slow
def test_a_pattern_that_would_hang_is_stopped_and_has_no_verdict():
    started = time.process_time()
    with pytest.raises(DataError, match=r"mine: '\(\?:a.* has not finished on a text of 60 characters after 0\.2 s"):
        bounded_search(HOPELESS, "mine:", seconds=0.2)(VICTIM)
    with pytest.raises(DataError, match=r"^regex\.pattern .* has not finished .* after 1 s"):
        build_check("regex", {"pattern": HOPELESS})(VICTIM, ITEM)
    schema = {"items": {"pattern": HOPELESS}}
    with pytest.raises(DataError, match="has not finished"):
        build_check("json_schema", {"schema": schema})(json.dumps([VICTIM]), ITEM)
    assert time.process_time() - started < 4  # 2.2 s and what the clock of the module is late by


@pytest.mark.slow
def test_pythons_own_search_does_not_come_back_from_that_pattern():
    command = f"import re; re.search({HOPELESS!r}, {VICTIM!r})"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", command], timeout=3, check=False)


def test_a_schema_fetches_nothing():
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    with pytest.raises(DataError, match=r"the schema refers to .*127\.0\.0\.1:9.*, which it does not hold"):
        build_check("json_schema", {"schema": schema})("{}", ITEM)


def test_an_item_may_bring_its_own_schema():
    check = build_check("json_schema", {})
    item = CheckItem(ITEM.prompt, json.dumps({"type": "array", "minItems": 2}))
    assert check("[1, 2]", item)
    assert not check("[1]", item)
    with pytest.raises(DataError, match="no JSON schema"):
        check("[1]", CheckItem(ITEM.prompt, "two numbers"))


def listed(*entries):
    return CheckItem(ITEM.prompt, json.dumps(list(entries)))


SHORT, PLAIN = {"name": "max_words", "params": {"limit": 3}}, {"name": "no_commas"}


@pytest.mark.parametrize(
    ("completion", "strict", "loose"),
    [
        ("One two three", (True, True), (True, True)),
        ("One, two", (True, False), (True, False)),
        ("One, two three four", (False, False), (False, False)),
        ("Sure, here you are:\nOne two", (False, False), (True, True)),  # without its first line
        ("One two\nI hope, dear user, that it helps", (False, False), (True, True)),
        ("Sure, yes:\nOne two\nHope, it helps", (False, False), (True, True)),
        ("One, a b c\ntwo", (False, False), (True, True)),  # each instruction may be met by a variant of its own
        ("", (False, False), (False, False)),  # silence has no comma, and follows nothing
    ],
)
def test_an_items_own_instructions(completion, strict, loose):
    item = listed(SHORT, PLAIN)
    assert build_check("instructions", {})(completion, item) == Parts(strict)
    assert build_check("instructions_loose", {})(completion, item) == Parts(loose)


def test_asterisks_are_forgiven_where_it_is_loose():
    item = listed({"name": "starts_with", "params": {"phrase": "Yes"}})
    assert not build_check("instructions", {})("**Yes**, do.", item)
    assert build_check("instructions_loose", {})("**Yes**, do.", item)
    assert loose_variants("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (None, "is no JSON list of checks"),
        ("no commas", "'no commas' is no JSON list"),
        ("[]", "no list with at least one check"),
        ('{"name": "no_commas"}', "no list with at least one"),
        ('["no_commas"]', r"reference\[0\] must be"),
        ('[{"name": "no_commas", "parms": {}}]', r"reference\[0\] must be"),
        ('[{"name": "no_comas"}]', "Did you mean `no_commas`"),
        ('[{"name": "no_commas"}, {"name": "max_words"}]', r"reference\[1\]: the check `max_words` needs limit"),
        ('[{"name": "instructions"}]', "an instruction is one check"),
        ('[{"name": "refuses"}]', "reads a file"),
        ('[{"name": "facts_only", "params": {"fact_sheet": "data/helpdesk/fact_sheet.yaml"}}]', "reads a file"),
    ],
)
def test_a_reference_that_is_no_list_of_checks_is_an_error(reference, message):
    with pytest.raises(DataError, match=message):
        build_check("instructions", {})("One.", CheckItem(ITEM.prompt, reference))


def test_an_instruction_cannot_compare_with_the_list_it_stands_in():
    with pytest.raises(DataError, match="has no reference"):
        build_check("instructions", {})("contains_reference", listed({"name": "contains_reference"}))


@pytest.mark.parametrize(
    ("completion", "right"), [("In the UK.", True), ("The united  kingdom", True), ("Ukraine", False)]
)
def test_several_answers_may_be_right(completion, right):
    item = CheckItem(ITEM.prompt, "UK|United Kingdom|")
    assert build_check("contains_reference", {"separator": "|"})(completion, item) is right
    assert build_check("exact_match", {"separator": "|", "ignore_case": True})("uk", item)
    assert not build_check("exact_match", {"separator": "|"})("uk", item)
    assert not build_check("contains_reference", {})("In the UK.", item)
