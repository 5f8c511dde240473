"""The page of a comparison: every section from one value, and text that stays text."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from compared_runs import make_grid, write_trial
from outline import HOSTILE, Outline

from pipeline.comparison.building import build_comparison
from pipeline.comparison.selecting import choose
from pipeline.pages.charts import WIDE
from pipeline.pages.comparison_charts import parallel_plot, spaced
from pipeline.pages.comparison_page import comparison_page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    outputs = tmp_path_factory.mktemp("outputs")
    make_grid(outputs)
    comparison = build_comparison(choose(["sweep"], outputs))
    comparison["curves"] = {str(key): {"loss": [[step, 2.0 / step] for step in range(1, 9)]} for key in range(1, 9)}
    comparison["costs"] = {"1": {"stage_seconds": 61.0, "training_seconds": 90.0, "tokens": 12_345}}
    return comparison


def test_every_section_is_there_and_says_what_the_values_say(made: dict[str, Any]) -> None:
    page = comparison_page(made)
    text = re.sub(r"\s+", " ", "".join(Outline(page).text)).replace("\N{NO-BREAK SPACE}", " ")
    for heading in ("Differences from the baseline, best first", "All that is ranked", "What was configured otherwise",
                    "What the parameters do", "Learning curves", "All metrics", "What they were made from",
                    "What they cost", "Not compared, or only in part"):  # fmt: skip
        assert heading in text
    assert made["ranking"]["sentences"][0].replace("-", "") in text.replace("\N{MINUS SIGN}", "").replace("-", "")
    assert "within noise" in text
    assert "trial 9: pruned" in text
    assert "sweep-8" not in text
    assert "Objective on the way, pruned trials too" in text
    assert "1 min 01 s" in text
    assert "12,345" in text
    assert page.count("wide-whisker c") == 2 * 7  # of the metric that the order goes by, in two layouts
    assert comparison_page(made) == page


def test_hostile_names_stay_text(made: dict[str, Any]) -> None:
    comparison = copy.deepcopy(made)
    for run in comparison["runs"]:
        run["name"] = run["reason"] = HOSTILE
    for entry in comparison["candidates"]:
        entry |= {"policy": HOSTILE, "label": HOSTILE, "short": HOSTILE}
    comparison["parameters"]["dpo.beta"] = dict.fromkeys(comparison["parameters"]["dpo.beta"], HOSTILE) | {"1": "x"}
    comparison["config"]["keys"] = {HOSTILE: [HOSTILE] * 10}
    comparison["notes"] = comparison["refusals"] = comparison["ranking"]["sentences"] = [HOSTILE]
    comparison["lineage"]["same"] = {HOSTILE: HOSTILE}
    outline = Outline(page := comparison_page(comparison, title=HOSTILE))
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in "".join(outline.text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)


def test_two_runs_have_a_page_too(tmp_path: Path) -> None:
    for number in range(2):
        write_trial(tmp_path, number, 0.5, beta=number)
    page = comparison_page(build_comparison(choose([], tmp_path)))
    assert "none is claimed, 2 trials, and at least 8 are needed" in page
    assert "Each line is a run" not in page


def test_axes_hold_numbers_by_size_or_logarithm_and_words_evenly() -> None:
    def heights(values: list[Any]) -> list[float]:
        keys = [str(number) for number in range(len(values))]
        axes = [("x", dict(zip(keys, values, strict=True))), ("y", dict.fromkeys(keys, 1.0))]
        plot = parallel_plot(axes, keys, "0", "title", WIDE)
        return [float(found) for found in reversed(re.findall(r'points="44\.00,([\d.]+) ', plot))]

    one, two, three = heights([1e-5, 1e-4, 1e-3])
    assert one - two == pytest.approx(two - three, abs=0.02)  # downwards is less
    one, two, three = heights([1, 2, 10])
    assert 8 * (one - two) == pytest.approx(two - three, abs=0.1)
    one, two, three = heights(["sigmoid", None, True])
    assert len({one, two, three}) == 3


def test_labels_that_would_lie_on_each_other_are_moved_apart_and_stay_on_their_axis() -> None:
    assert spaced([(40.0, "a"), (100.0, "b"), (250.0, "c")], 250.0) == [(40.0, "a"), (100.0, "b"), (250.0, "c")]
    close = spaced([(248.0, "b"), (244.0, "a"), (250.0, "c"), (50.0, "top"), (55.0, "next")], 250.0)
    assert close == [(50.0, "top"), (63.0, "next"), (224.0, "a"), (237.0, "b"), (250.0, "c")]
