"""How likely the reference finds both completions of every comparison: computed once, read by every run over them.

The reference is the policy that a stage starts from, so its log-probabilities are no part of any loop: a sweep over
`beta` or the loss reads them from one artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import DType, ModelConfig
from pipeline.data.pairs import Pair
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
PAIRS_PER_BATCH = 8  # fixed, because the composition of a batch moves rounding
# Nats per token by which the same weights may differ between two compositions of a batch.
TOLERANCE = {DType.float32: 1e-3, DType.bfloat16: 0.1, DType.float16: 0.02}
SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), False),
        pa.field("id", pa.string(), False),
        pa.field("chosen", pa.float64(), False),
        pa.field("rejected", pa.float64(), False),
        pa.field("chosen_tokens", pa.int64(), False),
        pa.field("rejected_tokens", pa.int64(), False),
    ]
)


def score_reference(job: StageJob) -> StageOutcome:
    """Sum the reference's log-probabilities over each completion of the train and validation comparisons."""
    rows = load_pairs(job, section=SECTION, folds=job.params["folds"], max_length=job.params["max_length"])
    dtype = resolve_dtype(job, choose_device(job.runtime))
    keyed = [(f"{split}/{pair.id}", pair) for split in ("train", "validation") for pair in getattr(rows, split)]
    ordered = sorted(keyed, key=lambda entry: (-entry[1].longest, entry[0]))
    batches = [ordered[start : start + PAIRS_PER_BATCH] for start in range(0, len(ordered), PAIRS_PER_BATCH)]
    done = read_partial(job)
    model = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    policy = job.one("policy")
    reference = model if policy is None else load_policy(model, policy)
    with StopRequest() as stop:
        for number, batch in enumerate(batches, start=1):
            if not all(key in done for key, _ in batch):
                sides = [pair.chosen for _, pair in batch] + [pair.rejected for _, pair in batch]
                nats = [scored.nats for scored in score(reference, sides, len(sides))]
                results: list[dict[str, Any]] = [
                    {"id": key, "chosen": nats[place], "rejected": nats[len(batch) + place]}
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
            "id": pair.id,
            "chosen": done[key]["chosen"],
            "rejected": done[key]["rejected"],
            "chosen_tokens": pair.chosen.num_supervised,
            "rejected_tokens": pair.rejected.num_supervised,
        }
        for key, pair in keyed
    ]
    pq.write_table(
        pa.Table.from_pylist(table, schema=SCHEMA), job.staging / REFERENCE_FILE, compression="zstd", version="2.6"
    )
    metrics = {"pairs": len(table), "processed_tokens": sum(pair.num_tokens for _, pair in keyed)}
    return StageOutcome(parts={"logprobs": sha256_json(table)}, metrics=metrics, resolved={"dtype": dtype.value})


@dataclass(frozen=True, kw_only=True)
class ReferenceLogprobs:
    """Log-probabilities of the reference in nats, summed over completions: ``[N, 2]``, chosen and rejected."""

    train: Tensor
    validation: Tensor


def read_reference(artifact: Artifact, train: Sequence[Pair], validation: Sequence[Pair]) -> ReferenceLogprobs:
    """Read the log-probabilities of these pairs, in their order.

    Raises:
        ArtifactError: A pair is missing, or its completions had other tokens when the reference scored them.
    """
    rows = pq.read_table(artifact.file(REFERENCE_FILE), partitioning=None).to_pylist()
    known = {(row["split"], row["id"]): row for row in rows}

    def find(split: str, pairs: Sequence[Pair]) -> Tensor:
        sums = torch.empty(len(pairs), 2)
        for number, pair in enumerate(pairs):
            row = known.get((split, pair.id))
            tokens = (pair.chosen.num_supervised, pair.rejected.num_supervised)
            if row is None or (row["chosen_tokens"], row["rejected_tokens"]) != tokens:
                raise ArtifactError(
                    f"{artifact.id} has no log-probabilities for the {split} pair {pair.id!r} as it is encoded now: it "
                    f"was made from other comparisons. Leave `inputs.{SECTION}.reference` out, or add `force=[dpo]`."
                )
            sums[number, 0], sums[number, 1] = row["chosen"], row["rejected"]
        return sums

    return ReferenceLogprobs(train=find("train", train), validation=find("validation", validation))


def require_same_policy(policy: torch.nn.Module, pairs: Sequence[Pair], sums: Tensor, dtype: DType) -> float:
    """Refuse a reference that is not the policy that training starts from; return the largest difference per token.

    Raises:
        DataError: They differ by more than what the composition of a batch does to rounding.
    """
    sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scored = score(policy, sides, len(sides))
    expected = torch.cat([sums[: len(pairs), 0], sums[: len(pairs), 1]]).tolist()
    largest: float = max(abs(own.nats - known) / own.tokens for own, known in zip(scored, expected, strict=True))
    if not largest <= TOLERANCE[dtype]:
        raise DataError(
            f"The reference is not the policy that training starts from: before the first step they differ by "
            f"{largest:.3g} nats per token. Add `force=[{SECTION}]` to score the reference again."
        )
    return largest
