"""Personal data: what is somebody's, what only looks like it, and what is left of a text that was masked."""

import pytest
from made_rows import comparison, demonstration, only_prompt

from pipeline.data.filters.personal_data import iban_checksum, luhn
from pipeline.data.filters.registry import Drop, build_filter
from pipeline.data.rows import Reason


def masked(text, **params):
    row = build_filter("personal_data", {"action": "mask", **params})(only_prompt(text))
    return row.prompt[0]["content"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail jane.roe@fenwick-mail.com today.", "Mail <EMAIL> today."),
        ("<Jane_Roe+home@post.fenwick.co.uk>", "<<EMAIL>>"),
        ("Call (415) 555-2671 after six.", "Call <PHONE> after six."),
        ("My number: 415-867-2671.", "My number: <PHONE>."),
        ("Phone:1-415-867-2671", "Phone:<PHONE>"),
        ("+44 20 7183 8750 or +4930901820", "<PHONE> or <PHONE>"),
        ("07885 577 899 is mine", "<PHONE> is mine"),
        ("text me on 4158672671", "text me on <PHONE>"),
        ("My card is 4539 1488 0343 6467.", "My card is <CARD>."),
        ("4539-1488-0343-6467", "<CARD>"),
        ("amex 378282246310005, thanks", "amex <CARD>, thanks"),
        ("Pay to GB82 WEST 1234 5698 7654 32 please", "Pay to <IBAN> please"),
        ("DE89370400440532013000", "<IBAN>"),
        ("SSN 536-90-4399", "SSN <SSN>"),
        ("It came from 93.184.216.34.", "It came from <IP>."),
        ("resolves to 2606:2800:220:1:248:1893:25c8:1946 now", "resolves to <IP> now"),
        ("jane@fenwick-mail.com, 415-867-2671", "<EMAIL>, <PHONE>"),
    ],
)
def test_personal_data_is_found_and_masked(text, expected):
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Write to support@hearthlog.example or me@example.com.",
        "postmaster@mail.test, a@b.invalid, root@localhost",
        "Ask @jane on the forum, or user@host.",
        "git clone git@github.com:fenwick/hearth.git",
        "The icon is sprite@2x.png.",
        "(415) 555-0142 is a number from a film.",
        "On 2024-01-15 at 12:30:45 it cost 1,234,567.89 dollars.",
        "ISBN 978-3-16-148410-0",
        "Order 4158672671 is on its way.",
        "5 + 10 + 15 = 30 and 2+960397912423 = 960397912425",
        "4539 1488 0343 6468",  # the last digit of a card number changed
        "1234 5678 9012 3452",  # passes the checksum, and nobody issues it
        "GB82 WEST 1234 5698 7654 33",  # the last digit of an account number changed
        "000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",  # never given to a person
        "127.0.0.1, 10.0.0.7, 192.168.1.20, 203.0.113.9",
        "Firmware version 4.15.0.200 and v1.2.3.4",
        "999.1.1.1 and 1.2.3.4.5",
        "2001:db8::1 and fe80::1 and std::vector and 12:30:45",
        "The pattern is \\d{3}-\\d{4}, or 123-4567 without an area.",
        "<EMAIL> and <PHONE>",
    ],
)
def test_what_only_looks_like_personal_data_stays(text):
    row = only_prompt(text)
    assert build_filter("personal_data", {})(row) is row
    assert build_filter("personal_data", {"action": "mask"})(row) is row


def test_dropping_says_what_was_found_and_not_whose():
    row = demonstration(
        "Write to jane@fenwick-mail.com or call 415-867-2671.", "Who helps?", reference="jane@fenwick-mail.com"
    )
    result = build_filter("personal_data", {})(row)
    assert isinstance(result, Drop)
    assert (result.reason, result.detail) == (Reason.personal_data, "holds: email, phone")
    assert "fenwick" not in str(result), "a report that repeated it would spread it"
    assert result.shown == demonstration("Write to <EMAIL> or call <PHONE>.", "Who helps?", reference="<EMAIL>")


def test_every_text_of_a_comparison_is_masked_and_nothing_else_changes():
    row = comparison("a@fenwick-mail.com", "b@fenwick-mail.com", "c@fenwick-mail.com", margin=2.0, fold=3)
    result = build_filter("personal_data", {"action": "mask"})(row)
    assert result == comparison("<EMAIL>", "<EMAIL>", "<EMAIL>", margin=2.0, fold=3)
    assert row.chosen[0]["content"] == "a@fenwick-mail.com", "the row that came in is as it was"


def test_keeping_is_a_choice_and_changes_nothing():
    row = only_prompt("jane@fenwick-mail.com")
    assert build_filter("personal_data", {"action": "keep"})(row) is row


def test_only_the_chosen_kinds_count_and_ones_own_addresses_do_not():
    text = "jane@fenwick-mail.com, 415-867-2671"
    assert masked(text, kinds=["phone"]) == "jane@fenwick-mail.com, <PHONE>"
    assert masked(text, allow=["@Fenwick-Mail.com"]) == "jane@fenwick-mail.com, <PHONE>"
    assert masked(text, allow=["jane@fenwick-mail.com"]) == "jane@fenwick-mail.com, <PHONE>"
    assert masked(text, allow=["jim@fenwick-mail.com"]) == "<EMAIL>, <PHONE>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My address is r.okafor+heating@example.org.", "My address is <EMAIL>."),
        ("M.Lindqvist@mail.example.com", "<EMAIL>"),
        ("ring +1 415 555 0123", "ring <PHONE>"),
        ("my wife on 212.555.0167.", "my wife on <PHONE>."),
        ("Dial 1-808-555-0171 now", "Dial <PHONE> now"),
        ("support@hearthlog.example", "support@hearthlog.example"),
        ("somebody@elsewhere.example", "<EMAIL>"),
    ],
)
def test_what_is_nobodys_counts_where_it_stands_for_somebodys(text, expected):
    assert masked(text, reserved=True, allow=["hearthlog.example"]) == expected
    assert masked(text, allow=["hearthlog.example"]) == text


# Luhn: the example of ISO/IEC 7812-1, worked in US patent 2950048. IBAN: the examples of ISO 13616's registry.
@pytest.mark.parametrize("number", ["79927398713", "4539148803436467"])
def test_the_checksum_of_cards_holds_and_fails_for_every_other_last_digit(number):
    assert [digit for digit in "0123456789" if luhn(number[:-1] + digit)] == [number[-1]]


@pytest.mark.parametrize(
    "iban", ["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"]
)
def test_the_checksum_of_accounts_holds_and_fails_for_swapped_digits(iban):
    assert iban_checksum(iban)
    assert not iban_checksum(iban[:2] + iban[3] + iban[2] + iban[4:])
