"""Checks against a reference, on answers whose verdict was decided by reading them."""

from decimal import Decimal

import pytest

from pipeline.checks.answers import last_number
from pipeline.checks.registry import CheckItem, build_check
from pipeline.errors import DataError


def item(reference):
    return CheckItem([{"role": "user", "content": "How long do I have?"}], reference)


@pytest.mark.parametrize(
    ("completion", "contained"),
    [
        ("Refunds are possible within 30 days.", True),
        ("Within 30\n days of delivery", True),  # white space does not matter
        ("WITHIN 30 DAYS", True),
        ("Within 130 days", False),  # a number that merely ends in 30
        ("Within 30 daysies", False),
        ("Within 30-day limits", False),
        ("Within thirty days", False),
        ("", False),
    ],
)
def test_the_reference_is_found_as_whole_words(completion, contained):
    assert build_check("contains_reference", {})(completion, item("30 days")) is contained


def test_a_reference_with_signs_of_a_pattern_is_taken_literally():
    check = build_check("contains_reference", {})
    assert check("Open Settings > Wi-Fi > Signal (top).", item("Signal (top)"))
    assert not check("It costs 4 dollars.", item("$4"))
    assert check("It costs $4.", item("$4"))


@pytest.mark.parametrize("name", ["contains_reference", "exact_match", "numeric_answer"])
@pytest.mark.parametrize("reference", [None, "", "  "])
def test_an_item_without_reference_is_an_error_and_no_pass(name, reference):
    with pytest.raises(DataError, match=rf"{name}: the item with the prompt 'How long .* has no reference"):
        build_check(name, {})("Within 30 days.", item(reference))


@pytest.mark.parametrize(
    ("completion", "ignore_case", "equal"),
    [
        ("Paris", False, True),
        ("  Paris\n", False, True),
        ("paris", False, False),
        ("paris", True, True),
        ("Paris.", True, False),
        ("In Paris", True, False),
    ],
)
def test_exact_match_forgives_white_space_only(completion, ignore_case, equal):
    assert build_check("exact_match", {"ignore_case": ignore_case})(completion, item("Paris")) is equal


def test_a_pattern_may_match_anywhere():
    check = build_check("regex", {"pattern": r"(?i)\brefund"})
    assert check("A Refund is possible", item(None))
    assert not check("Prefunded", item(None))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 72.", "72"),
        ("48 + 24 = 72 clips", "72"),
        ("It costs $1,234.50.", "1234.50"),
        ("#### 72", "72"),
        ("3 boxes of 4\n#### 12 eggs in 3 boxes", "12"),  # what follows the marker, not the very last number
        ("#### 5\nSecond try\n#### 6", "6"),
        ("#### $-1,200", "-1200"),
        ("It fell to -5", "-5"),
        ("It fell to \N{MINUS SIGN}5", "-5"),
        ("It lost -$5", "-5"),
        ("between 10-12", "12"),  # a range, no minus
        ("20 - 8", "8"),  # a subtraction
        ("- 8 eggs", "8"),  # a bullet
        (".5 of it", "0.5"),
        ("0.50", "0.5"),
        ("1,2,3", "3"),
        ("WPA3", None),  # part of a name
        ("none", None),
        ("7 left\n#### unknown", None),  # an empty final answer is not replaced by an earlier number
        ("", None),
    ],
)
def test_the_final_number_of_a_text(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("completion", "tolerance", "equal"),
    [
        ("so she sold 72.", 0.0, True),
        ("so she sold 72.00", 0.0, True),
        ("so she sold 27.", 0.0, False),
        ("so she sold many.", 0.0, False),
        ("about 71.9", 0.0, False),
        ("about 71.9", 0.1, True),
        ("about 71.8", 0.1, False),
    ],
)
def test_numbers_are_compared_by_value(completion, tolerance, equal):
    check = build_check("numeric_answer", {"tolerance": tolerance})
    assert check(completion, item("48 + 24 = 72\n#### 72")) is equal


def test_a_reference_without_a_number_is_an_error():
    with pytest.raises(DataError, match="the reference 'many' of the item .* holds no number"):
        build_check("numeric_answer", {})("72", item("many"))
