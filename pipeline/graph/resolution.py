"""What the nodes of one invocation share: the artifacts so far, and from them inputs and fingerprints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.adapter_folder import vet_adapter
from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.store import Store
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig
from pipeline.errors import ArtifactError, DataError, ModelError
from pipeline.graph.fingerprint import Surroundings, fingerprint_inputs
from pipeline.graph.nodes import Node

if TYPE_CHECKING:
    from pipeline.artifacts.base_model import BaseModel


@dataclass(kw_only=True)
class Resolution:
    """Turns the wiring into artifacts and fingerprints while nodes are made one after the other."""

    config: Config
    store: Store
    hashes: FileHashes
    base: Callable[[ModelConfig], BaseModel]  # asked only if a node uses it
    plugins: Mapping[str, str] = field(default_factory=dict)  # file -> sha256
    say: Callable[[str], None] = print
    made: dict[str, Artifact] = field(default_factory=dict)  # by node name
    opened: dict[str, Artifact] = field(default_factory=dict)  # by the reference in the configuration
    _bases: list[tuple[ModelConfig, BaseModel]] = field(default_factory=list)

    def base_for(self, node: Node) -> BaseModel | None:
        """Return the base model for a node that uses one, resolving each once."""
        if not node.spec.uses_base:
            return None
        wanted = node.model or self.config.model
        for model, base in self._bases:
            if model == wanted:
                return base
        self._bases.append((wanted, self.base(wanted)))
        return self._bases[-1][1]

    def inputs(self, node: Node) -> dict[str, list[Artifact]]:
        """Return the artifacts that a node consumes, by role, verified and with every part that it requires."""
        found: dict[str, list[Artifact]] = {}
        for role, sources in node.inputs.items():
            kind = next(consumed.kind for consumed in node.spec.consumes if consumed.role == role)
            found[role] = [
                self.made[source.node] if source.node is not None else self.reference(source.reference or "", kind)
                for source in sources
            ]
        self.require_parts([node])
        return found

    def reference(self, text: str, kind: ArtifactKind | None = None) -> Artifact:
        """Open an artifact that the configuration names; its bytes are verified once per invocation."""
        artifact = self.opened.get(text)
        if artifact is None or kind not in {None, artifact.kind}:
            artifact = self.opened[text] = self.store.open(text, kind)
        return artifact

    def table(self, node: Node, inputs: Mapping[str, Sequence[Artifact]]) -> dict[str, Any]:
        """Return everything that a node's result depends on."""
        around = Surroundings(config=self.config, hashes=self.hashes, base=self.base_for(node), plugins=self.plugins)
        return fingerprint_inputs(node, inputs, around)

    def require_references(self, nodes: Sequence[Node]) -> None:
        """Raise one error for every artifact that the configuration names and that cannot be opened."""
        problems = []
        for node in nodes:
            kinds = {consumed.role: consumed.kind for consumed in node.spec.consumes}
            for role, sources in node.inputs.items():
                for source in sources:
                    try:
                        if source.reference is not None:
                            self.reference(source.reference, kinds[role])
                    except ArtifactError as error:
                        problems.append(f"{source.key}: {error}")
        if problems:
            raise ArtifactError("\n".join(dict.fromkeys(problems)))
        self._require_models(nodes)

    def _require_models(self, nodes: Sequence[Node]) -> None:
        """Find and vet every model that is not the run's own, so that a bad one shows before anything trains."""
        for node in nodes:
            if node.model is None and node.adapter is None:
                continue
            try:
                base = self.base_for(node)
                if node.adapter is not None and base is not None:
                    vet_adapter(node.adapter, base.name)
            except ModelError as error:
                raise ModelError(f"{node.needed_by or node.name}: {error}") from error

    def require_parts(self, nodes: Sequence[Node]) -> None:
        """Raise one error for every table that a node needs and that an input known by now does not have.

        Asked about all nodes as soon as a data set exists, so that a missing test split shows before training.
        """
        problems = []
        for node in nodes:
            for role, required in node.required.items():
                for source in node.inputs.get(role, ()):
                    artifact = self.made.get(source.node or "")
                    if source.reference is not None:
                        artifact = self.reference(source.reference)
                    if artifact is None:
                        continue
                    problems += [
                        _missing_part(node, artifact, part) for part in required if part not in artifact.manifest.parts
                    ]
        if problems:
            raise DataError("\n".join(dict.fromkeys(problems)))

    def look_up(self, node: Node, digest: str) -> Artifact | None:
        """Return the sealed artifact of a fingerprint, unless the stage is forced."""
        if node.stage in self.config.force:
            return None
        return self.store.current(node.spec.name, digest, self.say)


def _missing_part(node: Node, artifact: Artifact, part: str) -> str:
    table, _, split = part.partition("/")
    parts = ", ".join(sorted(artifact.manifest.parts)) or "nothing"
    return (
        f"The {split} split of the table {table!r} is empty, and {node.needed_by} needs it. {artifact.id} has: {parts}."
        " Add a source with such rows to `data.sources`, change the fractions of `curate`, or do without it."
    )
