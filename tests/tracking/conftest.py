"""A server on the loopback interface for the real client, and a folder of state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked_runs import API_KEY
from wandb_server import WandbServer


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with WandbServer(api_key=API_KEY) as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield running
    assert running.problems == []
    assert running.num_bad_uploads == 0
    assert list((tmp_path / "cwd").iterdir()) == [], "the client left something in the working directory"
    assert list((tmp_path / "home").iterdir()) == [], "the client left something in the home folder"
