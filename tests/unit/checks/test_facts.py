"""The check `facts_only` on a small fact sheet that stands in this file."""

import pytest

from pipeline.checks.fact_sheet import FactSheet
from pipeline.checks.facts import names, unsupported
from pipeline.checks.registry import CheckItem, build_check
from pipeline.errors import DataError

SHEET = """
product: Hearthlog
contact: [Hearthlog support is reached at support@hearthlog.example.]
topics:
  plans:
    - Glow costs $4 per month and supports up to 15 sensors.
    - The weekly Savings Report comes with Glow.
    - A plan is cancelled under Settings > Plan > Cancel plan.
  refunds:
    - Refunds are possible within 30 days, and are paid within 5 working days.
  wifi:
    - The hub uses WPA2 and 2.4 GHz Wi-Fi.
    - Frost triggers below 41 degrees Fahrenheit.
    - The code is on hearthlog.example/codes.
menu_paths: [Settings > Plan > Cancel plan]
"""
QUESTION = "I bought 9 sensors for $250 from Thermaco on oldshop.com, can Glow read them?"


@pytest.fixture
def sheet_path(tmp_path):
    path = tmp_path / "sheet.yaml"
    path.write_text(SHEET, encoding="utf-8")
    return path


def stray(completion, sheet_path, prompt=QUESTION):
    item = CheckItem([{"role": "user", "content": prompt}])
    found = list(unsupported(completion, item, FactSheet.load(sheet_path)))
    assert build_check("facts_only", {"fact_sheet": str(sheet_path)})(completion, item) is (not found)
    return found


@pytest.mark.parametrize(
    "completion",
    [
        "Glow costs $4 per month.",
        "Glow is $4 a month, or 4 dollars.",  # another spelling, and a part of the fact
        "Refunds take a 30-day window at most and thirty days at least.",
        "You pay within 5 working days. Next step: Open Settings > Plan > Cancel plan.",
        "Open Settings > Plan and look.",  # the beginning of a listed path
        "Open settings -> plan -> cancel plan.",
        "Email support@hearthlog.example, or visit https://hearthlog.example/codes.",
        "Glow's Savings Reports come weekly.",  # possessive and plural
        "Frost means 41 \N{DEGREE SIGN}F.",
        "Your 9 sensors from Thermaco cost $250.",  # what the user said may be repeated
        "Every ordinary sentence may open with a capital. Nothing is named: Look here.",
        "I'm sure. OK?",
        "1. Open Settings.\n2. Choose Plan.",  # the numbers of a list
        "",
    ],
)
def test_what_the_sheet_or_the_user_says_passes(completion, sheet_path):
    assert stray(completion, sheet_path) == []


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("Glow costs $5 per month.", ["5 dollar month"]),
        ("Glow costs $4 per year.", ["4 dollar year"]),  # right price, wrong period
        ("Glow costs \N{EURO SIGN}4 per month.", ["4 euro month"]),
        ("Refunds are possible within 14 days.", ["14 day"]),
        ("Refunds are possible within fourteen days.", ["14 day"]),
        ("Refunds are paid within 5 days.", ["5 day"]),  # the sheet says working days
        ("Refunds are possible within 30 months.", ["30 month"]),
        ("It supports 30 sensors.", ["30 sensor"]),  # the sheet has a 30, of days
        ("Dial 555.", ["555"]),
        ("Email help@hearthlog.example.", ["help@hearthlog.example"]),
        ("See www.hearthlog.example/help.", ["hearthlog.example/help"]),
        ("Buy on oldshop.com.", ["oldshop.com"]),  # an address is not allowed by the user's naming it
        ("Frost means 41 degrees Celsius.", ["41 degree celsius", "Celsius"]),
        ("Glow Premium is better.", ["Premium"]),
        ("It works with Alexa and HomeKit.", ["Alexa", "HomeKit"]),
        ("The Savings Digest comes weekly.", ["Savings Digest"]),
        ("HomeKit works.", ["HomeKit"]),  # a capital within the word names something, even at the start
        ("WPA3 works.", ["WPA3"]),
        ("The Glow Report comes weekly.", ["Glow Report"]),  # two real names do not make a third
    ],
)
def test_what_is_in_neither_is_found(completion, found, sheet_path):
    assert stray(completion, sheet_path) == found


@pytest.mark.parametrize(
    "path",
    [
        "Settings > Plan > Upgrade",
        "Settings > Billing",
        "Menu > Settings > Plan",
        "Plan > Cancel plan",
        "Settings > Plan > Cancel plan > Confirm",
    ],
)
def test_an_unlisted_menu_path_is_found_even_where_it_begins_or_ends_like_a_listed_one(path, sheet_path):
    assert f"Open {path}" in stray(f"Open {path}.", sheet_path)


def test_the_user_does_not_make_a_menu_path_true(sheet_path):
    assert stray("Open Settings > Alarms.", sheet_path, prompt="Is it under Settings > Alarms?")


def test_runs_of_capitals_are_names_and_sentence_openings_are_not():
    text = 'Open Window alerts, Frost Alerts and PayPal differ. Ask Anna: Bring tools.\nThen "Savings Report" opens.'
    assert list(names(text)) == ["Window", "Frost Alerts", "PayPal", "Anna", "Savings Report"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("plans: [Ember is free.]", "a fact sheet needs the key `topics`"),
        ("topics: {plans: Ember is free.}", "`plans` must be a list of sentences"),
        ("topics: {plans: [Note: Ember is free.]}", r"`plans` must be a list of sentences. Quote"),
        ("topics: {plans: [Ember is free.]}\nmenu_paths: [Settings > Plan]", "no sentence names the menu path"),
        ("topics: {plans: [Open Settings > Plan.]}", r"the menu path in 'Open Settings > Plan\.' is not listed"),
        ("topics: [", "the fact sheet cannot be read"),
    ],
)
def test_a_damaged_sheet_is_refused_with_its_path(content, message, tmp_path):
    path = tmp_path / "sheet.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"sheet.yaml: .*{message}"):
        build_check("facts_only", {"fact_sheet": str(path)})
