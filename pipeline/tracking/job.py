"""What a stage function is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pipeline.config.shared import RuntimeConfig
from pipeline.tracking.run import Run

if TYPE_CHECKING:
    from pipeline.artifacts.base_model import BaseModel
    from pipeline.artifacts.store import Artifact, WorkFolder

Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """Everything that one run of one stage may look at; what is not in here does not exist for the stage."""

    sections: Mapping[type, object]  # configuration sections that the stage declared, by their class
    inputs: Mapping[str, list[Artifact]]  # role -> artifacts, in the order of the configuration
    run: Run
    work: WorkFolder
    runtime: RuntimeConfig
    base_model: BaseModel | None = None  # None where the stage declared that it uses none
    adapter: Path | None = None  # a folder with an adapter of the base that no stage made
    params: Mapping[str, Any] = field(default_factory=dict)  # what tells apart nodes that run the same stage

    def section(self, kind: type[Section]) -> Section:
        """Return the typed configuration section.

        Raises:
            KeyError: The stage's specification does not name this section, so it is not in the fingerprint either.
        """
        if kind not in self.sections:
            declared = ", ".join(sorted(known.__name__ for known in self.sections)) or "none"
            raise KeyError(f"The stage did not declare the section {kind.__name__} (it declared: {declared})")
        return cast(Section, self.sections[kind])

    @property
    def base(self) -> BaseModel:
        """The base model, for stages that declared `uses_base`."""
        if self.base_model is None:
            raise KeyError("The stage did not declare `uses_base`, so it has no base model")
        return self.base_model

    def one(self, role: str) -> Artifact | None:
        """Return the artifact of a role that holds at most one, or None where the input is absent."""
        artifacts = self.inputs.get(role, [])
        if len(artifacts) > 1:
            raise KeyError(f"The role {role!r} holds {len(artifacts)} artifacts; read `inputs[{role!r}]`")
        return artifacts[0] if artifacts else None

    @property
    def staging(self) -> Path:
        """The folder whose files will be sealed."""
        return self.work.staging
