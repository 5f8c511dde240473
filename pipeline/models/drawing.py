"""One token per row from its logits: the likeliest, or one that a stream of the row's own draws."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from pipeline.config.evaluation import SamplingConfig


def stream(seed: int, name: str) -> torch.Generator:
    """Return a generator on the CPU that only the seed and the name decide."""
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(
    logits: Tensor, sampling: SamplingConfig, generators: list[torch.Generator], *, with_logprobs: bool
) -> tuple[Tensor, Tensor | None]:
    """Return one token per row of ``[B, V]`` fp32 logits.

    A draw inverts the cumulative distribution at one uniform number of the row's stream, in fp64: the tail of a large
    vocabulary is lost in an fp32 sum.

    Args:
        logits: ``[B, V]``.
        sampling: A temperature of 0 takes the likeliest.
        generators: One per row; none where the likeliest is taken.
        with_logprobs: Also return how likely each token was.

    Returns:
        ``[B]`` tokens, and ``[B]`` log-probabilities in nats under the distribution that was drawn from (of the
        likeliest: at temperature 1), or None.
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
        if not with_logprobs:
            return tokens, None
        return tokens, logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
    probabilities = _narrowed(logits / sampling.temperature, sampling).softmax(dim=-1)
    if logits.device.type == "mps":  # which has no fp64
        probabilities = probabilities.cpu()
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    uniform = torch.stack([torch.rand((), generator=one, dtype=torch.float64) for one in generators])
    total = cumulative[:, -1:]
    place = torch.minimum(
        uniform.to(total.device).unsqueeze(1) * total, torch.nextafter(total, torch.zeros_like(total))
    )
    tokens = torch.searchsorted(cumulative, place, right=True)  # the first whose sum is larger has a share of its own
    logprobs = probabilities.gather(1, tokens).log().squeeze(1) if with_logprobs else None
    return tokens.squeeze(1).to(logits.device), logprobs


def _narrowed(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Take the tokens out that `top_k` and `top_p` exclude."""
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        outside = probabilities.cumsum(dim=-1) - probabilities >= sampling.top_p  # the likeliest token always stays
        logits = torch.empty_like(logits).scatter(1, index, ordered.masked_fill(outside, -torch.inf))
    return logits
