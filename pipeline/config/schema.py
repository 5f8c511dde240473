"""Dataclasses as OmegaConf compares a file with them."""

from __future__ import annotations

from functools import cache

from omegaconf import DictConfig, OmegaConf


@cache  # to build one takes longer than to read the file
def schema_of(section: type) -> DictConfig:
    """Return the schema of a dataclass, to merge something into a copy of it."""
    return OmegaConf.structured(section)
