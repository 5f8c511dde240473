"""One running stage: its record, and what is told about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.artifacts.store import Artifact

Cell = str | int | float | bool | None


class Run:
    """Handed to a stage; nothing in here raises because of the mirror."""

    stage: str
    name: str

    @property
    def wandb_run_id(self) -> str | None:
        """Identity of the mirrored run, kept over restarts; None where tracking is disabled."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, str]:
        """Where the run is mirrored; goes into the manifest's `tracking`."""
        raise NotImplementedError

    def log(self, row: Mapping[str, float | int], step: int) -> None:
        """Append one row of metrics to the record; the mirror follows."""
        raise NotImplementedError

    def cut(self, step: int) -> None:
        """Drop every row beyond `step`, which a resumed run computes again."""
        raise NotImplementedError

    def notice(self, text: str) -> None:
        """Tell the user one line, on the terminal and in the log file."""
        raise NotImplementedError

    def progress(self, total: int, done: int) -> None:
        """Show how far the stage is."""
        raise NotImplementedError

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Mirror a table when the run finishes."""
        raise NotImplementedError

    def finish(self, artifact: Artifact) -> None:
        """End the run, whose output has been sealed."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End the run without an output."""
        raise NotImplementedError
