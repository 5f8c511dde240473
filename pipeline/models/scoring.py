"""How likely a policy finds completions that are already written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.data.encode import Encoded
from pipeline.models.logprobs import supervised_logprobs
from pipeline.runtime.precision import float64


@dataclass(frozen=True, slots=True)
class RowScore:
    """The score of one row."""

    nats: float  # log-probability, summed over the supervised tokens; at most 0
    tokens: int  # supervised ones


@torch.no_grad()
def score(model: nn.Module, rows: Sequence[Encoded], batch_size: int, *, temperature: float = 1.0) -> list[RowScore]:
    """Return the log-probability of each row's supervised tokens, in the order of the rows.

    Rows of similar length share a batch; what else is in it moves a score by rounding only.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number].input_ids), number))
    scores: dict[int, RowScore] = {}
    try:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            ids, attention_mask, completion_mask = _right_padded([rows[number] for number in numbers], device)
            scored = supervised_logprobs(model, ids, attention_mask, completion_mask, temperature=temperature)
            nats = float64(scored.logprobs)
            sums = nats.new_zeros(len(numbers)).index_add_(0, scored.row.to(nats.device), nats)
            for number, total in zip(numbers, sums.tolist(), strict=True):
                scores[number] = RowScore(total, rows[number].num_supervised)
    finally:
        model.train(was_training)
    return [scores[number] for number in range(len(rows))]


def _right_padded(rows: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and completion mask, all ``[B, L]``; padding is masked, so any id will do."""
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.int64)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    completion_mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        ids[number, :length] = torch.tensor(row.input_ids)
        attention_mask[number, :length] = True
        completion_mask[number, :length] = torch.tensor(row.completion_mask)
    return ids.to(device), attention_mask.to(device), completion_mask.to(device)
