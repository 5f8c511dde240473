"""Dataclasses as OmegaConf compares a file with them."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf


def schema_of(section: type) -> DictConfig:
    """Return the schema of a dataclass, to merge something into a copy of it."""
    return _schema(cast("Any", section))


@cache  # to build one takes longer than to read the file
def _schema(section: Any) -> DictConfig:
    return cast("DictConfig", OmegaConf.structured(section))
