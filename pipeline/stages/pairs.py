"""What the stages that learn from comparisons share: reading them, their order, and padded batches of both sides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config.shared import ModelConfig
from pipeline.data.encode import Chat, coloured_sample, load_chat
from pipeline.data.pairs import Pair, PairCounts, encode_pairs
from pipeline.data.rows import Comparison
from pipeline.data.tables import part_name, read_table
from pipeline.errors import DataError
from pipeline.models.packing import CHOSEN, PADDING, REJECTED, SHARED
from pipeline.stages.batches import IGNORED_LABEL, padded
from pipeline.stages.order import training_order
from pipeline.tracking.job import StageJob


@dataclass(frozen=True, kw_only=True)
class PairRows:
    """Encoded comparisons and what became of those that are missing."""

    chat: Chat
    train: list[Pair]
    validation: list[Pair]
    counts: dict[str, PairCounts]  # by split


def load_pairs(job: StageJob, *, section: str, folds: Collection[int], max_length: int) -> PairRows:
    """Read and encode the train and validation comparisons of some folds, and say what is left of them.

    Args:
        job: Its input ``dataset`` has the table ``comparisons``.
        section: The configuration section whose keys an error names.
        folds: Validation rows choose a checkpoint, so they are of the same folds as those that are trained on.
        max_length: In tokens of one side.

    Raises:
        DataError: No train row is left.
    """
    dataset = job.one("dataset")
    if dataset is None:
        raise DataError(f"The stage {section} got no data set. Name `curate`, or set `inputs.{section}.dataset`.")
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    for notice in chat.notices:
        job.run.notice(notice)
    pairs: dict[str, list[Pair]] = {}
    counts: dict[str, PairCounts] = {}
    for split in ("train", "validation"):
        present = part_name("comparisons", split) in dataset.manifest.parts
        rows = read_table(dataset, "comparisons", split, Comparison) if present or split == "train" else []
        encoded = encode_pairs(rows, chat, max_length=max_length, folds=folds)
        pairs[split], counts[split] = encoded.pairs, encoded.counts
        job.run.notice(f"{split}: {encoded.counts}")
    if not pairs["validation"]:
        job.run.notice("there are no validation rows, so the last checkpoint is what the stage makes")
    if not pairs["train"]:
        raise DataError(
            f"No train comparison is left to learn from: {counts['train']}. Raise `{section}.max_length` "
            f"({max_length}), or choose other `{section}.folds` ({', '.join(map(str, sorted(folds)))})."
        )
    first = pairs["train"][0]
    for name, side in (("chosen", first.chosen), ("rejected", first.rejected)):
        job.run.notice(f"what is {name} in row {first.id}:\n{coloured_sample(side, chat)}")
    return PairRows(chat=chat, train=pairs["train"], validation=pairs["validation"], counts=counts)


def pair_order(
    pairs: Sequence[Pair],
    *,
    num_epochs: int,
    batch_size: int,
    seed: int,
    group_by_length: bool,
    max_steps: int | None = None,
    packed: bool = False,
) -> list[int]:
    """Pair numbers in the order they are trained on: `order.training_order` by what padding goes by.

    That is the length of the longer side, or with ``packed`` of both sides behind what they share.
    """
    return training_order(
        [pair.num_packed if packed else pair.longest for pair in pairs],
        num_epochs=num_epochs,
        batch_size=batch_size,
        seed=seed,
        group_by_length=group_by_length,
        max_steps=max_steps,
    )


class PairCollator:
    """Lays the chosen sides of ``B`` pairs over their rejected sides and pads on the right: ``[2B, L]``."""

    def __init__(self, pairs: Sequence[Pair], pad_id: int) -> None:
        """Keep the pairs that the entries of `batches.order_dataset` point to."""
        self.pairs = pairs
        self.pad_id = pad_id

    def __call__(self, entries: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return a batch.

        Returns:
            ``input_ids`` int64, ``attention_mask`` and ``completion_mask`` bool, all ``[2B, L]``; ``last_index``
            ``[2B]`` int64, the place of each row's last token; ``confidence``, ``margin`` (0 where there is none) and
            ``tie`` (0 where there is none) ``[B]`` fp32; ``has_tie`` ``[B]`` bool, whether a tie was a possible
            answer; ``num_votes`` ``[B]`` int64; ``labels`` ``[B, 2]``, which no loss reads: the trainer counts the
            pairs of an optimizer step by them; ``row_numbers``, a list.
        """
        numbers = [entry["row"] for entry in entries]
        pairs = [self.pairs[number] for number in numbers]
        return {**self.tokens(pairs), **_labels(pairs), "row_numbers": numbers}

    def tokens(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Return what of a batch the model reads."""
        sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        length = max(len(side.input_ids) for side in sides)
        completion_mask = padded([side.completion_mask for side in sides], length, 0).bool()
        completion_mask[:, 0] = False  # nothing predicts the first token of a row
        return {
            "input_ids": padded([side.input_ids for side in sides], length, self.pad_id),
            "attention_mask": padded([[1] * len(side.input_ids) for side in sides], length, 0).bool(),
            "completion_mask": completion_mask,
            "last_index": torch.tensor([len(side.input_ids) - 1 for side in sides]),
        }


class PackedCollator(PairCollator):
    """Lays out what both sides of a pair share once, then the rest of chosen, then the rest of rejected.

    With ``B`` pairs and ``L`` tokens of the longest such row. Attention is kept apart by `models.packing`.
    """

    def tokens(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``position_ids`` and ``segments`` (`models.packing`), ``[B, L]``, and ``last_index``.

        ``last_index`` is ``[2B]``, the last token of each chosen side and then of each rejected one, in its row.
        """
        length = max(pair.num_packed for pair in pairs)
        ids, positions, segments = [], [], []
        for pair in pairs:
            chosen, rejected, shared = pair.chosen.input_ids, pair.rejected.input_ids, pair.num_shared
            ids.append([*chosen, *rejected[shared:]])
            positions.append([*range(len(chosen)), *range(shared, len(rejected))])
            rest = [CHOSEN] * (len(chosen) - shared) + [REJECTED] * (len(rejected) - shared)
            segments.append([SHARED] * shared + rest)
        ends = [len(pair.chosen.input_ids) - 1 for pair in pairs] + [pair.num_packed - 1 for pair in pairs]
        return {
            "input_ids": padded(ids, length, self.pad_id),
            "position_ids": padded(positions, length, 0),
            "segments": padded(segments, length, PADDING),
            "last_index": torch.tensor(ends),
        }


def _labels(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    return {
        "confidence": torch.tensor([pair.confidence for pair in pairs], dtype=torch.float32),
        "margin": torch.tensor([pair.margin or 0.0 for pair in pairs], dtype=torch.float32),
        "tie": torch.tensor([pair.tie or 0.0 for pair in pairs], dtype=torch.float32),
        "has_tie": torch.tensor([pair.tie is not None for pair in pairs]),
        "num_votes": torch.tensor([pair.num_votes for pair in pairs]),
        "labels": torch.tensor([[IGNORED_LABEL, 0]] * len(pairs)),  # the first column is shifted off
    }
