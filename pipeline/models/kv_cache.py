"""Keys and values of rows that are being written: room to grow in place, rows that leave, rows that join."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

ROOM = 64  # positions that are set aside at a time; growing by one would copy everything at every step


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, ``[B, heads, length, head size]``, as the front of a buffer with room behind it."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        super().__init__()
        self.buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new positions and return everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old, new = self.get_seq_length(), key_states.shape[-2]
        if not self.buffers or old + new > self.buffers[0].shape[-2]:
            kept = [self.keys, self.values] if self.buffers else []
            self.buffers = [
                states.new_empty((*states.shape[:2], old + new + ROOM, states.shape[-1]))
                for states in (key_states, value_states)
            ]
            for buffer, values in zip(self.buffers, kept, strict=False):
                buffer[:, :, :old] = values
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, old : old + new] = states
        self._show(old + new)
        return self.keys, self.values

    def hold(self, parts: list[tuple[Tensor, Tensor]], length: int) -> None:
        """Hold rows of several origins, each right-aligned at ``length``; what is before them is zero."""
        self.buffers = []
        for column in zip(*parts, strict=True):
            first, rows = column[0], sum(states.shape[0] for states in column)
            buffer = first.new_empty((rows, first.shape[1], length + ROOM, first.shape[-1]))
            start = 0
            for states in column:
                place = buffer[start : start + states.shape[0], :, :length]
                place[:, :, : length - states.shape[-2]] = 0  # masked, but 0 x NaN would still be NaN
                place[:, :, length - states.shape[-2] :] = states
                start += states.shape[0]
            self.buffers.append(buffer)
        self.dtype, self.device, self.is_initialized = self.buffers[0].dtype, self.buffers[0].device, True
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)


def make_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache; full-attention layers grow in place, others are as transformers has them."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def can_be_joined(cache: DynamicCache) -> bool:
    """Whether rows can join and padding can be cut: not where a layer keeps a window or a running state."""
    return all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def select(cache: DynamicCache, index: Tensor, start: int) -> None:
    """Keep some rows, without the first ``start`` positions (0 unless `can_be_joined`)."""
    for layer in cache.layers:
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            layer.reorder_cache(index)  # the one way to choose rows of a running state
        elif not isinstance(layer, GrowingLayer):
            layer.batch_select_indices(index)
        elif layer.is_initialized:
            length = layer.get_seq_length() - start
            layer.hold([(layer.keys[index, :, start:], layer.values[index, :, start:])], length)


def join(first: DynamicCache, second: DynamicCache) -> None:
    """Put the rows of the second cache behind those of the first, both right-aligned."""
    for layer, other in zip(first.layers, second.layers, strict=True):
        length = max(layer.get_seq_length(), other.get_seq_length())
        layer.hold([(layer.keys, layer.values), (other.keys, other.values)], length)


def repeat(cache: DynamicCache, num_rows: int) -> DynamicCache:
    """Return a cache of as many rows that are all like the single one of ``cache``."""
    copy = DynamicCache()
    copy.layers = []
    for layer in cache.layers:
        rows = GrowingLayer()
        shown = (layer.keys.expand(num_rows, -1, -1, -1), layer.values.expand(num_rows, -1, -1, -1))
        rows.hold([shown], layer.get_seq_length())
        copy.layers.append(rows)
    return copy


def padded_left(mask: Tensor, length: int) -> Tensor:
    """Return a mask ``[B, length]`` with zeros before the given one."""
    return torch.nn.functional.pad(mask, (length - mask.shape[1], 0))
