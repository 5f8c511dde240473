"""The cache of rows that are being written, position by position against plain concatenation."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, MistralConfig

from pipeline.models.kv_cache import ROOM, GrowingLayer, can_be_joined, join, make_cache, padded_left, repeat, select

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=8)


def states(rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 2, length, 4, generator=generator)
    return keys, values


def test_what_is_kept_outlives_every_growth_of_the_buffer() -> None:
    keys, values = states(3, 2 * ROOM + 20, seed=0)
    layer, start = GrowingLayer(), 5
    layer.update(keys[:, :, :start], values[:, :, :start])
    for end in range(start + 1, keys.shape[2] + 1):
        shown = layer.update(keys[:, :, end - 1 : end], values[:, :, end - 1 : end])
        assert torch.equal(shown[0], keys[:, :, :end])
        assert torch.equal(shown[1], values[:, :, :end])
        assert layer.get_seq_length() == end


def test_rows_leave_join_and_are_repeated_right_aligned() -> None:
    cache, other = make_cache(CONFIG), make_cache(CONFIG)
    assert can_be_joined(cache)
    long, short = [states(3, 7, seed) for seed in (1, 2)], [states(2, 4, seed) for seed in (3, 4)]
    for number in range(2):
        cache.update(*long[number], number)
        other.update(*short[number], number)
    select(cache, torch.tensor([2, 0]), 1)
    join(cache, other)
    for number in range(2):
        for place, found in enumerate((cache.layers[number].keys, cache.layers[number].values)):
            assert found.shape == (4, 2, 6, 4)
            assert torch.equal(found[:2], long[number][place][[2, 0], :, 1:])
            assert torch.equal(found[2:, :, 2:], short[number][place])
            assert not found[2:, :, :2].any(), "what is masked is zero, and not what lay there before"
    one = make_cache(CONFIG)
    for number in range(2):
        one.update(*(part[:1] for part in long[number]), number)
    copies = repeat(one, 3)
    copies.update(*states(3, 1, 5), 0)
    assert torch.equal(copies.layers[0].keys[:, :, :7], long[0][0][:1].expand(3, -1, -1, -1))
    assert torch.equal(one.layers[0].keys, long[0][0][:1]), "the original has not grown"


def test_a_window_cannot_be_joined_and_masks_are_padded_before() -> None:
    window = MistralConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=2, sliding_window=4
    )
    assert not can_be_joined(make_cache(window))
    assert padded_left(torch.tensor([[1, 1]]), 4).tolist() == [[0, 0, 1, 1]]
