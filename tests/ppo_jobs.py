"""Jobs for the stage `ppo` on a tiny model, made of the real parts: base, sealed data set, work folder and record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft_jobs import WORDS, Workshop
from tiny import make_tiny_model

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.artifacts.work import WorkFolder
from pipeline.config.ppo import MonitorConfig, NamedReward, PPOConfig, ValueModel
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
from pipeline.data.rows import Message, Prompt
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.stages.ppo import train_ppo
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

STAGE = "ppo"


def prompts(count: int, *, first: int = 0) -> list[Prompt]:
    """Questions of different lengths, each with the answer 4."""
    rows = []
    for number in range(first, first + count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        question = f"What about the {word}{' and the ' + other if number % 3 else ''}?"
        rows.append(
            Prompt(
                id=f"row-{number:03d}",
                source="test",
                licence=None,
                prompt=[Message(role="user", content=question)],
                reference="4",
            )
        )
    return rows


def small_config(**changes: Any) -> PPOConfig:
    """Six rollouts of eight completions, measured at every second one and saved as often."""
    values: dict[str, Any] = {
        "seed": 5,
        "lora": LoRAConfig(rank=4, alpha=8.0),
        "optimizer": OptimizerConfig(learning_rate=5e-3),
        "value_learning_rate": 5e-3,
        # The share of a letter: every policy passes it a little, so that there is something to learn at once.
        "rewards": [NamedReward(name="contains_share", params={"phrases": list("abcdefghij")})],
        "num_rollouts": 6,
        "rollout_size": 8,
        "minibatch_size": 4,
        "microbatch_size": 2,
        "max_new_tokens": 12,
        "value_model": ValueModel.adapter,
        "value_warmup": 1,
        "save_every": 2,
        "monitor": MonitorConfig(every=2, num_prompts=4, gold=[NamedReward(name="word_count", params={"target": 5})]),
    }
    return PPOConfig(**{**values, **changes})


class PPOWorkshop(Workshop):
    """A tiny base, a sealed data set of prompts, and an output folder in which jobs are started again and again."""

    def work(self, name: str) -> WorkFolder:
        """Open a work folder as a new process would."""
        return self.store.work(STAGE, self.fingerprint(name))

    @contextmanager
    def ppo_job(
        self, config: PPOConfig, *, name: str = "run", work: WorkFolder | None = None, **given: Artifact | None
    ) -> Iterator[StageJob]:
        """Start the stage in its work folder, with a record and without a mirror; artifacts are given by role."""
        work = self.work(name) if work is None else work
        roles = {role: [] if artifact is None else [artifact] for role, artifact in given.items()}
        inputs = {"dataset": [self.dataset], "policy": [], **roles}
        tracking = TrackingConfig(mode=TrackingMode.disabled)
        with TrackingSession(tracking, self.outputs, self.outputs / "runs" / name, {}) as session:
            run = session.start(stage=STAGE, name=STAGE, fingerprint=self.fingerprint(name), work=work, inputs=inputs)
            yield StageJob(
                sections={PPOConfig: config, ModelConfig: self.model},
                inputs=inputs,
                run=run,
                work=work,
                runtime=RuntimeConfig(outputs=str(self.outputs), num_threads=1),
                base_model=self.base,
            )

    def seal(self, work: WorkFolder, outcome: StageOutcome, *, name: str = "run") -> Artifact:
        """Seal what a job has staged."""
        return self.store.seal(
            work, kind=ArtifactKind.policy, stage=STAGE, version=1, fingerprint=self.fingerprint(name), parents=[],
            config={}, outcome=outcome,
        )  # fmt: skip

    def train(self, config: PPOConfig, name: str, **given: Artifact | None) -> Artifact:
        """Do what a run of the stage does: reuse the sealed artifact, or train under the lock and seal."""
        store, fingerprint = self.store, self.fingerprint(name)
        store.sweep()
        with store.lock(STAGE, fingerprint):
            artifact = store.current(STAGE, fingerprint)
            if artifact is None:
                work = self.work(name)
                with self.ppo_job(config, name=name, work=work, **given) as job:
                    artifact = self.seal(work, train_ppo(job), name=name)
        store.discard_sealed_work(STAGE, fingerprint)
        return artifact


def make_workshop(folder: Path, *, num_train: int = 12, num_validation: int = 6) -> PPOWorkshop:
    """Write the model and seal the data set."""
    outputs = folder / "outputs"
    make_tiny_model(folder / "model")
    store = Store(outputs)
    work = store.work("curate", "c" * 64)
    parts = {}
    for split, rows in {"train": prompts(num_train), "validation": prompts(num_validation, first=num_train)}.items():
        if rows:
            write_table(work.staging, "prompts", split, rows)
            parts[part_name("prompts", split)] = rows_digest(rows)
    store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    return open_workshop(folder)


def open_workshop(folder: Path) -> PPOWorkshop:
    """Take up a workshop that another process made."""
    outputs = folder / "outputs"
    model = ModelConfig(source=ModelSource.hub, id=str(folder / "model"), dtype=DType.float32)
    dataset = Store(outputs).open("curate-")
    return PPOWorkshop(outputs=outputs, base=resolve_base(model, folder / "cache"), dataset=dataset, model=model)
