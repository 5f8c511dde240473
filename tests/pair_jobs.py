"""Jobs for the stages that learn from comparisons, on the tiny model of `sft_jobs` and a sealed table of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft_jobs import WORDS, Workshop, demonstrations, metric_rows
from tiny import make_tiny_model

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store, WorkFolder
from pipeline.config.dpo import DPOConfig, WatchConfig
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
from pipeline.stages.dpo import train_dpo
from pipeline.stages.reference import score_reference
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

VERSION = 1


def comparisons(count: int, *, first: int = 0) -> list[Comparison]:
    """Pairs in which the reply that opens a page is preferred, with confidences from a coin flip to certainty."""
    rows = []
    for number in range(first, first + count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        good = f"Open the {other} page." + f" The {word} is ready." * (number % 3)
        bad = f"The {word} is not ready." + f" What about the {other}?" * ((number + 1) % 2)
        rows.append(
            Comparison(
                id=f"pair-{number:03d}",
                source="test",
                licence=None,
                prompt=[Message(role="user", content=f"What about the {word} number {number}?")],
                chosen=[Message(role="assistant", content=good)],
                rejected=[Message(role="assistant", content=bad)],
                confidence=(1.0, 0.9, 0.75, 0.5)[number % 4],
                num_votes=5,
                fold=number % 5,
            )
        )
    return rows


def require_written(work: WorkFolder) -> None:
    """Two prompts are answered before training and at every second of eight steps, and the answers change."""
    texts = metric_rows(work.written)
    assert [text["step"] for text in texts] == [step for step in (0, 2, 4, 6, 8) for _ in range(2)]
    asked = [text["prompt"] for text in texts]
    assert asked == 5 * asked[:2]
    assert all("What about the " in prompt for prompt in asked)
    answers = [[text["completion"] for text in texts if text["step"] == step] for step in (0, 8)]
    assert all(answers[0])
    assert answers[0] != answers[1]


def make_pair_workshop(folder: Path, *, num_train: int = 20, num_validation: int = 5) -> Workshop:
    """Write the model and seal a data set of comparisons and demonstrations."""
    outputs = folder / "outputs"
    model = ModelConfig(source=ModelSource.hub, id=str(make_tiny_model(folder / "model")), dtype=DType.float32)
    store = Store(outputs)
    work = store.work("curate", "c" * 64)
    parts = {}
    for split, first, count in (("train", 0, num_train), ("validation", num_train, num_validation)):
        for name, rows in (
            ("comparisons", comparisons(count, first=first)),
            ("demonstrations", demonstrations(count, first=first)),
        ):
            if rows:
                write_table(work.staging, name, split, rows)  # type: ignore[type-var]
                parts[part_name(name, split)] = rows_digest(rows)  # type: ignore[arg-type]
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    return Workshop(outputs=outputs, base=resolve_base(model, folder / "cache"), dataset=dataset, model=model)


def small_dpo(**changes: Any) -> DPOConfig:
    """Eight optimizer steps over all folds, with checkpoints at every second one."""
    values: dict[str, Any] = {
        "seed": 5,
        "lora": LoRAConfig(rank=4, alpha=8.0),
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_fraction=0.1),
        "num_epochs": 2,
        "batch_size": 5,
        "microbatch_size": 5,
        "max_length": 128,
        "validate_every": 2,
        "folds": [0, 1, 2, 3, 4],
        "watch": WatchConfig(num_prompts=2, max_new_tokens=8),
    }
    return DPOConfig(**{**values, **changes})


@contextmanager
def pair_job(
    workshop: Workshop,
    stage: str,
    *,
    name: str,
    sections: Mapping[type, object] | None = None,
    inputs: Mapping[str, Artifact | None] | None = None,
    params: Mapping[str, Any] | None = None,
    work: WorkFolder | None = None,
) -> Iterator[StageJob]:
    """Start a stage in its work folder, with a record and without a mirror."""
    work = workshop.store.work(stage, workshop.fingerprint(name)) if work is None else work
    given = {role: [] if artifact is None else [artifact] for role, artifact in (inputs or {}).items()}
    wired = {"dataset": [workshop.dataset], **given}
    tracking = TrackingConfig(mode=TrackingMode.disabled)
    with TrackingSession(tracking, workshop.outputs, workshop.outputs / "runs" / name, {}) as session:
        run = session.start(stage=stage, name=stage, fingerprint=workshop.fingerprint(name), work=work, inputs=wired)
        yield StageJob(
            sections={ModelConfig: workshop.model, **(sections or {})},
            inputs=wired,
            run=run,
            work=work,
            runtime=RuntimeConfig(outputs=str(workshop.outputs), num_threads=1),
            base_model=workshop.base,
            params=params or {},
        )


def seal(
    workshop: Workshop, work: WorkFolder, outcome: StageOutcome, kind: ArtifactKind, stage: str, name: str
) -> Artifact:
    """Seal what a job has staged."""
    return workshop.store.seal(
        work, kind=kind, stage=stage, version=VERSION, fingerprint=workshop.fingerprint(name), parents=[], config={},
        outcome=outcome,
    )  # fmt: skip


def make_reference(
    workshop: Workshop, *, name: str = "reference", policy: Artifact | None = None, max_length: int = 128
) -> Artifact:
    """Score the comparisons with a policy, or with the base, and seal the result."""
    params = {"folds": [0, 1, 2, 3, 4], "max_length": max_length}
    with pair_job(workshop, "reference_logprobs", name=name, inputs={"policy": policy}, params=params) as job:
        outcome = score_reference(job)
        return seal(workshop, job.work, outcome, ArtifactKind.reference_logprobs, "reference_logprobs", name)


def run_dpo(
    workshop: Workshop,
    config: DPOConfig,
    name: str,
    *,
    reference: Artifact | None,
    policy: Artifact | None = None,
    work: WorkFolder | None = None,
) -> tuple[StageOutcome, WorkFolder]:
    """Train in a work folder of its own; return the outcome and the folder."""
    inputs = {"policy": policy, "reference": reference}
    with pair_job(workshop, "dpo", name=name, sections={DPOConfig: config}, inputs=inputs, work=work) as job:
        return train_dpo(job), job.work
