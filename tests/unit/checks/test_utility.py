"""The written utility, part by part, on a fact sheet of four sentences and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.checks.registry import CheckItem
from pipeline.checks.rewards import build_reward, files_read
from pipeline.checks.utility import WrittenUtility
from pipeline.errors import ConfigError, DataError

SHEET = """
topics:
  plans: ["Glow costs $4 per month.", "Blaze costs $9 per month and adds weekly reports."]
  billing: ["The invoice for Glow shows $4 per month and the tax."]
contact: ["Write to help@glow.example."]
"""
STEP = "\nNext step: Open the app."
LEAST, MOST = -3.2, 8.5  # four invented things and nothing else; every part and nothing too long


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "sheet.yaml"
    path.write_text(SHEET, encoding="utf-8")
    return path


def item(reference: str | None) -> CheckItem:
    return CheckItem([{"role": "user", "content": "How much is it?"}], reference)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        # Glow, cost(s) and month are the words of the right sentence, and all are said.
        (f"Glow costs $4 per month.{STEP}", 3 + 2 + 1.5 + 1 + 1),
        (f"Sure! Glow costs $4 per month.{STEP}", 3 + 2 + 1.5 + 1),  # no answer comes first
        ("Glow costs $4 per month.", 3 + 2 + 1 + 1),
        # Another price: of glow, cost and month the text has two, and $5 is on no sheet.
        (f"Glow costs $5 a year.{STEP}", 2 * 2 / 3 - 0.8 + 1.5 + 1 + 1),
        # Five inventions count as four; of the right sentence it has nothing.
        ("It is $1, $2, $3, $5 or $6.", -3.2 + 1 + 1),
        # 34 words: four beyond thirty. No fact, no step.
        (" ".join(["heat"] * 34), 1 + 1 - 4 * 0.02),
        # 61 words: too many, and 31 beyond thirty.
        (" ".join(["heat"] * 61), 1 - 31 * 0.02),
        ("", 1),  # nothing is at most sixty words, and is no answer
    ],
)
def test_points_and_the_number_between_zero_and_one(sheet: Path, completion: str, expected: float) -> None:
    assert WrittenUtility(sheet).points(completion, item("$4 per month")) == pytest.approx(expected)
    reward = build_reward("written_utility", {"fact_sheet": str(sheet)}, where="ppo.rewards[0]")
    assert reward(completion, item("$4 per month")) == pytest.approx((expected - LEAST) / (MOST - LEAST))


def test_the_ends_are_zero_and_one(sheet: Path) -> None:
    reward = build_reward("written_utility", {"fact_sheet": str(sheet)}, where="ppo.rewards[0]")
    assert reward(f"Glow costs $4 per month.{STEP}", item("$4 per month")) == 1.0
    endless = "Sorry, it is $1, $2, $3 or $5. " + "so " * 200
    assert reward(endless, item("$4 per month")) == 0.0


def test_the_right_sentence_is_looked_for_in_its_topic_first(sheet: Path) -> None:
    utility = WrittenUtility(sheet)
    text = "The invoice shows the tax."
    # Of invoice, glow, show(s) and month it has two; of the whole sheet this sentence is the best one as well.
    assert utility.points(text, item("$4 per month"), "billing") == pytest.approx(2 * 2 / 4 + 1 + 1)
    assert utility.points(text, item("$4 per month")) == pytest.approx(2 * 2 / 4 + 1 + 1)
    # The topic's own sentence has glow, cost and month: nothing of it is said.
    assert utility.points(text, item("$4 per month"), "plans") == pytest.approx(1 + 1)
    # A topic that has no such sentence leaves the rest of the sheet.
    assert utility.points(text, item("the tax"), "plans") == pytest.approx(3 + 2 * 2 / 4 + 1 + 1)


def test_it_needs_a_reference_and_a_sheet(sheet: Path) -> None:
    reward = build_reward("written_utility", {"fact_sheet": str(sheet)}, where="ppo.rewards[0]")
    with pytest.raises(DataError, match="no reference"):
        reward("Glow.", item(None))
    with pytest.raises(ConfigError, match=r"ppo\.rewards\[0\].*fact_sheet"):
        build_reward("written_utility", {}, where="ppo.rewards[0]")
    assert files_read("written_utility", {"fact_sheet": str(sheet)}, where="ppo.rewards[0]") == [sheet]
