"""What answering costs, for a small set of ways to run one policy."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.fields import MISSING, option
from pipeline.config.shared import DType


@dataclass(kw_only=True)
class VariantConfig:
    """One way to run the policy."""

    name: str = MISSING
    dtype: DType = DType.float32
    int8: bool = False  # weights of linear layers in 8 bits, activations quantised as they come; on a CPU
    merged: bool = False  # the adapter's matrices are added to the base's; nothing changes without an adapter
    batch_size: int = option(16, ge=1)  # items answered together


def usual_variants() -> list[VariantConfig]:
    """Return the reference, and one change at a time."""
    return [
        VariantConfig(name="fp32"),
        VariantConfig(name="bf16", dtype=DType.bfloat16),
        VariantConfig(name="int8", int8=True, merged=True),
        VariantConfig(name="merged", merged=True),
        VariantConfig(name="batch 4", batch_size=4),
        VariantConfig(name="batch 1", batch_size=1),
    ]


@dataclass(kw_only=True)
class CostsConfig:
    """Measured on the items of one suite, each variant in a process of its own."""

    enabled: bool = False
    suite: str | None = None  # a generation suite of the run; null is the first
    policy: str | None = None  # among those that are evaluated; null is the last, and no model behind HTTP
    items: int = option(32, ge=2)
    passes: int = option(3, ge=1)  # over the items, all variants in turn; times are medians with their range
    max_seconds: float = option(1800.0, gt=0)  # no pass is begun that would, by the last one, end later
    variants: list[VariantConfig] = option(factory=usual_variants)  # the first is what the others are compared with
    price_per_hour: float = option(0.0, ge=0)  # of the machine, in any currency
