"""Comparisons as pairs of token rows: folds, lengths, and counts that add up."""

from __future__ import annotations

import pytest
from made_rows import comparison
from tiny import make_tiny_model

from pipeline.config.shared import ModelConfig
from pipeline.data.encode import Chat, load_chat
from pipeline.data.pairs import encode_pairs


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return load_chat(make_tiny_model(tmp_path_factory.mktemp("tiny")), ModelConfig(id="tiny"))


def test_what_is_dropped_is_counted_by_reason(chat: Chat) -> None:
    rows = [
        comparison("Short.", "Also short.", id="a", fold=0),
        comparison("Short.", "long " * 100, id="b", fold=1),  # one side is too long, so the pair goes
        comparison("Short.", "Also short.", id="c", fold=3),
        comparison("Short.", "Also short.", id="d", fold=None),  # from a file without folds: everybody may have it
    ]
    encoded = encode_pairs(rows, chat, max_length=64, folds=[0, 1, 2])
    assert [pair.id for pair in encoded.pairs] == ["a", "d"]
    counts = encoded.counts
    assert (counts.given, counts.encoded, counts.dropped) == (4, 2, {"overlength": 1, "other_fold": 1})
    assert counts.total_tokens == sum(pair.num_tokens for pair in encoded.pairs)
    assert [pair.id for pair in encode_pairs(rows, chat, max_length=64, folds=[3, 4]).pairs] == ["c", "d"]
    assert [pair.id for pair in encode_pairs(rows, chat, max_length=64).pairs] == ["a", "c", "d"]


def test_both_sides_begin_with_the_prompt_and_end_with_the_end_of_turn(chat: Chat) -> None:
    (pair,) = encode_pairs([comparison("It is wet.", "No idea at all.")], chat, max_length=64).pairs
    start = pair.chosen.completion_mask.index(True)
    assert start == pair.rejected.completion_mask.index(True)
    assert pair.chosen.input_ids[:start] == pair.rejected.input_ids[:start]
    assert pair.chosen.input_ids != pair.rejected.input_ids
    for side in (pair.chosen, pair.rejected):
        assert side.input_ids[-1] == chat.end_of_turn_ids[-1]
    assert pair.longest == max(len(pair.chosen.input_ids), len(pair.rejected.input_ids))


def test_pairs_of_one_prompt_are_one_cluster(chat: Chat) -> None:
    rows = [
        comparison("a", "b", prompt="What is it?"),
        comparison("c", "d", prompt="What  is it?"),  # the same after normalising
        comparison("a", "b", prompt="What was it?"),
    ]
    first, second, third = (pair.cluster for pair in encode_pairs(rows, chat, max_length=64).pairs)
    assert first == second != third
