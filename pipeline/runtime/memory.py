"""How much memory a process has used at its peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory_bytes(device_type: str = "cpu") -> int:
    """Return the high-water mark of resident memory, or of what torch allocated on a CUDA device."""
    if device_type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if _STATUS.exists():
        # VmHWM belongs to this program; ru_maxrss would also count what its parent used before it started this one.
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
