"""Write the losses that a stage must retrace: `python tests/golden/record.py`, from a clean checkout.

Run it only together with raising the stage's `version` in `pipeline/graph/spec.py`: the file says under which version
the numbers were recorded, and `tests/stages/test_golden.py` fails when they move and the version did not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parents[1])]

import reward_jobs  # noqa: E402
from pair_jobs import make_pair_workshop, make_reference, run_dpo, small_dpo  # noqa: E402
from sft_jobs import make_workshop, metric_rows, small_config  # noqa: E402
from thumb_jobs import make_reference as make_thumb_reference  # noqa: E402
from thumb_jobs import make_thumb_workshop, run_kto, small_kto  # noqa: E402

from pipeline.graph.spec import STAGES  # noqa: E402
from pipeline.stages.sft import train_sft  # noqa: E402


def sft_losses(folder: Path, *, learning_rate_factor: float = 1.0) -> list[float]:
    """Train the tiny model for eight steps and return the loss of each."""
    config = small_config()
    optimizer = replace(config.optimizer, learning_rate=config.optimizer.learning_rate * learning_rate_factor)
    workshop = make_workshop(folder)
    work = workshop.work("golden")
    with workshop.job(replace(config, optimizer=optimizer), name="golden", work=work) as job:
        train_sft(job)
    return [row["loss"] for row in metric_rows(work.metrics) if "loss" in row]


def dpo_losses(folder: Path, *, learning_rate_factor: float = 1.0) -> list[float]:
    """Train the tiny model on pairs for eight steps, from the base, and return the loss of each."""
    config = small_dpo()
    optimizer = replace(config.optimizer, learning_rate=config.optimizer.learning_rate * learning_rate_factor)
    workshop = make_pair_workshop(folder)
    changed = replace(config, optimizer=optimizer)
    _, work = run_dpo(workshop, changed, "golden", reference=make_reference(workshop))
    return [row["loss"] for row in metric_rows(work.metrics) if "loss" in row]


def kto_losses(folder: Path, *, learning_rate_factor: float = 1.0) -> list[float]:
    """Train the tiny model on labelled completions for eight steps, from the base, and return the loss of each."""
    config = small_kto()
    optimizer = replace(config.optimizer, learning_rate=config.optimizer.learning_rate * learning_rate_factor)
    workshop = make_thumb_workshop(folder)
    changed = replace(config, optimizer=optimizer)
    _, work = run_kto(workshop, changed, "golden", reference=make_thumb_reference(workshop))
    return [row["loss"] for row in metric_rows(work.metrics) if "loss" in row]


def reward_losses(folder: Path, *, learning_rate_factor: float = 1.0) -> list[float]:
    """Train a reward model of the tiny base for eight steps and return the loss of each."""
    config = reward_jobs.small_config(max_steps=8)
    optimizer = replace(config.optimizer, learning_rate=config.optimizer.learning_rate * learning_rate_factor)
    _, work = reward_jobs.make_workshop(folder).run(replace(config, optimizer=optimizer), "golden")
    return [row["loss"] for row in metric_rows(work.metrics) if "loss" in row]


GOLDEN = {"sft": sft_losses, "dpo": dpo_losses, "kto": kto_losses, "reward": reward_losses}  # by stage


def main() -> None:
    """Record every stage that has golden losses."""
    changes = subprocess.run(
        ["git", "status", "--porcelain", "--", "pipeline"], cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout
    if changes:
        sys.exit(f"Commit first: golden losses belong to a commit, and these files differ from it:\n{changes}")
    for stage, losses_of in GOLDEN.items():
        with tempfile.TemporaryDirectory() as folder:
            losses = losses_of(Path(folder))
        recorded = {"stage": stage, "version": STAGES[stage].version, "torch": version("torch"), "losses": losses}
        (FOLDER / f"{stage}.json").write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
