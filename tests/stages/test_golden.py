"""Recorded losses: a change that moves them must raise the stage's version, or artifacts of old code are reused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden.record import GOLDEN

from pipeline.graph.spec import STAGES

FOLDER = Path(__file__).resolve().parents[1] / "golden"
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize("stage", sorted(GOLDEN))
def test_a_stage_retraces_its_recorded_losses(tmp_path: Path, stage: str) -> None:
    golden = json.loads((FOLDER / f"{stage}.json").read_text(encoding="utf-8"))
    losses = GOLDEN[stage](tmp_path / "same")
    assert len(losses) == len(golden["losses"]) == 8
    assert losses == pytest.approx(golden["losses"], rel=1e-4, abs=0), (
        f"the losses of the stage {stage} have moved: if that is meant, raise its version in pipeline/graph/spec.py "
        "and run tests/golden/record.py"
    )
    assert golden["version"] == STAGES[stage].version, "the version was raised: run tests/golden/record.py"
    nudged = GOLDEN[stage](tmp_path / "nudged", learning_rate_factor=1.01)
    assert nudged != pytest.approx(golden["losses"], rel=1e-4, abs=0), "the tolerance cannot see a change of 1 %"
