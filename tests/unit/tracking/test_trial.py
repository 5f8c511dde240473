"""What a trial of W&B's agent tells, and what its stages must not hear."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.shared import TrackingConfig, TrackingMode
from pipeline.tracking.mirror import client_environment
from pipeline.tracking.session import TrackingSession
from pipeline.tracking.trial import report_trial


def test_the_runs_of_stages_do_not_take_the_agents_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SWEEP_ID", "SWEEP_PARAM_PATH", "RUN_ID", "PROJECT"):
        monkeypatch.setenv(f"WANDB_{name}", "x")
    environment = client_environment(tmp_path)
    assert [name for name in ("SWEEP_ID", "SWEEP_PARAM_PATH", "RUN_ID") if f"WANDB_{name}" in environment] == []
    assert environment["WANDB_PROJECT"] == "x"


def test_without_a_server_the_trial_says_that_nobody_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrackingConfig(mode=TrackingMode.offline)
    with TrackingSession(config, tmp_path, tmp_path / "runs" / "x", {}) as session:
        report_trial(session, [{"name": "sft/validation_loss", "value": 1.0}])
    assert "the sweep's server is not told the result, because tracking is offline" in capsys.readouterr().out
