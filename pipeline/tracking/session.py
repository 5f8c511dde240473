"""One invocation's tracking: decides once between online and offline, then starts runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.shared import TrackingConfig
from pipeline.tracking.run import Run

if TYPE_CHECKING:
    from pipeline.artifacts.store import Artifact, WorkFolder


class TrackingSession:
    """Context manager; `close` is called on leaving."""

    def __init__(
        self, config: TrackingConfig, outputs: Path, run_folder: Path, logged_config: Mapping[str, Any]
    ) -> None:
        """Nothing is contacted or imported before the first run starts."""
        raise NotImplementedError

    def __enter__(self) -> TrackingSession:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def start(
        self,
        *,
        stage: str,
        name: str,
        fingerprint: str,
        work: WorkFolder,
        inputs: Mapping[str, Sequence[Artifact]],
        step_total: int | None = None,
    ) -> Run:
        """Begin a run of a stage, or take one up again where its work folder remembers it."""
        raise NotImplementedError

    def close(self) -> None:
        """End what is open."""
        raise NotImplementedError
