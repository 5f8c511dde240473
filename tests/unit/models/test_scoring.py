"""Scores of given completions against transformers' own logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from pipeline.data.encode import Encoded
from pipeline.models.scoring import score

ROWS = [
    Encoded(id=str(number), input_ids=list(range(4, 9 + number)), completion_mask=[False] * 3 + [True] * (2 + number))
    for number in range(3)
]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_score_is_the_sum_of_log_probabilities_at_the_temperature(tmp_path: Path, temperature: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "model"), dtype=torch.float32).eval()
    found = score(model, ROWS, 2, temperature=temperature)
    for row, scored in zip(ROWS, found, strict=True):
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            logprobs = (model(ids).logits[0, :-1].double() / temperature).log_softmax(dim=-1)
        wanted = sum(float(logprobs[place - 1, ids[0, place]]) for place in range(3, ids.shape[1]))
        assert scored.nats == pytest.approx(wanted, abs=1e-4)
        assert scored.tokens == len(row.input_ids) - 3
    other = score(model, ROWS, 2, temperature=2 * temperature)
    assert all(abs(a.nats - b.nats) > 1e-3 for a, b in zip(found, other, strict=True)), "the control"
