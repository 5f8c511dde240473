"""Fixtures that every test may use: no network, few threads, real data where there is some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_tracking_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's own W&B settings and a sweep's variables out of the tests."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name in {
            "PIPELINE_RUN_FOLDER",
            "PIPELINE_SWEEP",
            "PIPELINE_KILL_AT",
            "PIPELINE_TRACKING_DECISION",
        }:
            monkeypatch.delenv(name)


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Title and text of everything that runs call for attention with; a notice is none."""
    from pipeline.tracking.run import Run

    told, original = [], Run.alert

    def alert(self: Run, title: str, text: str) -> None:
        told.append((title, text))
        original(self, title, text)

    monkeypatch.setattr(Run, "alert", alert)
    return told


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real public data sets, laid out as `<data set>/<file>`."""
    folder = os.environ.get("PIPELINE_REAL_DATA")
    if not folder:
        pytest.skip("PIPELINE_REAL_DATA is not set: it names a folder of real public data")
    return Path(folder)
