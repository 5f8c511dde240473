"""Completions drawn from a policy: explicit sampling, finished rows leave the batch, and every finish has a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from pipeline.config.evaluation import SamplingConfig
from pipeline.data.chat import Chat
from pipeline.models.head import underlying_model
from pipeline.models.logprobs import compute_context

# Rows leave together: taking one out copies the keys and values of all that stay.
SHARE_WORTH_COMPACTING = 0.125


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
) -> list[Completion]:
    """Draw one completion for each prompt, in batches of similar length.

    Nothing comes from the model's own generation defaults: no penalty, no minimum length, the whole vocabulary unless
    ``sampling`` narrows it. With a temperature each prompt has a random stream of its own, so that what is drawn for it
    does not depend on what else is in the batch (beyond rounding).

    Args:
        model: A causal language model of transformers, with or without a PEFT wrapper, in evaluation mode.
        chat: Decides where a completion ends and how it is decoded.
        prompts: Token ids, ending with the generation prompt.
        sampling: Temperature 0 is greedy.
        batch_size: Prompts decoded together.
        keys: Names the random stream of each prompt; its position where None.

    Returns:
        Completions in the order of the prompts.
    """
    names = list(keys) if keys is not None else [str(number) for number in range(len(prompts))]
    order = sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), number))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        drawn = _decode(model, chat, [prompts[row] for row in rows], sampling, [names[row] for row in rows])
        completions.update(zip(rows, drawn, strict=True))
    return [completions[number] for number in range(len(prompts))]


@dataclass(kw_only=True)
class _Batch:
    """Rows that are still being written. B rows of one length, left-padded."""

    rows: list[int]
    mask: Tensor  # [B, L] int64, over prompt and completion so far
    positions: Tensor  # [B, 1] of the next token
    cache: DynamicCache
    finished: set[int] = field(default_factory=set)

    def compact(self) -> bool:
        """Take the finished rows out once they are worth it; False when nothing is left."""
        stay = [place for place, row in enumerate(self.rows) if row not in self.finished]
        if not stay:
            return False
        if len(self.rows) - len(stay) >= SHARE_WORTH_COMPACTING * len(self.rows):
            index = torch.tensor(stay, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask, self.positions = self.mask[index], self.positions[index]
            self.rows = [self.rows[place] for place in stay]
        return True


@torch.inference_mode()
def _decode(
    model: nn.Module, chat: Chat, prompts: list[Sequence[int]], sampling: SamplingConfig, names: list[str]
) -> list[Completion]:
    """Write all completions of one batch."""
    device = next(model.parameters()).device
    ids, mask = _left_padded(prompts, chat.pad_id, device)
    generators = [_stream(sampling.seed, name) for name in names] if sampling.temperature > 0 else []
    stop_ids = set(chat.stop_ids)
    batch = _Batch(
        rows=list(range(len(prompts))),
        mask=mask,
        positions=mask.sum(dim=1, keepdim=True),
        cache=DynamicCache(config=underlying_model(model).config),
    )
    written: list[list[int]] = [[] for _ in prompts]
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with compute_context(model):
        while True:
            logits = model(
                input_ids=ids, attention_mask=batch.mask, position_ids=position_ids, past_key_values=batch.cache,
                use_cache=True, logits_to_keep=1,
            ).logits[:, -1].float()  # fmt: skip
            tokens = _draw(logits, sampling, [generators[row] for row in batch.rows] if generators else None)
            for row, token in zip(batch.rows, tokens.tolist(), strict=True):
                if row in batch.finished:
                    continue
                written[row].append(token)
                if token in stop_ids or len(written[row]) == sampling.max_new_tokens:
                    batch.finished.add(row)
            places = list(batch.rows)
            if not batch.compact():
                break
            kept = torch.tensor([places.index(row) for row in batch.rows], device=device)
            ids, position_ids = tokens[kept].unsqueeze(1), batch.positions
            batch.mask = torch.cat([batch.mask, batch.mask.new_ones(len(batch.rows), 1)], dim=1)
            batch.positions = batch.positions + 1
    return [_completion(chat, tokens, stop_ids) for tokens in written]


def _left_padded(prompts: list[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _stream(seed: int, name: str) -> torch.Generator:
    """Return a generator on the CPU that only the seed and the name decide."""
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _draw(logits: Tensor, sampling: SamplingConfig, generators: list[torch.Generator] | None) -> Tensor:
    """Return one token per row of ``[B, V]`` fp32 logits: the likeliest, or one by the rule of ``sampling``."""
    if generators is None:
        return logits.argmax(dim=-1)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        outside = probabilities.cumsum(dim=-1) - probabilities >= sampling.top_p  # the likeliest token always stays
        logits = torch.empty_like(logits).scatter(1, index, ordered.masked_fill(outside, -torch.inf))
    probabilities = logits.softmax(dim=-1).cpu()
    drawn = [torch.multinomial(row, 1, generator=stream) for row, stream in zip(probabilities, generators, strict=True)]
    return torch.cat(drawn).to(logits.device)


def _completion(chat: Chat, ids: list[int], stop_ids: set[int]) -> Completion:
    stopped = ids[-1] in stop_ids
    text = chat.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
    return Completion(ids=ids, text=str(text), finish_reason="stop" if stopped else "length")
