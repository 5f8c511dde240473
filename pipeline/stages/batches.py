"""Encoded rows become padded tensors; what is real and what is supervised is carried in masks, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch import Tensor

from pipeline.data.encode import Encoded

IGNORED_LABEL = -100  # transformers counts the labels that differ from it as the items of an optimizer step


def order_dataset(order: Sequence[int]) -> datasets.Dataset:
    """Return the data set that a trainer walks through in sequence: one row number per entry."""
    return datasets.Dataset.from_dict({"row": list(order)})


class CompletionCollator:
    """Pads on the right. With ``B`` rows and ``L`` tokens of the longest, all tensors are ``[B, L]``."""

    def __init__(self, rows: Sequence[Encoded], pad_id: int) -> None:
        """Keep the rows that the entries of `order_dataset` point to."""
        self.rows = rows
        self.pad_id = pad_id

    def __call__(self, entries: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return ``input_ids``, ``attention_mask``, ``completion_mask``, ``labels`` and ``row_numbers``.

        ``labels`` are there for the trainer to count supervised tokens over an optimizer step; no loss reads them.
        """
        numbers = [entry["row"] for entry in entries]
        rows = [self.rows[number] for number in numbers]
        length = max(len(row.input_ids) for row in rows)
        input_ids = padded([row.input_ids for row in rows], length, self.pad_id)
        completion_mask = padded([row.completion_mask for row in rows], length, 0).bool()
        completion_mask[:, 0] = False  # nothing predicts the first token of a row
        return {
            "input_ids": input_ids,
            "attention_mask": padded([[1] * len(row.input_ids) for row in rows], length, 0).bool(),
            "completion_mask": completion_mask,
            "labels": input_ids.masked_fill(~completion_mask, IGNORED_LABEL),
            "row_numbers": numbers,
        }


def padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    """Return ``[B, length]`` int64 with ``filler`` behind each row's own values."""
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows], dtype=torch.int64)
