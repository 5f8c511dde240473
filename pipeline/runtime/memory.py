"""How much memory a process has used at its peak."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel takes for: set the high-water mark to what is resident now (proc_pid_clear_refs(5))


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


def reset_peak_memory(device_type: str = "cpu") -> bool:
    """Let `peak_memory_bytes` count from what is in use now; False where the system cannot."""
    gc.collect()
    if device_type == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return _STATUS.exists()
