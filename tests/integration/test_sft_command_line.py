"""One SIGTERM and one SIGKILL on the embedded model, through the command line that users type."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from killed_run import Place, write_rows

from pipeline.artifacts.base_model import embedded_file
from pipeline.errors import ModelError

NUM_STEPS, STOP_AT = 6, 3
OVERRIDES = (f"sft.max_steps={NUM_STEPS}", "sft.batch_size=2", "sft.microbatch_size=1", "sft.validate_every=2",
             "sft.lora.dropout=0.1")  # fmt: skip

try:
    embedded_file()
except ModelError as error:
    pytestmark = [pytest.mark.integration, pytest.mark.skip(reason=str(error))]
else:
    pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model and the rows."""
    return write_rows(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Place:
    place = Place(tmp_path_factory.mktemp("reference") / "run", cache, "sft", OVERRIDES)
    place.finish()
    return place


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_run_that_was_stopped_ends_at_the_same_policy(
    uninterrupted: Place, cache: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    place = Place(tmp_path / "run", cache, "sft", OVERRIDES)
    process = place.run_until(STOP_AT)
    process.send_signal(number)
    asked = time.perf_counter()
    assert process.wait(timeout=600) == status, place.log[-3000:]
    waited = time.perf_counter() - asked
    if number is signal.SIGTERM:
        assert "Stopped by SIGTERM after step" in place.log
        print(f"saved and ended {waited:.1f} s after the signal")
    assert not place.sealed
    place.finish()
    assert "going on from the checkpoint of step" in place.log
    place.require_same_policy(uninterrupted)
