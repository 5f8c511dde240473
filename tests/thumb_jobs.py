"""Jobs for the stage that learns from labelled completions, on the tiny model of `sft_jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pair_jobs import comparisons, pair_job, seal
from sft_jobs import WORDS, Workshop
from tiny import make_tiny_model

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store, WorkFolder
from pipeline.config.dpo import WatchConfig
from pipeline.config.kto import KTOConfig, ThumbRows
from pipeline.config.shared import DType, LoRAConfig, ModelConfig, ModelSource, OptimizerConfig
from pipeline.data.rows import Message, Unpaired
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.stages.kto import train_kto
from pipeline.stages.thumb_reference import score_thumbs

FOLDS = [0, 1, 2, 3, 4]


def thumbs(count: int, *, first: int = 0) -> list[Unpaired]:
    """Replies that open a page are good, others bad; one in three is good, and one label in four is a coin's."""
    rows = []
    for number in range(first, first + count):
        word, other, label = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)], number % 3 == 0
        reply = f"Open the {other} page." if label else f"The {word} is not ready." + " Why?" * (number % 2)
        rows.append(
            Unpaired(
                id=f"thumb-{number:03d}",
                source="test",
                licence=None,
                prompt=[Message(role="user", content=f"What about the {word} number {number // 2}?")],
                completion=[Message(role="assistant", content=reply)],
                label=label,
                confidence=(1.0, 0.9, 1.0, 0.75)[number % 4],
                num_votes=4,
            )
        )
    return rows


def make_thumb_workshop(folder: Path, *, num_train: int = 24, num_validation: int = 6, pairs: int = 0) -> Workshop:
    """Write the model and seal a data set of labelled completions, and of comparisons where asked."""
    outputs = folder / "outputs"
    model = ModelConfig(source=ModelSource.hub, id=str(make_tiny_model(folder / "model")), dtype=DType.float32)
    store = Store(outputs)
    work = store.work("curate", "c" * 64)
    parts = {}
    for split, first, count in (("train", 0, num_train), ("validation", num_train, num_validation)):
        tables: dict[str, list[Any]] = {
            "unpaired": thumbs(count, first=first),
            "comparisons": comparisons(pairs, first=first),
        }
        for name, rows in tables.items():
            if rows:
                write_table(work.staging, name, split, rows)
                parts[part_name(name, split)] = rows_digest(rows)
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    return Workshop(outputs=outputs, base=resolve_base(model, folder / "cache"), dataset=dataset, model=model)


def small_kto(**changes: Any) -> KTOConfig:
    """Eight optimizer steps, with checkpoints at every second one."""
    values: dict[str, Any] = {
        "seed": 5,
        "lora": LoRAConfig(rank=4, alpha=8.0),
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_fraction=0.1),
        "num_epochs": 2,
        "batch_size": 6,
        "microbatch_size": 3,
        "max_length": 128,
        "validate_every": 2,
        "folds": FOLDS,
        "watch": WatchConfig(num_prompts=2, max_new_tokens=8),
    }
    return KTOConfig(**{**values, **changes})


def make_reference(
    workshop: Workshop,
    *,
    name: str = "reference",
    policy: Artifact | None = None,
    rows: ThumbRows = ThumbRows.auto,
    max_length: int = 128,
) -> Artifact:
    """Score the rows with a policy, or with the base, and seal the result."""
    params = {"rows": rows, "folds": FOLDS, "max_length": max_length}
    with pair_job(workshop, "thumb_logprobs", name=name, inputs={"policy": policy}, params=params) as job:
        outcome = score_thumbs(job)
        return seal(workshop, job.work, outcome, ArtifactKind.reference_logprobs, "thumb_logprobs", name)


def run_kto(
    workshop: Workshop,
    config: KTOConfig,
    name: str,
    *,
    reference: Artifact | None,
    policy: Artifact | None = None,
    work: WorkFolder | None = None,
) -> tuple[StageOutcome, WorkFolder]:
    """Train in a work folder of its own; return the outcome and the folder."""
    inputs = {"policy": policy, "reference": reference}
    with pair_job(workshop, "kto", name=name, sections={KTOConfig: config}, inputs=inputs, work=work) as job:
        return train_kto(job), job.work
