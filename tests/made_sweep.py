"""A sweep whose trials are `fake_trial.py`, and what they really did."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.config.space import Axis
from pipeline.config.sweep import SweepConfig, SweepMethod
from pipeline.sweeps.launching import launcher_for
from pipeline.sweeps.record import SweepRecord, Trial
from pipeline.sweeps.running import Started, Sweep
from pipeline.sweeps.search import Search

FAKE = Path(__file__).resolve().with_name("fake_trial.py")
OBJECTIVE = [{"name": "sft/validation_loss", "direction": "minimize"}]


def make_sweep(outputs: Path, axes: list[Axis], record: SweepRecord | None = None, **config: object) -> Sweep:
    settings = SweepConfig(launch=[sys.executable, str(FAKE)], **config)  # type: ignore[arg-type]
    folder = outputs / "runs" / "now_sft_sweep"
    folder.mkdir(parents=True, exist_ok=True)
    record = record or SweepRecord(
        path=folder, identity="i", command="c", experiment="sft", method=str(settings.method),
        objectives=list(OBJECTIVE), space={axis.key: axis.described() for axis in axes},
    )  # fmt: skip
    search = None if settings.method is SweepMethod.grid else Search(folder, settings, axes, ["minimize"], "study")
    started = Started(command="train", flags=[], overrides=[f"runtime.outputs={outputs}"], environment={})
    return Sweep(
        record=record, config=settings, axes=axes, search=search, started=started,
        launcher=launcher_for(settings, folder, record.save), watched=("sft", "validation_loss"), say=lambda _: None,
    )  # fmt: skip


def epochs(outputs: Path) -> list[tuple[str, int, float]]:
    """Every epoch that was really run: folder, number, time."""
    log = outputs / "epochs.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(name, int(number), float(at)) for name, number, at, _ in (line.split() for line in lines)]


def by_status(trials: list[Trial]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for trial in trials:
        found.setdefault(str(trial.status), []).append(trial.number)
    return found
