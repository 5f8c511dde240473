"""What a stage function hands back when its files are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """Result of a stage; the files themselves lie in its staging folder."""

    # Name of each part that a later stage may consume -> digest of its meaning (canonical rows, adapter tensors), not
    # of its bytes: a later stage reruns only if a part that it reads has another digest.
    parts: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)  # final numbers, by name
    resolved: dict[str, Any] = field(default_factory=dict)  # what `auto` and other open choices came to
    gates: list[dict[str, Any]] = field(default_factory=list)  # checks of the result: {name, passed, ...}
