"""Batches of pairs: chosen rows above rejected rows, and where each row really ends."""

from __future__ import annotations

import pytest
import torch
from made_rows import comparison
from tiny import PAD_ID, make_tiny_model

from pipeline.config.shared import ModelConfig
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.stages.pairs import PairCollator, pair_order


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    chat = load_chat(make_tiny_model(tmp_path_factory.mktemp("tiny")), ModelConfig(id="tiny"))
    rows = [
        comparison("Yes.", "No, " * 9, id="a", confidence=0.8, margin=1.5, num_votes=5),
        comparison("It is. " * 5, "Is it?", id="b", confidence=0.5, tie=1.0, num_votes=2),
        comparison("One.", "Two.", id="c", tie=0.0),
    ]
    return encode_pairs(rows, chat, max_length=128).pairs


def test_a_batch_holds_both_sides_of_every_pair(pairs: list[Pair]) -> None:
    batch = PairCollator(pairs, PAD_ID)([{"row": 2}, {"row": 0}, {"row": 1}])
    order = [pairs[2], pairs[0], pairs[1]]
    sides = [pair.chosen for pair in order] + [pair.rejected for pair in order]
    assert batch["input_ids"].shape == (6, max(len(side.input_ids) for side in sides))
    for row, side in enumerate(sides):
        length = len(side.input_ids)
        assert batch["input_ids"][row, :length].tolist() == side.input_ids
        assert (batch["input_ids"][row, length:] == PAD_ID).all()
        assert batch["attention_mask"][row].tolist() == [True] * length + [False] * (
            len(batch["input_ids"][row]) - length
        )
        assert batch["completion_mask"][row].nonzero()[:, 0].tolist() == [
            place for place, learnt in enumerate(side.completion_mask) if learnt
        ]
        assert batch["last_index"][row] == length - 1
    assert batch["confidence"].tolist() == pytest.approx([1.0, 0.8, 0.5])
    assert batch["margin"].tolist() == [0.0, 1.5, 0.0]
    assert batch["tie"].tolist() == [0.0, 0.0, 1.0]
    assert batch["has_tie"].tolist() == [True, False, True]  # that nobody called it a tie says something, too
    assert batch["num_votes"].tolist() == [1, 5, 2]
    # What the trainer takes as the number of items, whether it shifts the labels or not.
    assert int(batch["labels"].ne(-100).sum()) == int(batch["labels"][..., 1:].ne(-100).sum()) == 3
    assert batch["row_numbers"] == [2, 0, 1]
    assert batch["attention_mask"].dtype == batch["completion_mask"].dtype == torch.bool


def test_the_longest_pair_opens_a_run_that_groups_by_length(pairs: list[Pair]) -> None:
    order = pair_order(pairs, num_epochs=2, batch_size=1, seed=3, group_by_length=True)
    assert sorted(order) == [0, 0, 1, 1, 2, 2]
    assert order[0] == max(range(3), key=lambda number: pairs[number].longest)
