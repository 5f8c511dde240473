"""One seed for every source of randomness."""

from __future__ import annotations

import random


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (every device of it) with the same number."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # the legacy global state, which libraries still draw from
    torch.manual_seed(seed)
