"""Sums that must not depend on the number format that a model computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def float64(values: Tensor) -> Tensor:
    """Return the values in float64: where they are, or on the CPU where their device has no such numbers (Apple's)."""
    return (values.cpu() if values.device.type == "mps" else values).double()
