"""The runs of a grid, made once; each test has a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from compared_runs import make_grid


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    make_grid(outputs)
    return outputs


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may add to."""
    shutil.copytree(made, tmp_path / "outputs")
    return tmp_path / "outputs"
