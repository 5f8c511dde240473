"""Numbers in prose: each row was read by hand."""

import pytest

from pipeline.checks.quantities import counted_nouns, quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $4 per month.", [("4", "dollar", "month")]),
        ("It costs $4/month.", [("4", "dollar", "month")]),
        ("It costs $4.00 a month", [("4", "dollar", "month")]),
        ("It costs 4 dollars monthly", [("4", "dollar", "month")]),
        ("It costs $1,000.", [("1000", "dollar")]),
        ("It costs \N{EURO SIGN}4", [("4", "euro")]),
        ("within 30 days", [("30", "day")]),
        ("a 30-day window", [("30", "day")]),
        ("within thirty days", [("30", "day")]),
        ("one hour", [("1", "hour")]),
        ("one sensor, three plans", []),  # small numbers in words are ordinary words unless a unit follows
        ("5 working days", [("5", "working day")]),
        ("3 to 5 working days", [("3",), ("5", "working day")]),
        ("3-5 working days", [("3",), ("5", "working day")]),
        ("41 degrees Fahrenheit", [("41", "degree", "fahrenheit")]),
        ("41 \N{DEGREE SIGN}F", [("41", "degree", "fahrenheit")]),
        ("41\N{DEGREE SIGN}C", [("41", "degree", "celsius")]),
        ("41 degrees", [("41", "degree")]),
        ("2.4 GHz", [("2.4", "ghz")]),
        ("20 MB per month", [("20", "mb", "month")]),
        ("12 sensors", [("12", "sensor")]),
        ("12 cats", [("12",)]),  # not among the nouns
        ("It is 30. Days pass.", [("30",)]),  # another sentence
        ("before 14:00", [("14:00",)]),
        ("on the 1st", [("1",)]),
        ("20% off", [("20", "percent")]),
        ("WPA2, AES-256, CR2477 and v2", []),  # parts of names
        ("1. Open the app\n2) Wait 5 minutes", [("5", "minute")]),  # list numbers do not count
    ],
)
def test_quantities_are_spelled_one_way(text, expected):
    assert list(quantities(text, frozenset({"sensor"}))) == expected


def test_a_sheet_counts_the_nouns_after_its_numbers():
    assert list(counted_nouns("Up to 4 sensors and 2 alerts for $9 a month, 3 to 5 hubs.")) == [
        "sensor",
        "alert",
        "to",
        "hub",
    ]
