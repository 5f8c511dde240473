"""Per-item values beside a report: they are the report's numbers, and an item's digest is the item."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from help_desk import EVALUATE, FIT, FORM, SUITES, generated, help_desk, of, scored

from pipeline.config.evaluation import CheckConfig
from pipeline.config.plugins import load_plugins
from pipeline.errors import ArtifactError
from pipeline.evaluation.item_file import read_items
from pipeline.evaluation.items import items_json
from pipeline.evaluation.measures import measure_suites
from pipeline.evaluation.report import suite_definition


def written(*samples: Any, suites: Any = SUITES) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(items_json(measure_suites(samples or help_desk(), suites, EVALUATE)))
    return dict(content["suites"])


def metric(suite: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in suite["metrics"] if entry["name"] == name)


def test_every_metric_is_kept_item_by_item() -> None:
    suites = written()
    form, fit = suites["form"], suites["fit"]
    assert form["ids"] == fit["ids"] == ["a", "b", "c", "d"]
    assert form["metrics"][0]["name"] == "all_checks"
    assert metric(form, "all_checks")["values"] == {"base": [0, 0, 1, 0], "tuned": [1, 1, 1, 0]}
    assert metric(form, "finished")["values"]["base"] == [1, 0, 1, 1]
    assert metric(fit, "nats_per_token")["values"]["tuned"] == [2, 1, 2, 2.5]
    assert metric(fit, "nats_per_token")["denominator"] == [2, 4, 2, 2]
    assert metric(form, "all_checks")["denominator"] is None


def test_items_that_were_not_compared_stay_and_have_no_value() -> None:
    lost = generated("b", "", finish_reason=None, unscored="overlength")
    form = written(
        of("base", "form", [generated("a", "x", cluster="k"), lost, generated("c", "y", cluster="k")]),
        of("tuned", "form", [generated("a", "x", cluster="k"), generated("b", "z"), generated("c", "y", cluster="k")]),
        suites={"form": FORM},
    )["form"]
    assert form["ids"] == ["a", "b", "c"]
    assert form["clusters"] == [0, 1, 0]
    assert metric(form, "finished")["values"]["tuned"] == [1, None, 1]


def test_the_digest_is_what_is_asked_and_not_what_was_answered() -> None:
    def digest(*rows: Any, suite: Any = FORM) -> str:
        return str(written(of("base", suite.name, list(rows)), suites={suite.name: suite})[suite.name]["digests"][0])

    asked = digest(generated("a", "one"))
    assert digest(generated("a", "two", finish_reason="length")) == asked
    assert digest(generated("a", "one", prompt="How do I reset the hub now?")) != asked
    assert digest(generated("z", "one")) != asked
    held = digest(scored("a", 1.0), suite=FIT)
    assert digest(scored("a", 2.0), suite=FIT) == held
    assert digest(scored("a", 1.0, num_bytes=9), suite=FIT) != held


def test_a_definition_names_the_plugin_that_a_check_comes_from(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    code = (
        "from pipeline.checks.registry import register_check\n"
        "@register_check('of_items_test')\n"
        "def mine():\n"
        "    'Anything.'\n"
        "    return lambda completion, item: True\n"
    )
    plugin.write_text(code, encoding="utf-8")
    digest = load_plugins([str(plugin)])[str(plugin)]
    suite = replace(
        FORM, checks=[CheckConfig(name="of_items_test"), CheckConfig(name="max_words", params={"limit": 6})]
    )
    checks = suite_definition(suite)["checks"]
    assert [check["plugin"] for check in checks] == [digest[:16], None]


@pytest.mark.parametrize(("content", "told"), [("[", "holds no items"), ('{"format_version": 0}', "format version 0")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "items.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=told):
        read_items(path)
