"""The loss of supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor


def sft_loss(logprobs: Tensor, num_items: int) -> Tensor:
    """Mean negative log-likelihood per supervised token, ``-(1/n) sum_t log p(y_t | y_<t)``.

    The sum runs over one microbatch and ``n`` over the whole optimizer step, so the losses of the microbatches add up
    to the mean over the step's tokens however unevenly they are filled (a mean of means would not).

    Args:
        logprobs: ``[N]`` nats, one for each supervised token of the microbatch.
        num_items: Supervised tokens of the optimizer step, at least ``N``.

    Returns:
        A scalar in nats per token; zero with a gradient of zero where the microbatch supervises nothing.
    """
    if num_items < max(1, logprobs.numel()):
        raise ValueError(
            f"num_items is {num_items}, but this microbatch alone has {logprobs.numel()} supervised tokens"
        )
    return -logprobs.sum() / num_items
