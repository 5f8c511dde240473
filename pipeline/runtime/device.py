"""Which device a run uses and which number format is fast on it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.shared import Device, DType, RuntimeConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import torch

# bfloat16 keeps 8 bits of a number, so it has to be worth it: a few per cent are noise of the measurement, and a
# machine that chose now one and now the other would not repeat its own results.
SPEEDUP_WORTH_HAVING = 1.25
PROBE_SECONDS = 0.01  # spent on each product after its warm-up, in every round
# Another process on the same cores may slow one format and not the other, so they take turns and the best of each
# counts. bfloat16 gets all rounds before it is turned down: that it is fast, a busy machine can hide for a while.
FEWEST_ROUNDS, MOST_ROUNDS = 3, 25
FIRST_SIZE = 128  # a square product that is over in milliseconds even where a number format is emulated
CPU_SIZE, ACCELERATOR_SIZE = 512, 4096  # products large enough to show what the hardware can do
HOPELESS = 4.0  # times slower in the first product: the larger one would take long and change nothing


@dataclass(frozen=True, slots=True)
class DTypeProbe:
    """What was measured, and what follows from it."""

    dtype: DType
    float32_gflops: float
    bfloat16_gflops: float
    seconds: float

    def __str__(self) -> str:
        """Say it in one line, as it is printed at the start of a run."""
        return (
            f"{self.dtype} (matrix products: float32 {self.float32_gflops:,.0f} GFLOP/s, "
            f"bfloat16 {self.bfloat16_gflops:,.0f} GFLOP/s; probed in {1000 * self.seconds:.0f} ms)"
        )


def choose_device(runtime: RuntimeConfig) -> torch.device:
    """Return the device that ``runtime.device`` names, or the fastest kind that is there, and set the thread count."""
    import torch

    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    available = {
        Device.cuda: torch.cuda.is_available(),
        Device.mps: torch.backends.mps.is_available(),
        Device.cpu: True,
    }
    if runtime.device is Device.auto:
        return torch.device(next(device.value for device, is_there in available.items() if is_there))
    if not available[runtime.device]:
        there = ", ".join(device.value for device, is_there in available.items() if is_there)
        raise ConfigError(
            f"runtime.device is {runtime.device.value}, which torch {torch.__version__} does not find on this machine "
            f"(there is: {there}). Set runtime.device=auto, or install a build of torch for that device."
        )
    return torch.device(runtime.device.value)


def probe_dtype(device: torch.device) -> DTypeProbe:
    """Measure a matrix product in both number formats, once per process and device."""
    return _probe(device.type)


@functools.cache
def _probe(device_type: str) -> DTypeProbe:
    import torch

    started = time.perf_counter()
    synchronize = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device_type, _nothing)
    for size in (FIRST_SIZE, CPU_SIZE if device_type == "cpu" else ACCELERATOR_SIZE):
        float32 = bfloat16 = 0.0
        for number in range(1, MOST_ROUNDS + 1):
            float32 = max(float32, _matrix_rate(torch.float32, device_type, size, synchronize))
            bfloat16 = max(bfloat16, _matrix_rate(torch.bfloat16, device_type, size, synchronize))
            clear = float32 > HOPELESS * bfloat16 or bfloat16 > SPEEDUP_WORTH_HAVING * float32
            if clear and number >= FEWEST_ROUNDS:
                break
        if float32 > HOPELESS * bfloat16:
            break
    dtype = DType.bfloat16 if bfloat16 > SPEEDUP_WORTH_HAVING * float32 else DType.float32
    return DTypeProbe(dtype, float32, bfloat16, time.perf_counter() - started)


def _matrix_rate(dtype: torch.dtype, device_type: str, size: int, synchronize: Callable[[], None]) -> float:
    """Return the best rate of a square product within the time of the probe, in GFLOP/s."""
    import torch

    # Ones and not noise: the probe must leave the random state alone, or it would shift what is trained.
    left = torch.ones((size, size), dtype=dtype, device=device_type)
    product = torch.empty_like(left)
    torch.mm(left, left, out=product)  # warm-up: kernels are chosen and compiled here
    synchronize()
    best, end = float("inf"), time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, left, out=product)
        synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def _nothing() -> None:
    """The CPU computes when asked and has nothing to wait for."""
