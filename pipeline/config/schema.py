"""Dataclasses as OmegaConf compares a file with them."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf


@cache  # to build one takes longer than to read the file
def schema_of(section: Any) -> DictConfig:
    """Return the schema of a dataclass, to merge something into a copy of it."""
    return cast("DictConfig", OmegaConf.structured(section))
