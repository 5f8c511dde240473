"""Jobs for the stage `sft` on a tiny model, made of the real parts: base, sealed data set, work folder and record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file
from tiny import make_tiny_model

from pipeline.artifacts.base_model import BaseModel, resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Artifact, Store, WorkFolder
from pipeline.config.shared import (
    DType,
    LoRAConfig,
    ModelConfig,
    ModelSource,
    OptimizerConfig,
    RuntimeConfig,
    TrackingConfig,
    TrackingMode,
)
from pipeline.config.stages import SFTConfig
from pipeline.data.rows import Demonstration, Message
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.stages.sft import train_sft
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

WORDS = ["password", "delivery", "refund", "account", "settings", "order", "link", "card", "noon", "page", "answer"]


def demonstrations(count: int, *, first: int = 0) -> list[Demonstration]:
    """Conversations of different lengths that a tiny model can learn something from."""
    rows = []
    for number in range(first, first + count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        question = f"What about the {word}{' and the ' + other if number % 3 else ''}?"
        reply = f"The {word} is ready." + f" Open the {other} page." * (number % 4)
        rows.append(
            Demonstration(
                id=f"row-{number:03d}",
                source="test",
                licence=None,
                prompt=[Message(role="user", content=question)],
                completion=[Message(role="assistant", content=reply)],
            )
        )
    return rows


def small_config(**changes: Any) -> SFTConfig:
    """A run of eight optimizer steps with dropout, checkpoints at every second step."""
    values: dict[str, Any] = {
        "seed": 5,
        "lora": LoRAConfig(rank=4, alpha=8.0, dropout=0.2),
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_fraction=0.1),
        "num_epochs": 2,
        "batch_size": 4,
        "microbatch_size": 2,
        "max_length": 128,
        "validate_every": 2,
    }
    return SFTConfig(**{**values, **changes})


@dataclass
class Workshop:
    """A tiny base, a sealed data set, and an output folder in which jobs are started again and again."""

    outputs: Path
    base: BaseModel
    dataset: Artifact
    model: ModelConfig
    notices: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """The store of all artifacts."""
        return Store(self.outputs)

    def fingerprint(self, name: str) -> str:
        """A made-up fingerprint: 64 hexadecimal digits."""
        return sha256(name.encode()).hexdigest()

    def work(self, name: str) -> WorkFolder:
        """Open a work folder as a new process would."""
        return self.store.work("sft", self.fingerprint(name))

    @contextmanager
    def job(
        self, config: SFTConfig, *, name: str = "run", work: WorkFolder | None = None, policy: Artifact | None = None
    ) -> Iterator[StageJob]:
        """Start the stage in its work folder, with a record and without a mirror."""
        work = self.work(name) if work is None else work
        inputs = {"dataset": [self.dataset], "policy": [] if policy is None else [policy]}
        tracking = TrackingConfig(mode=TrackingMode.disabled)
        with TrackingSession(tracking, self.outputs, self.outputs / "runs" / name, {}) as session:
            run = session.start(stage="sft", name="sft", fingerprint=self.fingerprint(name), work=work, inputs=inputs)
            yield StageJob(
                sections={SFTConfig: config, ModelConfig: self.model},
                inputs=inputs,
                run=run,
                work=work,
                runtime=RuntimeConfig(outputs=str(self.outputs), num_threads=1),
                base_model=self.base,
            )

    def seal(self, work: WorkFolder, outcome: StageOutcome, *, name: str = "run") -> Artifact:
        """Seal what a job has staged."""
        return self.store.seal(
            work, kind=ArtifactKind.policy, stage="sft", version=1, fingerprint=self.fingerprint(name), parents=[],
            config={}, outcome=outcome,
        )  # fmt: skip


def make_workshop(folder: Path, *, num_train: int = 16, num_validation: int = 4) -> Workshop:
    """Write the model and seal the data set."""
    outputs = folder / "outputs"
    model_folder = make_tiny_model(folder / "model")
    model = ModelConfig(source=ModelSource.hub, id=str(model_folder), dtype=DType.float32)
    store = Store(outputs)
    work = store.work("curate", "c" * 64)
    parts = {}
    for split, rows in {
        "train": demonstrations(num_train),
        "validation": demonstrations(num_validation, first=num_train),
    }.items():
        if rows:
            write_table(work.staging, "demonstrations", split, rows)
            parts[part_name("demonstrations", split)] = rows_digest(rows)
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    return Workshop(outputs=outputs, base=resolve_base(model, folder / "cache"), dataset=dataset, model=model)


def open_workshop(folder: Path) -> Workshop:
    """Take up a workshop that another process made."""
    outputs, model_folder = folder / "outputs", folder / "model"
    dataset = Store(outputs).open("curate-")
    model = ModelConfig(source=ModelSource.hub, id=str(model_folder), dtype=DType.float32)
    return Workshop(outputs=outputs, base=resolve_base(model, folder / "cache"), dataset=dataset, model=model)


def train_and_seal(workshop: Workshop, config: SFTConfig, name: str) -> Artifact:
    """Do what a run of the stage does: reuse the sealed artifact, or train under the lock and seal."""
    store, fingerprint = workshop.store, workshop.fingerprint(name)
    store.sweep()
    with store.lock("sft", fingerprint):
        artifact = store.current("sft", fingerprint)
        if artifact is None:
            work = workshop.work(name)
            with workshop.job(config, name=name, work=work) as job:
                artifact = workshop.seal(work, train_sft(job), name=name)
    store.discard_sealed_work("sft", fingerprint)
    return artifact


def tensors(folder: Path) -> dict[str, Any]:
    """The adapter's tensors, by name."""
    return load_file(folder / "adapter_model.safetensors")


def metric_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a record."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
