"""Where a labeling server is and what is exchanged with it. The token is in the environment and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.fields import MISSING, option


@dataclass(kw_only=True)
class LabelConfig:
    """A project on a Label Studio server, and a file."""

    url: str = "http://localhost:8080"
    project: str = MISSING  # its title
    path: str = MISSING  # pairs to push, or the file that annotations are written to
    seed: int = option(0, ge=0)  # of which completion is shown on the left
    batch_size: int = option(100, ge=1, le=1000)  # tasks per request
    seconds: float = option(60.0, gt=0, le=3600)  # that one answer of the server may take


@dataclass(kw_only=True)
class LabelRoot:
    """The keys that the command `label` takes."""

    label: LabelConfig = option(factory=LabelConfig)
