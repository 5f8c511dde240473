"""Checks of form, on completions whose verdict was decided by reading them."""

import pytest

from pipeline.checks.registry import CheckItem, build_check

ITEM = CheckItem([{"role": "user", "content": "Can I get my money back?"}])


@pytest.mark.parametrize(
    ("completion", "num_words"),
    [
        ("", 0),
        ("Refunds are possible.", 3),
        ("Open Settings > Plan.", 3),  # the sign between menu steps is no word
        ("A full - honest - answer", 4),  # nor is a dash
        ("Wi-Fi, 2.4 GHz", 3),
        ("One\ntwo\n\n  three", 3),
    ],
)
def test_words_are_counted_up_to_the_limit_and_not_beyond(completion, num_words):
    assert build_check("max_words", {"limit": max(num_words, 1)})(completion, ITEM)
    if num_words > 1:
        assert not build_check("max_words", {"limit": num_words - 1})(completion, ITEM)


@pytest.mark.parametrize(
    "completion",
    [
        "Refunds are possible within 30 days of delivery.",
        "Yes, Glow includes the weekly Savings Report.",
        "No. Ember cannot be shared.",
        "Hidden networks work when the name is typed in.",  # begins with the letters of "hi"
        "Sold items cannot be exchanged.",  # begins with the letters of "so"
        "Wellness features do not exist.",
        "The hub blinks white. Ready? Then scan the code.",  # the question comes after the answer
    ],
)
def test_an_opening_that_answers_passes(completion):
    assert build_check("answer_first", {})(completion, ITEM)


@pytest.mark.parametrize(
    "completion",
    [
        "Hi! Refunds are possible within 30 days.",
        "hello there, refunds are possible within 30 days.",
        "Sure, refunds are possible within 30 days.",
        "**Great question!** Refunds are possible within 30 days.",
        "Of course! Refunds are possible.",
        "I'm sorry to hear that. Refunds are possible.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry to hear that. Refunds are possible.",
        "Unfortunately, monthly plans are not refunded.",
        "Thank you for reaching out. Refunds are possible.",
        "So, refunds are possible.",
        "When was the parcel delivered? Refunds are possible within 30 days.",
        "When was it delivered?",
        "",
        "  \n",
        "...",
    ],
)
def test_a_greeting_filler_apology_question_or_nothing_fails(completion):
    assert not build_check("answer_first", {})(completion, ITEM)


def test_own_openings_replace_the_default_ones():
    check = build_check("answer_first", {"openings": ["As per"]})
    assert not check("As per our terms, refunds are possible.", ITEM)
    assert check("Hi! Refunds are possible.", ITEM)


@pytest.mark.parametrize(
    "completion",
    [
        "Refunds are possible.\nNext step: Open Orders > Return an item.",
        "Refunds are possible. Next step: Open Orders > Return an item",
        "Refunds are possible!\n\n**Next step:** Email support@hearthlog.example.",
        "The hub needs 2.4 GHz Wi-Fi.\n- next step: Choose the 2.4 GHz network.",
    ],
)
def test_one_next_step_at_the_end_passes(completion):
    assert build_check("exactly_one_next_step", {})(completion, ITEM)


@pytest.mark.parametrize(
    "completion",
    [
        "Refunds are possible.",  # none
        "Refunds are possible.\nNext step: Open Orders.\nNext step: Email us.",  # two
        "Refunds are possible.\nNext step: Open Orders. Then print the label.",  # two sentences
        "Refunds are possible.\nNext step: Open Orders\nand print the label.",  # a line after it
        "Next step: Open Orders.\nRefunds are possible.",  # not the last line
        "Next step: Open Orders.",  # no answer before it
        "Refunds are possible.\nNext step:",  # nothing after it
        "Refunds are possible.\nNext step: ...",
        "Refunds are possible and your next step: open Orders.",  # within a sentence
        "Refunds are possible.\nNext steps: Open Orders.",  # another word
    ],
)
def test_no_second_hidden_or_empty_next_step(completion):
    assert not build_check("exactly_one_next_step", {})(completion, ITEM)


def test_the_marker_can_be_another():
    check = build_check("exactly_one_next_step", {"marker": "To do:"})
    assert check("Refunds are possible.\nTo do: Open Orders.", ITEM)
    assert not check("Refunds are possible.\nNext step: Open Orders.", ITEM)
