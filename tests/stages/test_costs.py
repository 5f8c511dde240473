"""One policy in several ways, each in a process of its own: measured once, resumed, and the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_policies import evaluate, folder, home, last_report  # noqa: F401  (fixtures)

VARIANTS = (
    "evaluate.costs.variants=[{name: fp32, batch_size: 4}, {name: bf16, dtype: bfloat16}, "
    "{name: merged, merged: true}, {name: int8, int8: true, merged: true, batch_size: 1}]"
)


def costs_artifact() -> Path:
    return next(path for path in Path("outputs/artifacts").glob("costs-*") if path.is_dir())


def test_costs_are_measured_and_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    asked = (
        "evaluate.costs.enabled=true", "evaluate.costs.items=4", "evaluate.costs.passes=1", VARIANTS,
        "evaluate.costs.price_per_hour=3.6",
    )  # fmt: skip
    assert evaluate(home, *asked, policies=f"base,{home / 'tuned'}", suites="written") == 0, capsys.readouterr().err
    costs: dict[str, Any] = last_report()["costs"]
    assert (costs["policy"], costs["suite"], costs["reference"]) == ("tuned", "written", "fp32")
    variants = {entry["name"]: entry for entry in costs["variants"]}
    assert list(variants) == ["fp32", "bf16", "merged", "int8"]
    assert [variants[name]["dtype"] for name in variants] == ["float32", "bfloat16", "float32", "float32"]
    assert {entry["error"] for entry in variants.values()} == {None}
    assert variants["fp32"]["difference"] is None
    for name in ("bf16", "merged", "int8"):
        assert 0 <= variants[name]["changed_answers"]["estimate"] <= 1
    # Merging adds the same product in another order: greedy answers of so small a model stay the same.
    assert variants["merged"]["changed_answers"]["estimate"] == 0
    times = json.loads((costs_artifact() / "times.json").read_text())
    assert [entry["name"] for entry in times] == list(variants)
    for entry in times:
        assert 0 < entry["first_token_seconds"] <= entry["latency_p50"] <= entry["latency_p95"]
        assert entry["peak_memory_bytes"] > 50_000_000  # of a process of its own, with torch in it
        assert entry["passes"] == 1  # a process takes seconds to start; several are summed up in unit tests
        assert entry["ranges"]["latency_p50"] == [entry["latency_p50"], entry["latency_p50"]]
    report = next(Path("outputs/runs").iterdir())
    page = (report / "report.html").read_text()
    assert "What answering costs" in page
    assert "Quality against cost" in page
    assert "first_token_seconds" not in (report / "report.json").read_text()

    before = (costs_artifact() / "variants.json").read_bytes()
    assert evaluate(home, *asked, policies=f"base,{home / 'tuned'}", suites="written") == 0
    assert "costs                     reused" in capsys.readouterr().out
    assert evaluate(home, *asked[:4], policies=f"base,{home / 'tuned'}", suites="written") == 0  # another price
    out = capsys.readouterr().out
    assert "costs                     reused" in out
    assert "report                    running" in out
    assert (costs_artifact() / "variants.json").read_bytes() == before


def test_what_cannot_be_measured_is_told_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    asked = ("evaluate.costs.enabled=true", "evaluate.costs.suite=likely", "evaluate.costs.policy=other")
    assert evaluate(home, *asked, policies="base", suites="likely") == 2
    err = capsys.readouterr().err
    assert "evaluate.costs.suite: `likely` is no generation suite" in err
    assert "evaluate.costs.policy: `other` is none of the local policies (base)" in err
