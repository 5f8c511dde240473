"""Jobs for the stage `reward` on a tiny model: the workshop of `sft_jobs`, with comparisons in its data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from sft_jobs import WORDS
from tiny import make_tiny_model

from pipeline.artifacts.base_model import BaseModel, resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Artifact, Store, WorkFolder
from pipeline.config.reward import AuditConfig, RewardConfig
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
from pipeline.data.rows import Comparison, Message
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.stages.reward import train_reward
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession


def comparisons(count: int, *, first: int = 0) -> list[Comparison]:
    """Pairs in which the reply that names the asked word is the better one; lengths say nothing."""
    rows = []
    for number in range(first, first + count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        endings = [" Open the page." * (number % 3), " Look at the card." * ((number + 1) % 3)]
        replies = [f"The {word} is ready.{endings[0]}", f"I do not know the {other}.{endings[1]}"]
        rows.append(
            Comparison(
                id=f"pair-{number:03d}",
                source="even" if number % 2 == 0 else "odd",
                licence=None,
                prompt=[Message(role="user", content=f"What about the {word} number {number // 2}?")],
                chosen=[Message(role="assistant", content=replies[0])],
                rejected=[Message(role="assistant", content=replies[1])],
                confidence=(1.0, 0.9, 0.7)[number % 3],
                num_votes=3,
                fold=number // 2 % 5,
            )
        )
    return rows


def small_config(**changes: Any) -> RewardConfig:
    """A run of eight optimizer steps with checkpoints at every second step."""
    values: dict[str, Any] = {
        "seed": 5,
        "lora": LoRAConfig(rank=4, alpha=8.0),
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_fraction=0.1),
        "num_epochs": 2,
        "batch_size": 4,
        "microbatch_size": 2,
        "max_length": 128,
        "validate_every": 2,
        "audit": AuditConfig(num_samples=4, max_new_tokens=8),
    }
    return RewardConfig(**{**values, **changes})


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
        return self.store.work("reward", self.fingerprint(name))

    @contextmanager
    def job(
        self,
        config: RewardConfig,
        *,
        name: str = "run",
        work: WorkFolder | None = None,
        policy: Artifact | None = None,
        folds: Sequence[int] = (0, 1, 2),
    ) -> Iterator[StageJob]:
        """Start the stage in its work folder, with a record and without a mirror."""
        work = self.work(name) if work is None else work
        inputs = {"dataset": [self.dataset], "policy": [] if policy is None else [policy]}
        tracking = TrackingConfig(mode=TrackingMode.disabled)
        with TrackingSession(tracking, self.outputs, self.outputs / "runs" / name, {}) as session:
            run = session.start(
                stage="reward", name="reward", fingerprint=self.fingerprint(name), work=work, inputs=inputs
            )
            yield StageJob(
                sections={RewardConfig: config, ModelConfig: self.model},
                inputs=inputs,
                run=run,
                work=work,
                runtime=RuntimeConfig(outputs=str(self.outputs), num_threads=1),
                base_model=self.base,
                params={"folds": list(folds)},
            )

    def run(self, config: RewardConfig, name: str, **kwargs: Any) -> tuple[StageOutcome, WorkFolder]:
        """Train in a work folder of its own."""
        work = self.work(name)
        with self.job(config, name=name, work=work, **kwargs) as job:
            return train_reward(job), work

    def seal(self, work: WorkFolder, outcome: StageOutcome, *, name: str) -> Artifact:
        """Seal what a job has staged."""
        return self.store.seal(
            work, kind=ArtifactKind.reward_model, stage="reward", version=1, fingerprint=self.fingerprint(name),
            parents=[], config={}, outcome=outcome,
        )  # fmt: skip


def open_workshop(folder: Path) -> Workshop:
    """Take up a workshop that another process made."""
    outputs = folder / "outputs"
    model = ModelConfig(source=ModelSource.hub, id=str(folder / "model"), dtype=DType.float32)
    dataset = Store(outputs).open("curate-")
    return Workshop(outputs=outputs, base=resolve_base(model, folder / "cache"), dataset=dataset, model=model)


def train_and_seal(workshop: Workshop, config: RewardConfig, name: str) -> Artifact:
    """Do what a run of the stage does: reuse the sealed artifact, or train under the lock and seal."""
    store, fingerprint = workshop.store, workshop.fingerprint(name)
    store.sweep()
    with store.lock("reward", fingerprint):
        artifact = store.current("reward", fingerprint)
        if artifact is None:
            outcome, work = workshop.run(config, name)
            artifact = workshop.seal(work, outcome, name=name)
    store.discard_sealed_work("reward", fingerprint)
    return artifact


def make_workshop(folder: Path, tables: dict[str, list[Comparison]] | None = None, **model: Any) -> Workshop:
    """Write the model and seal the data set: by default 40, 10 and 20 comparisons."""
    outputs = folder / "outputs"
    model_folder = make_tiny_model(folder / "model", **model)
    config = ModelConfig(source=ModelSource.hub, id=str(model_folder), dtype=DType.float32)
    store = Store(outputs)
    work = store.work("curate", "c" * 64)
    parts = {}
    given = tables or {
        "train": comparisons(40), "validation": comparisons(10, first=40), "test": comparisons(20, first=50)
    }  # fmt: skip
    for split, rows in given.items():
        write_table(work.staging, "comparisons", split, rows)
        parts[part_name("comparisons", split)] = rows_digest(rows)
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    return Workshop(outputs=outputs, base=resolve_base(config, folder / "cache"), dataset=dataset, model=config)
