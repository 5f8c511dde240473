"""The chain of one run: which stage consumes whose output.

Inputs are wired by kind with the typed default of the specification; ``inputs.<stage>.<role>`` overrides it with a
stage of the chain, an artifact id or a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.root import EVALUATE, Config
from pipeline.graph.nodes import Node, Source
from pipeline.graph.spec import BASE, Consumes, StageSpec


class Wiring:
    """The chain of one run, and what is wrong with it so far."""

    def __init__(
        self,
        config: Config,
        stages: Mapping[str, StageSpec],
        chain: list[str],
        problems: list[str],
        endpoints: Mapping[str, EndpointConfig] | None = None,
    ) -> None:
        self.config, self.stages, self.chain, self.problems = config, stages, chain, problems
        self.endpoints = endpoints or {}  # models behind HTTP, by name

    def node(self, spec: StageSpec) -> Node:
        """Wire one ordinary stage."""
        return Node(
            name=spec.name,
            stage=spec.name,
            spec=spec,
            inputs={consumed.role: self.sources(spec.name, consumed) for consumed in spec.consumes},
            reads={consumed.role: consumed.parts for consumed in spec.consumes},
            required={consumed.role: consumed.required for consumed in spec.consumes},
            needed_by=f"the stage {spec.name!r}",
        )

    def sources(self, stage: str, consumed: Consumes) -> tuple[Source, ...]:
        """Return where a stage's input comes from; nothing for an optional one that is absent."""
        key = f"inputs.{stage}.{consumed.role}"
        named = self.override(stage, consumed.role)
        if named is not None:
            return self.named(stage, consumed.kind, str(named), key)
        default = next((producer for producer in consumed.default if producer in self.before(stage)), None)
        if default is not None:
            return (Source(label=default, node=default),)
        if not consumed.optional:
            producers = " or ".join(repr(name) for name in consumed.default) or f"one that makes a {consumed.kind}"
            self.problems.append(
                f"{key}: {stage!r} needs a {consumed.kind}. Name the stage {producers} before it in `stages`, or "
                f"write `{key}=` and an artifact's id or path."
            )
        return ()

    def named(self, stage: str, kind: ArtifactKind, value: str, key: str) -> tuple[Source, ...]:
        """Return the source that a configuration value names; nothing for the base and for a problem."""
        if value == BASE and kind == ArtifactKind.policy:
            return ()
        if value not in self.stages and value != EVALUATE:
            return (Source(label=Path(value).name, reference=value, key=key),)
        if value not in self.before(stage):
            self.problems.append(f"{key}={value}: {value!r} does not run before {stage!r}. Add it to `stages`.")
        elif self.stages[value].kind != kind:
            self.problems.append(f"{key}={value}: {value!r} makes a {self.stages[value].kind}, and a {kind} is needed.")
        else:
            return (Source(label=value, node=value),)
        return ()

    def override(self, stage: str, role: str) -> Any:
        """Return the value of ``inputs.<stage>.<role>``, or None where nothing is said."""
        return getattr(getattr(self.config.inputs, stage, None), role, None)

    def before(self, stage: str) -> list[str]:
        """Return the stages of the chain before one of them."""
        return self.chain[: self.chain.index(stage)]
