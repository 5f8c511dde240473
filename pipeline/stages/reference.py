"""How likely the reference finds what a stage learns from: computed once, read by every run over the same rows.

The reference is the policy that a stage starts from, so its log-probabilities are no part of any loop: a sweep over
`beta` or the loss reads them from one artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import DType, ModelConfig
from pipeline.data.encode import Encoded
from pipeline.errors import ArtifactError, DataError
from pipeline.models.loading import load_base, load_policy
from pipeline.models.scoring import score
from pipeline.runtime.device import choose_device
from pipeline.runtime.signals import StopRequest
from pipeline.stages.pairs import load_pairs
from pipeline.stages.partial import append_partial, read_partial
from pipeline.stages.training import resolve_dtype
from pipeline.tracking.job import StageJob

REFERENCE_FILE = "reference.parquet"
SECTION = "dpo"
SIDES = ("chosen", "rejected")
ROWS_PER_BATCH = 8  # of two sides each; fixed, because the composition of a batch moves rounding
# Nats per token by which the same weights may differ between two compositions of a batch.
TOLERANCE = {DType.float32: 1e-3, DType.bfloat16: 0.1, DType.float16: 0.02}


class TwoSided(Protocol):
    """A row of which the reference scores two token sequences that begin with the same prompt."""

    @property
    def id(self) -> str:
        """Of the row, unique within its split."""

    @property
    def sides(self) -> tuple[Encoded, Encoded]:
        """Both sequences."""

    @property
    def longest(self) -> int:
        """Tokens of the longer one."""

    @property
    def num_tokens(self) -> int:
        """Tokens of both."""


def score_reference(job: StageJob) -> StageOutcome:
    """Sum the reference's log-probabilities over each completion of the train and validation comparisons."""
    rows = load_pairs(job, section=SECTION, folds=job.params["folds"], max_length=job.params["max_length"])
    outcome = score_sides(job, rows.train, rows.validation, SIDES)
    return replace(outcome, metrics={"pairs": len(rows.train) + len(rows.validation), **outcome.metrics})


def score_sides(
    job: StageJob, train: Sequence[TwoSided], validation: Sequence[TwoSided], names: tuple[str, str]
) -> StageOutcome:
    """Sum the reference's log-probabilities over both sides of every row, and write them as one table.

    Args:
        job: Its policy, or the base where it has none, is the reference.
        train: Rows of the split.
        validation: Rows of the split.
        names: What the table calls the two sides.
    """
    dtype = resolve_dtype(job, choose_device(job.runtime))
    splits = {"train": train, "validation": validation}
    keyed = [(f"{split}/{row.id}", row) for split, rows in splits.items() for row in rows]
    ordered = sorted(keyed, key=lambda entry: (-entry[1].longest, entry[0]))
    batches = [ordered[start : start + ROWS_PER_BATCH] for start in range(0, len(ordered), ROWS_PER_BATCH)]
    done = read_partial(job)
    model = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    policy = job.one("policy")
    reference = model if policy is None else load_policy(model, policy)
    with StopRequest() as stop:
        for number, batch in enumerate(batches, start=1):
            if not all(key in done for key, _ in batch):
                sides = [row.sides[side] for side in (0, 1) for _, row in batch]
                nats = [scored.nats for scored in score(reference, sides, len(sides))]
                results: list[dict[str, Any]] = [
                    {"id": key, names[0]: nats[place], names[1]: nats[len(batch) + place]}
                    for place, (key, _) in enumerate(batch)
                ]
                append_partial(job, results)
                done.update((str(result["id"]), result) for result in results)
            job.run.progress(len(batches), number)
            if stop.signal_number is not None and number < len(batches):
                raise stop.interrupted(f"stopped after batch {number} of {len(batches)}; its results are saved")
    table = [
        {
            "split": key.partition("/")[0],
            "id": row.id,
            **{name: done[key][name] for name in names},
            **{f"{name}_tokens": side.num_supervised for name, side in zip(names, row.sides, strict=True)},
        }
        for key, row in keyed
    ]
    pq.write_table(
        pa.Table.from_pylist(table, schema=_schema(names)),
        job.staging / REFERENCE_FILE,
        compression="zstd",
        version="2.6",
    )
    metrics = {"processed_tokens": sum(row.num_tokens for _, row in keyed)}
    return StageOutcome(parts={"logprobs": sha256_json(table)}, metrics=metrics, resolved={"dtype": dtype.value})


def _schema(names: tuple[str, str]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("split", pa.string(), False),
            pa.field("id", pa.string(), False),
            *(pa.field(name, pa.float64(), False) for name in names),
            *(pa.field(f"{name}_tokens", pa.int64(), False) for name in names),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class ReferenceLogprobs:
    """Log-probabilities of the reference in nats, summed over each side's completion: ``[N, 2]``."""

    train: Tensor
    validation: Tensor


def read_reference(
    artifact: Artifact,
    train: Sequence[TwoSided],
    validation: Sequence[TwoSided],
    *,
    names: tuple[str, str],
    section: str,
) -> ReferenceLogprobs:
    """Read the log-probabilities of these rows, in their order.

    Raises:
        ArtifactError: A row is missing, or its completions had other tokens when the reference scored them.
    """
    rows = pq.read_table(artifact.file(REFERENCE_FILE), partitioning=None).to_pylist()
    known = {(row["split"], row["id"]): row for row in rows}

    def find(split: str, wanted: Sequence[TwoSided]) -> Tensor:
        sums = torch.empty(len(wanted), 2)
        for number, row in enumerate(wanted):
            scored = known.get((split, row.id), {})
            tokens = [side.num_supervised for side in row.sides]
            if [scored.get(f"{name}_tokens") for name in names] != tokens:
                raise ArtifactError(
                    f"{artifact.id} has no log-probabilities for the {split} row {row.id!r} as it is encoded now: it "
                    f"was made from other rows. Leave `inputs.{section}.reference` out, or add `force=[{section}]`."
                )
            sums[number, 0], sums[number, 1] = scored[names[0]], scored[names[1]]
        return sums

    return ReferenceLogprobs(train=find("train", train), validation=find("validation", validation))


def take_reference(
    job: StageJob, train: Sequence[TwoSided], validation: Sequence[TwoSided], *, names: tuple[str, str], section: str
) -> ReferenceLogprobs:
    """Read the reference that a stage was given.

    What `model.dtype=auto` came to when the reference was scored holds for the policy too: in another number format
    the two would differ before the first step.

    Raises:
        ArtifactError: The stage got none.
    """
    artifact = job.one("reference")
    if artifact is None:
        raise ArtifactError(f"The loss of `{section}` compares with a reference, and the stage got none.")
    if job.section(ModelConfig).dtype is DType.auto and job.work.recall("dtype") is None:
        job.work.remember("dtype", artifact.manifest.resolved["dtype"])
    return read_reference(artifact, train, validation, names=names, section=section)


def require_same_policy(
    policy: torch.nn.Module, rows: Sequence[TwoSided], sums: Tensor, dtype: DType, *, section: str
) -> float:
    """Refuse a reference that is not the policy that training starts from; return the largest difference per token.

    Raises:
        DataError: They differ by more than what the composition of a batch does to rounding.
    """
    sides = [row.sides[side] for side in (0, 1) for row in rows]
    scored = score(policy, sides, len(sides))
    expected = torch.cat([sums[: len(rows), 0], sums[: len(rows), 1]]).tolist()
    largest: float = max(abs(own.nats - known) / own.tokens for own, known in zip(scored, expected, strict=True))
    if not largest <= TOLERANCE[dtype]:
        raise DataError(
            f"The reference is not the policy that training starts from: before the first step they differ by "
            f"{largest:.3g} nats per token. Add `force=[{section}]` to score the reference again."
        )
    return largest
