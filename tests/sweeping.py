"""A folder with a tiny model and a few rows, in which sweeps run through the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sft_jobs import WORDS
from tiny import make_tiny_model


def make_project(folder: Path, count: int = 60) -> Path:
    """Write a tiny model and demonstrations into a folder."""
    make_tiny_model(folder / "model")
    rows = []
    for number in range(count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        question = {"role": "user", "content": f"What about the {word} and the {other} of order {number}?"}
        reply = {"role": "assistant", "content": f"The {word} is ready. Open the {other} page."}
        rows.append({"id": f"row-{number:03d}", "messages": [question, reply]})
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def sweep_command(folder: Path, *arguments: str) -> list[str]:
    """Return the words of an SFT sweep on that folder, whose trials take a few seconds each."""
    return [
        sys.executable, "-m", "pipeline", "train", "-m", "+experiment=sft", "model=hub",
        f"model.id={folder / 'model'}", "data=jsonl", "data.path=demonstrations.jsonl", "evaluate.suites=[heldout]",
        "tracking=disabled", "model.dtype=float32", "sft.num_epochs=2", "sft.lora.rank=4", "sft.max_length=128",
        "runtime.num_threads=1", "curate.test_fraction=0.2", "curate.near_duplicates.enabled=false", *arguments,
    ]  # fmt: skip


def sweep_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a sweep on that folder."""
    return {**os.environ, "PIPELINE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def run_sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep to its end."""
    return subprocess.run(
        sweep_command(folder, *arguments),
        capture_output=True, text=True, check=False, cwd=folder, env=sweep_environment(folder),
    )  # fmt: skip
