"""Keep freed memory in the process, where glibc would return it and fetch it back page by page at every step."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3) by number.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
MEBIBYTE = 1 << 20
TRIM_THRESHOLD_BYTES = 2047 * MEBIBYTE  # the largest that fits mallopt's C int
TOP_PAD_BYTES = 64 * MEBIBYTE  # the heap grows in steps of this size instead of 128 KiB


def keep_memory() -> bool:
    """Tell glibc to serve large blocks from its heap and to keep them. Elsewhere this does nothing.

    Every tensor above 32 MiB is otherwise a mapping of its own, with pages that the kernel zeroes anew each time.
    The price is that the process stays at its peak, which a training step reaches again a moment later anyway. Call it
    before the first large tensor, in processes that train or generate.

    Returns:
        Whether all parameters were accepted.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # a C library without mallopt, such as musl
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: TRIM_THRESHOLD_BYTES, _M_TOP_PAD: TOP_PAD_BYTES}
    return all([mallopt(parameter, value) == 1 for parameter, value in wanted.items()])
