"""What the stages that learn from labelled completions share: reading them, their weights, and padded batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config.kto import KTOConfig, ThumbRows
from pipeline.config.shared import ModelConfig
from pipeline.data.encode import Chat, coloured_sample, load_chat
from pipeline.data.thumbs import SPLITS, Thumb, ThumbCounts, read_labelled, with_mismatched
from pipeline.errors import DataError
from pipeline.losses.unpaired import LabelWeights
from pipeline.stages.batches import IGNORED_LABEL, CompletionCollator
from pipeline.tracking.job import StageJob

SECTION = "kto"
SIDES = ("own", "mismatched")


@dataclass(frozen=True, kw_only=True)
class ThumbTables:
    """Labelled completions and what became of those that are missing."""

    chat: Chat
    train: list[Thumb]
    validation: list[Thumb]
    counts: dict[str, ThumbCounts]  # by split


def load_thumbs(job: StageJob, *, rows: ThumbRows, folds: Collection[int], max_length: int) -> ThumbTables:
    """Read and encode the train and validation rows that ``rows`` names, and say what is left of them.

    Raises:
        DataError: No train row is left, all are good or all bad, or all answer one prompt.
    """
    dataset = job.one("dataset")
    if dataset is None:
        raise DataError("The stage kto got no data set. Name `curate`, or set `inputs.kto.dataset`.")
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    for notice in chat.notices:
        job.run.notice(notice)
    found = read_labelled(dataset, chat, rows=rows, folds=folds, max_length=max_length)
    for split, labelled in found.items():
        job.run.notice(f"{split}: {labelled.counts}")
    train, validation = (found[split].rows for split in SPLITS)
    counts = found["train"].counts
    if not counts.good or not counts.bad:
        raise DataError(
            f"kto learns from good and from bad completions, and the train rows have {counts.good} and {counts.bad}: "
            f"{counts}. Raise `kto.max_length` ({max_length}), choose other `kto.folds`, or let `kto.rows=both` add "
            "the sides of comparisons."
        )
    thumbs = with_mismatched(train, [], max_length)
    if not thumbs:
        raise DataError(
            "All train rows of kto answer one prompt. What is unrelated to a prompt is taken from other prompts: "
            "annotate more of them."
        )
    if not validation:
        job.run.notice("there are no validation rows, so the last checkpoint is what the stage makes")
    for label in (True, False):
        first = next(thumb for thumb in thumbs if thumb.label is label)
        job.run.notice(f"what is {'good' if label else 'bad'} in row {first.id}:\n{coloured_sample(first.own, chat)}")
    return ThumbTables(
        chat=chat,
        train=thumbs,
        validation=with_mismatched(validation, train, max_length),
        counts={split: labelled.counts for split, labelled in found.items()},
    )


def label_weights(config: KTOConfig, counts: ThumbCounts) -> LabelWeights:
    """Return what each label weighs; by default so much that both weigh the same together, and 1 on average."""
    total = counts.good + counts.bad
    return LabelWeights(
        desirable=total / (2 * counts.good) if config.desirable_weight is None else config.desirable_weight,
        undesirable=total / (2 * counts.bad) if config.undesirable_weight is None else config.undesirable_weight,
    )


class ThumbCollator(CompletionCollator):
    """Pads the completions themselves; what is unrelated to them is scored apart."""

    def __init__(self, thumbs: Sequence[Thumb], pad_id: int) -> None:
        """Keep the rows that the entries of `batches.order_dataset` point to."""
        super().__init__([thumb.own for thumb in thumbs], pad_id)
        self.thumbs = thumbs

    def __call__(self, entries: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return the batch of `CompletionCollator`, with ``label`` bool and ``confidence`` fp32, both ``[B]``.

        ``labels`` are ``[B, 2]`` here: the trainer counts the completions of an optimizer step by them.
        """
        batch = super().__call__(entries)
        thumbs = [self.thumbs[number] for number in batch["row_numbers"]]
        return {
            **batch,
            "labels": torch.tensor([[IGNORED_LABEL, 0]] * len(thumbs)),  # the first column is shifted off
            "label": torch.tensor([thumb.label for thumb in thumbs]),
            "confidence": torch.tensor([thumb.confidence for thumb in thumbs], dtype=torch.float32),
        }
