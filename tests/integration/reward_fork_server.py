"""The server of `sft_fork_server`, for the stage `reward`: an ensemble of two over states of a frozen lower layer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import sft_fork_server  # noqa: E402
from reward_jobs import open_workshop, small_config, train_and_seal  # noqa: E402


def train(folder: Path, name: str) -> None:
    """What a child does."""
    train_and_seal(open_workshop(folder), small_config(num_members=2, num_epochs=1, upper_layers=1), name)


if __name__ == "__main__":
    sft_fork_server.main(train)
