"""What the measured costs of answering depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_stages import make_config, make_suites

from pipeline.artifacts.hashing import FileHashes
from pipeline.config.costs import VariantConfig
from pipeline.config.shared import Device
from pipeline.graph import costing
from pipeline.graph.fingerprint import Surroundings, fingerprint_inputs
from pipeline.graph.reasons import differences
from pipeline.graph.spec import STAGES
from pipeline.graph.wiring import nodes_for


def table(tmp_path: Path, **runtime: Any) -> dict[str, Any]:
    """Inputs of the stage whose data set, policy and base are left out."""
    config = make_config(tmp_path / "outputs", tmp_path / "rows.txt")
    config.evaluate.costs.enabled = True
    config.evaluate.costs.variants = [VariantConfig(name="one"), VariantConfig(name="two", batch_size=1)]
    config.runtime = replace(config.runtime, **runtime)
    nodes, problems = nodes_for(config, make_suites(), {}, STAGES)
    assert problems == []
    node = next(node for node in nodes if node.name == "costs")
    around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes.json"), base=None, plugins={})
    bare = replace(node, inputs={}, spec=replace(node.spec, uses_base=False))
    return fingerprint_inputs(bare, {}, around)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("device", Device.cpu, "runtime.device: auto -> cpu"), ("num_threads", 3, "runtime.num_threads: null -> 3")],
)
def test_times_are_of_one_device_and_number_of_threads(tmp_path: Path, setting: str, value: Any, told: str) -> None:
    assert differences(table(tmp_path), table(tmp_path, **{setting: value})) == [told]
    elsewhere = table(tmp_path, cache=str(tmp_path / "elsewhere"), wait_for_lock=True)
    assert elsewhere == table(tmp_path)  # what moves no time measures nothing again


def test_times_are_of_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table(tmp_path)
    monkeypatch.setattr(costing, "cpu_name", lambda: "a faster one")
    assert [line.partition(":")[0] for line in differences(before, table(tmp_path))] == ["machine.cpu"]
