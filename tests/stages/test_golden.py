"""Recorded losses: a change that moves them must raise the stage's version, or artifacts of old code are reused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden.record import sft_losses

from pipeline.graph.spec import STAGES

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "sft.json"
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_sft_retraces_its_recorded_losses(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    losses = sft_losses(tmp_path / "same")
    assert len(losses) == len(golden["losses"]) == 8
    assert losses == pytest.approx(golden["losses"], rel=1e-4, abs=0), (
        "the losses of the stage sft have moved: if that is meant, raise its version in pipeline/graph/spec.py and run "
        "tests/golden/record.py"
    )
    assert golden["version"] == STAGES["sft"].version, "the version was raised: run tests/golden/record.py"
    nudged = sft_losses(tmp_path / "nudged", learning_rate_factor=1.01)
    assert nudged != pytest.approx(golden["losses"], rel=1e-4, abs=0), "the tolerance cannot see a change of 1 %"
