"""The server of `sft_fork_server`, for the stage that is named: `samples` or `verdicts`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import sft_fork_server  # noqa: E402
from evaluation_jobs import EvaluationWorkshop  # noqa: E402

SEAL = {"samples": EvaluationWorkshop.seal_samples, "verdicts": EvaluationWorkshop.seal_verdicts}


def make(folder: Path, name: str) -> None:
    """What a child does."""
    SEAL[sys.argv[1]](EvaluationWorkshop(folder=folder), name)


if __name__ == "__main__":
    sft_fork_server.main(make)
