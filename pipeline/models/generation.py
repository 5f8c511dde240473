"""Completions drawn from a policy: explicit sampling, rows leave when they are done and others take their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig

from pipeline.config.evaluation import SamplingConfig
from pipeline.data.chat import Chat
from pipeline.models.drawing import draw, stream
from pipeline.models.head import backbone, head_logits, underlying_model
from pipeline.models.kv_cache import can_be_joined, join, make_cache, padded_left, repeat, select
from pipeline.models.logprobs import compute_context
from pipeline.models.packed import packed_linears

# Rows leave together: taking one out copies the keys and values of all that stay.
SHARE_WORTH_COMPACTING = 0.125
# And they join together: reading prompts is fast when there are several.
SHARE_WORTH_FILLING = 0.25
SHORTEST_SHARED = 8  # tokens at the beginning of all prompts that are worth reading once


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What was drawn for one prompt."""

    ids: list[int]  # with the stop token, where there is one
    text: str  # without it
    finish_reason: str  # "stop" or "length"
    logprobs: list[float] | None = None  # nats of each id under what it was drawn from, where the engine tells

    @property
    def num_tokens(self) -> int:
        """Tokens drawn, the stop token included."""
        return len(self.ids)


def generate(
    model: nn.Module,
    chat: Chat,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    batch_size: int,
    keys: Sequence[str] | None = None,
    *,
    with_logprobs: bool = False,
    on_step: Callable[[Sequence[int]], None] | None = None,
) -> list[Completion]:
    """Draw one completion for each prompt, the longest prompts first.

    Nothing comes from the model's own generation defaults: no penalty, no minimum length, the whole vocabulary unless
    ``sampling`` narrows it. With a temperature each prompt has a random stream of its own, so that what is drawn for it
    does not depend on what else is in the batch (beyond rounding).

    Args:
        model: A causal language model of transformers, with or without a PEFT wrapper, in evaluation mode.
        chat: Decides where a completion ends and how it is decoded.
        prompts: Token ids, ending with the generation prompt.
        sampling: Temperature 0 is greedy.
        batch_size: Prompts decoded together, at most.
        keys: Names the random stream of each prompt; its position where None.
        with_logprobs: Fill ``logprobs``: under the distribution that was drawn from; greedy, at temperature 1.
        on_step: Called after each step with the places of the prompts that it finished; what it raises ends the work.

    Returns:
        Completions in the order of the prompts.
    """
    names = list(keys) if keys is not None else [str(number) for number in range(len(prompts))]
    writer = _Writer(model, chat, prompts, sampling, names, with_logprobs=with_logprobs)
    with packed_linears(model, batch_size), torch.inference_mode(), compute_context(model):
        writer.run(batch_size, on_step)
    return [_completion(chat, ids, logprobs) for ids, logprobs in zip(writer.written, writer.logprobs, strict=True)]


@dataclass(kw_only=True)
class _Rows:
    """Rows that are being written. B rows, right-aligned at L - 1 positions read and one token to read."""

    numbers: list[int]  # of their prompts
    mask: Tensor  # [B, L] int64, zero on padding
    positions: Tensor  # [B, 1] of the token to read
    tokens: Tensor  # [B] to read
    cache: DynamicCache

    def keep(self, places: list[int]) -> None:
        """Keep some rows and cut padding that none of them needs."""
        if len(places) == len(self.numbers):
            return
        index = torch.tensor(places, device=self.mask.device)
        mask = self.mask[index]
        start = int(mask.any(dim=0).int().argmax()) if can_be_joined(self.cache) else 0
        select(self.cache, index, start)
        self.mask, self.positions, self.tokens = mask[:, start:], self.positions[index], self.tokens[index]
        self.numbers = [self.numbers[place] for place in places]

    def add(self, other: _Rows) -> None:
        """Take rows in that have just begun."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        join(self.cache, other.cache)
        self.mask = torch.cat([padded_left(self.mask, length), padded_left(other.mask, length)])
        self.positions = torch.cat([self.positions, other.positions])
        self.tokens = torch.cat([self.tokens, other.tokens])
        self.numbers += other.numbers


class _Writer:
    """Writes the completions of all prompts."""

    def __init__(
        self,
        model: nn.Module,
        chat: Chat,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        names: list[str],
        *,
        with_logprobs: bool,
    ) -> None:
        """Nothing is written yet."""
        self.model, self.prompts, self.sampling, self.pad_id = model, prompts, sampling, chat.pad_id
        self.with_logprobs, self.stop_ids = with_logprobs, set(chat.stop_ids)
        self.device = next(model.parameters()).device
        self.streams = [stream(sampling.seed, name) for name in names] if sampling.temperature > 0 else []
        self.written: list[list[int]] = [[] for _ in prompts]
        self.logprobs: list[list[float] | None] = [[] if with_logprobs else None for _ in prompts]
        self.finished: set[int] = set()
        self.just_finished: list[int] = []  # since `on_step` was called last
        self.joins = can_be_joined(make_cache(self._config()))
        self.num_shared = _num_shared(prompts) if self.joins else 0
        self.shared: DynamicCache | None = None

    def run(self, batch_size: int, on_step: Callable[[Sequence[int]], None] | None) -> None:
        """Write until every prompt has its completion."""
        waiting = deque(sorted(range(len(self.prompts)), key=lambda number: (-len(self.prompts[number]), number)))
        rows: _Rows | None = None
        while True:
            stay = [] if rows is None else [p for p, number in enumerate(rows.numbers) if number not in self.finished]
            free = batch_size - len(stay)
            if waiting and (not stay or (self.joins and free >= SHARE_WORTH_FILLING * batch_size)):
                new = self._begin([waiting.popleft() for _ in range(min(free, len(waiting)))])
                if rows is None or not stay:
                    rows = new
                else:
                    rows.keep(stay)
                    rows.add(new)
            elif rows is None or not stay:
                return
            else:
                if len(rows.numbers) - len(stay) >= SHARE_WORTH_COMPACTING * len(rows.numbers):
                    rows.keep(stay)
                self._step(rows)
            if on_step is not None:
                on_step(self.just_finished)
            self.just_finished = []

    def _begin(self, numbers: list[int]) -> _Rows:
        """Read some prompts and draw their first tokens."""
        if self.num_shared and self.shared is None:
            self.shared = make_cache(self._config())
            start = torch.tensor([self.prompts[0][: self.num_shared]], device=self.device)
            self._logits(
                start, torch.ones_like(start), torch.arange(self.num_shared, device=self.device)[None], self.shared
            )
        ids, mask = _left_padded([self.prompts[number][self.num_shared :] for number in numbers], self.pad_id)
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = make_cache(self._config()) if self.shared is None else repeat(self.shared, len(numbers))
        mask = torch.cat([mask.new_ones(len(numbers), self.num_shared), mask], dim=1)
        position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, self.num_shared :]
        tokens = self._draw(self._logits(ids, mask, position_ids, cache), numbers)
        return _Rows(
            numbers=numbers, mask=_one_more(mask), positions=mask.sum(dim=1, keepdim=True), tokens=tokens, cache=cache
        )

    def _step(self, rows: _Rows) -> None:
        """Read one token per row and draw the next."""
        logits = self._logits(rows.tokens.unsqueeze(1), rows.mask, rows.positions, rows.cache)
        rows.tokens = self._draw(logits, rows.numbers)
        rows.mask, rows.positions = _one_more(rows.mask), rows.positions + 1

    def _logits(self, ids: Tensor, mask: Tensor, position_ids: Tensor, cache: DynamicCache) -> Tensor:
        """Return ``[B, V]`` fp32 logits behind the last position."""
        read = backbone(self.model)(
            input_ids=ids, attention_mask=mask, position_ids=position_ids, past_key_values=cache, use_cache=True
        )
        return head_logits(self.model, read.last_hidden_state[:, -1])

    def _draw(self, logits: Tensor, numbers: list[int]) -> Tensor:
        """Draw one token per row and write it down."""
        streams = [self.streams[number] for number in numbers] if self.streams else []
        tokens, logprobs = draw(logits, self.sampling, streams, with_logprobs=self.with_logprobs)
        values = [0.0] * len(numbers) if logprobs is None else logprobs.tolist()
        for number, token, value in zip(numbers, tokens.tolist(), values, strict=True):
            if number in self.finished:
                continue
            self.written[number].append(token)
            if (known := self.logprobs[number]) is not None:
                known.append(value)
            if token in self.stop_ids or len(self.written[number]) == self.sampling.max_new_tokens:
                self.finished.add(number)
                self.just_finished.append(number)
        return tokens

    def _config(self) -> PreTrainedConfig:
        return underlying_model(self.model).config


def _num_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, 0 where reading them once is not worth it.

    The last token of a prompt is always read with its own row, because the first draw follows it.
    """
    if len(prompts) < 2:
        return 0
    first, last = min(map(list, prompts)), max(map(list, prompts))  # all others lie between these two
    same = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    count = min(len(prompt) for prompt in prompts) - 1
    count = count if same is None else min(count, same)
    return count if count >= SHORTEST_SHARED else 0


def _one_more(mask: Tensor) -> Tensor:
    return torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)


def _left_padded(prompts: list[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def _completion(chat: Chat, ids: list[int], logprobs: list[float] | None) -> Completion:
    stopped = ids[-1] in chat.stop_ids
    text = chat.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
    return Completion(ids=ids, text=str(text), finish_reason="stop" if stopped else "length", logprobs=logprobs)
