"""Trials ranked by what a sweep was after: several objectives, and what the items say of the choice."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from outline import Outline

from pipeline.comparison.building import build_comparison
from pipeline.comparison.selecting import choose
from pipeline.comparison.writing import csv_text, terminal_lines
from pipeline.pages.comparison_page import comparison_page

GOALS = {"ppo/monitor_score": "maximize", "ppo/monitor_kl": "minimize"}
RESULTS = [(0.1, 1), (0.2, 2), (0.3, 3), (0.4, 4), (0.3, 2), (0.1, 0.5), (0.05, 0.9), (0.35, 4.5)]


def compare(outputs: Path, **options: Any) -> dict[str, Any]:
    return build_comparison(choose(["sweep"], outputs), **options)


def search_for(outputs: Path, objectives: dict[str, str], results: Sequence[Sequence[float]]) -> None:
    """Let the sweep have been after other objectives, of which its finished trials have these results."""
    path = outputs / "runs" / "sweep" / "sweep.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["objectives"] = [{"name": name, "direction": direction} for name, direction in objectives.items()]
    for trial, values in zip(content["trials"], results, strict=False):
        trial["objectives"] = list(values)
    path.write_text(json.dumps(content), encoding="utf-8")


def difference(comparison: dict[str, Any], key: str) -> dict[str, Any]:
    rows = [row for row in comparison["metrics"] if row["metric"] == "all_checks" and row["policy"] == key]
    return next(row for row in rows if row["baseline"] is not None)


def test_a_choice_by_another_number_is_weighed_by_the_items(outputs: Path) -> None:
    search_for(outputs, {"dpo/validation_loss": "minimize"}, [[abs(number - 5) / 10] for number in range(8)])
    comparison, by_items = compare(outputs), compare(outputs, by="form/all_checks")
    ranking, own = comparison["ranking"], difference(by_items, "6")
    assert (ranking["order"][0], ranking["corrected"]) == ("6", {})
    assert {name: ranking["weighed"][name] for name in own} == own
    # The quantile is drawn, in another order of the runs.
    assert ranking["weighed"]["together"] == pytest.approx(by_items["ranking"]["corrected"]["6"], abs=0.01)
    low, high = ranking["weighed"]["together"]
    assert low < own["low"] < own["high"] < high
    # The truth of trial 5 is a little better; 40 items do not show it.
    assert own["low"] < 0 < own["high"]
    assert re.fullmatch(
        r"It has \+\d+ points \[-\d+, \d+\] against #1 \(sweep-0, dpo\) on items that pass all checks \(form\): "
        "no clear difference.",
        ranking["sentences"][1],
    )
    assert "needs no correction; the one that holds for all 7 together is" in ranking["sentences"][2]
    assert ranking["sentences"][3] == "--by form/all_checks ranks by it."
    (header,) = [line for line in terminal_lines(comparison) if line.startswith("rank")]
    assert header.split()[-1] == "dpo/validation_loss"


def test_where_the_baseline_was_chosen_the_next_one_is_weighed(outputs: Path) -> None:
    """The results come from the suites' own items here, so the interval has to allow for the choice."""
    search_for(outputs, {"form/max_words/sft": "maximize"}, [[1.0 - number] for number in range(8)])
    ranking = compare(outputs)["ranking"]
    assert ranking["order"][:2] == ["1", "2"]
    assert (ranking["weighed"]["policy"], ranking["weighed"]["independent"]) == ("2", False)
    assert ranking["sentences"][1].startswith("It is the baseline; the next, #2 (sweep-1, dpo), has ")
    low, high = (100 * limit for limit in ranking["weighed"]["together"])
    assert f"[{low:.0f}, {high:.0f}]" in ranking["sentences"][1]
    assert ranking["sentences"][2] == "That interval holds whichever of the 7 is chosen."


def test_of_several_objectives_each_has_a_column_and_the_front_is_marked(outputs: Path) -> None:
    """Trial 5 beats 0 and 6, trial 4 beats 1 and 2, and trial 3 beats 7, on both; 3, 4 and 5 trade them."""
    search_for(outputs, GOALS, RESULTS)
    comparison = compare(outputs)
    assert comparison["ranking"]["front"] == ["4", "5", "6"]
    assert comparison["ranking"]["order"][0] == "4"
    lines = terminal_lines(comparison)
    (header,) = [line for line in lines if line.startswith("rank")]
    assert header.split()[-3:] == [*GOALS, "front"]
    table = {line.split()[1]: line for line in lines[lines.index(header) + 1 : lines.index(header) + 9]}
    assert table["5"].split()[-3:] == ["0.3", "2", "Pareto"]
    assert table["3"].split()[-2:] == ["0.3", "3"]
    assert "better on one: #4, #5, #6." in "\n".join(lines)
    spread = {line["number"]: line for line in csv.DictReader(io.StringIO(csv_text(comparison)))}
    assert [spread[key]["pareto front"] for key in "12345678"] == ["no"] * 3 + ["yes"] * 3 + ["no"] * 2
    text = " ".join("".join(Outline(comparison_page(comparison)).text).split())
    assert text.count(", on the Pareto front") == 3
    assert "#4, on the Pareto front" in text
    assert text.count("ppo/monitor_kl") == 3  # the sweep's goals, the sentence, and the head of its column


def test_what_objectives_tell_is_of_whole_trials(outputs: Path) -> None:
    search_for(outputs, GOALS, RESULTS)
    # Of two policies of each run the objectives tell nothing.
    both = compare(outputs, policy="all")
    assert (both["ranking"]["front"], both["objectives"]) == (None, [])
    # A trial that cannot be compared is still one that others have to beat.
    (outputs / "runs" / "sweep-4" / "report.json").unlink()
    left = compare(outputs)
    assert left["ranking"]["front"] == ["4", "5"]
    assert "better on one: #4, #5 and 1 without a comparable report." in "\n".join(left["ranking"]["sentences"])
