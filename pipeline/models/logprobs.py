"""Log-probabilities of completion tokens: the one place where they are computed, for every loss and every score."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.models.head import OutputHead, backbone, output_head, underlying_model

# 128 rows of a 49,152-word vocabulary are 25 MB in fp32: large enough for a fast matrix product, small enough that
# the buffer is reused instead of touching fresh memory for every position of the batch.
LOW_PRECISION = (torch.bfloat16, torch.float16)
DEFAULT_CHUNK_SIZE = 128


@dataclass(frozen=True, slots=True)
class CompletionLogprobs:
    """Log-probabilities of the supervised tokens of a batch, row after row and in reading order."""

    logprobs: Tensor  # [N] fp32, nats
    row: Tensor  # [N] int64, the batch row of each token


class _ChunkedHead:
    """Log-softmax of a few rows at a time, in buffers that every chunk of one call shares."""

    def __init__(self, head: OutputHead, temperature: float, chunk_size: int) -> None:
        weight = head.weight
        # The softmax is computed in fp32 whatever the weights are; fp64 weights (gradient checks) keep their precision.
        self.dtype = torch.promote_types(weight.dtype, torch.float32)
        self.head, self.temperature = head, temperature
        self.raw = torch.empty((chunk_size, weight.shape[0]), dtype=weight.dtype, device=weight.device)
        self.wide = self.raw if weight.dtype == self.dtype else torch.empty_like(self.raw, dtype=self.dtype)
        self.slope = None if head.softcap is None else torch.empty_like(self.wide)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits over the temperature in the wide buffer; with a soft cap also fill its slope."""
        num_rows = hidden.shape[0]
        raw, wide = self.raw[:num_rows], self.wide[:num_rows]
        torch.mm(hidden, self.head.weight.t(), out=raw)
        if wide.data_ptr() != raw.data_ptr():
            wide.copy_(raw)
        if self.head.bias is not None:
            wide.add_(self.head.bias)
        if self.slope is None or self.head.softcap is None:
            return _multiply(wide, self.head.scale / self.temperature)
        wide.mul_(self.head.scale / self.head.softcap).tanh_()
        torch.mul(wide, wide, out=self.slope[:num_rows]).neg_().add_(1.0)
        return wide.mul_(self.head.softcap / self.temperature)

    def error(self, probabilities: Tensor, targets: Tensor) -> Tensor:
        """Turn softmax probabilities into the gradient of the target's log-probability by ``hidden @ weight.T``."""
        error = probabilities.neg_()
        error.scatter_add_(1, targets, torch.ones_like(targets, dtype=error.dtype))
        if self.slope is not None:
            error.mul_(self.slope[: error.shape[0]])
        return _multiply(error, self.head.scale / self.temperature)


def _multiply(values: Tensor, factor: float) -> Tensor:
    """Multiply in place; by one, which is the usual case, without a pass over the buffer."""
    return values if factor == 1.0 else values.mul_(factor)


class _CompletionLogprobs(torch.autograd.Function):
    """``log softmax(head(hidden) / temperature)[target]`` without ever holding the logits of more than one chunk.

    The derivative of one row's log-probability does not depend on any other row, so the forward pass turns each
    chunk's softmax into ``(onehot - softmax) @ weight`` while it is still in the buffer; the backward pass only
    multiplies that by the incoming gradient. This costs two matrix products where recomputing costs three.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, head: OutputHead, chunk_size: int, temperature: float
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        chunked = _ChunkedHead(head, temperature, min(chunk_size, max(1, hidden.shape[0])))
        logprobs = torch.empty(hidden.shape[0], dtype=chunked.dtype, device=hidden.device)
        unit_gradient = torch.empty_like(hidden) if wants_hidden else None
        for start in range(0, hidden.shape[0], chunk_size):
            rows = slice(start, start + chunk_size)
            chunk_targets = targets[rows].unsqueeze(1)
            logits = chunked.logits(hidden[rows])
            target_logit = logits.gather(1, chunk_targets).squeeze(1)
            peak = logits.amax(dim=1, keepdim=True)
            exponentials = logits.sub_(peak).exp_()
            total = exponentials.sum(dim=1, keepdim=True)
            logprobs[rows] = target_logit - (peak + total.log()).squeeze(1)
            if unit_gradient is not None:
                error = chunked.error(exponentials.div_(total), chunk_targets)
                torch.mm(error.to(weight.dtype), weight, out=unit_gradient[rows])
        ctx.chunk_size, ctx.temperature, ctx.head = chunk_size, temperature, head
        ctx.has_unit_gradient = unit_gradient is not None
        saved = [unit_gradient] if unit_gradient is not None else []
        ctx.save_for_backward(*saved, *((hidden, targets) if wants_weight else ()))
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        grad_hidden = grad_weight = None
        if ctx.has_unit_gradient:
            unit_gradient = saved.pop(0)
            grad_hidden = (unit_gradient * grad_logprobs.unsqueeze(1)).to(unit_gradient.dtype)
        if ctx.needs_input_grad[1]:
            hidden, targets = saved
            grad_weight = _weight_gradient(ctx.head, ctx.chunk_size, ctx.temperature, hidden, targets, grad_logprobs)
        return grad_hidden, grad_weight, None, None, None, None


def _weight_gradient(
    head: OutputHead, chunk_size: int, temperature: float, hidden: Tensor, targets: Tensor, grad_logprobs: Tensor
) -> Tensor:
    """Recompute each chunk and add up ``error.T @ hidden`` in fp32. Rows mix here, so no unit gradient can be kept."""
    chunked = _ChunkedHead(head, temperature, min(chunk_size, max(1, hidden.shape[0])))
    total = torch.zeros(head.weight.shape, dtype=chunked.dtype, device=head.weight.device)
    for start in range(0, hidden.shape[0], chunk_size):
        rows = slice(start, start + chunk_size)
        probabilities = chunked.logits(hidden[rows]).softmax(dim=1)
        error = chunked.error(probabilities, targets[rows].unsqueeze(1))
        total.addmm_(error.mul_(grad_logprobs[rows].unsqueeze(1)).t(), hidden[rows].to(chunked.dtype))
    return total.to(head.weight.dtype)


def completion_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Log-probability of each target token under a softmax over the vocabulary.

    Matrix products run in the dtype of ``weight`` and everything after them in fp32. Gradients reach ``hidden``, and
    ``weight`` where it requires them (accumulated in fp32). Differentiating twice is not supported and raises.

    Args:
        hidden: ``[N, H]`` states that predict the targets.
        weight: ``[V, H]`` output head.
        targets: ``[N]`` int64 token ids.
        chunk_size: Rows whose logits are in memory at a time.
        temperature: The logits are divided by it last.
        bias: ``[V]`` of the head; it cannot be trained here.
        scale: The logits are multiplied by it first.
        softcap: Bounds the scaled logits by ``softcap * tanh(logits / softcap)``.

    Returns:
        ``[N]`` fp32, nats.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; a log-probability needs one above 0")
    if bias is not None and bias.requires_grad:
        raise ValueError("the bias of the output head requires a gradient, which is not computed")
    head = OutputHead(
        weight=weight.detach(), bias=None if bias is None else bias.detach(), scale=scale, softcap=softcap
    )
    # Autocast would cast what is already in the dtype chosen here, and refuses `out=`.
    with torch.autocast(hidden.device.type, enabled=False):
        result: Tensor = _CompletionLogprobs.apply(  # type: ignore[no-untyped-call]
            hidden.to(weight.dtype), weight, targets, head, chunk_size, temperature
        )
    return result


@contextlib.contextmanager
def compute_context(model: nn.Module) -> Iterator[None]:
    """Run a low-precision base with fp32 adapters: autocast, and no round trip of activations through fp32.

    PEFT casts what enters an adapter to the adapter's fp32, only for autocast to cast it back; both copies are
    switched off. With an fp32 base nothing is cast at all.
    """
    weight = output_head(model).weight
    if weight.dtype not in LOW_PRECISION:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(weight.device.type, dtype=weight.dtype))
        if model is not underlying_model(model):
            from peft.helpers import disable_input_dtype_casting

            stack.enter_context(disable_input_dtype_casting(model))
        yield


def recompute_as_computed(model: nn.Module) -> None:
    """Let a forward pass that is repeated for the backward pass draw the same dropout as the first.

    torch repeats it under the autocast of the first, but outside of `compute_context`: PEFT would then cast what enters
    an adapter, and the mask would be drawn for another number format. So the cast is switched off for good.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    if drops and output_head(model).weight.dtype in LOW_PRECISION:
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = False


@dataclass(frozen=True, slots=True)
class PredictingStates:
    """The hidden states that predict the supervised tokens of a batch, row after row and in reading order."""

    hidden: Tensor  # [N, H]
    targets: Tensor  # [N] int64, the tokens they predict
    row: Tensor  # [N] int64, the batch row of each token

    def logprobs(self, model: nn.Module, *, chunk_size: int = DEFAULT_CHUNK_SIZE, temperature: float = 1.0) -> Tensor:
        """Return ``[N]`` log-probabilities of the targets; see `completion_logprobs`."""
        head = output_head(model)
        return completion_logprobs(
            self.hidden,
            head.weight,
            self.targets,
            chunk_size=chunk_size,
            temperature=temperature,
            bias=head.bias,
            scale=head.scale,
            softcap=head.softcap,
        )


def predicting_states(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
) -> PredictingStates:
    """Run the backbone and keep the state before each supervised token, which is the one that predicts it.

    Args:
        model: A causal language model of transformers, with or without a PEFT wrapper.
        input_ids: ``[B, L]`` int64, padded on either side.
        attention_mask: ``[B, L]`` bool, True on real tokens.
        completion_mask: ``[B, L]`` bool, True on tokens whose log-probability is asked for.

    Returns:
        One state for each True of ``completion_mask``.
    """
    supervised = completion_mask[:, 1:]
    if completion_mask[:, 0].any() or (supervised & ~(attention_mask[:, 1:] & attention_mask[:, :-1])).any():
        raise ValueError("completion_mask is True on padding, or on a row's first token, which nothing predicts")
    position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
    with compute_context(model):
        hidden = backbone(model)(
            input_ids=input_ids, attention_mask=attention_mask.long(), position_ids=position_ids, use_cache=False
        ).last_hidden_state
    return PredictingStates(
        hidden=hidden[:, :-1][supervised], targets=input_ids[:, 1:][supervised], row=supervised.nonzero()[:, 0]
    )


def supervised_logprobs(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    temperature: float = 1.0,
) -> CompletionLogprobs:
    """Log-probabilities of the supervised tokens of a batch; the head is applied to those positions alone.

    Args:
        model: See `predicting_states`, as for the tensors.
        input_ids: ``[B, L]`` int64.
        attention_mask: ``[B, L]`` bool.
        completion_mask: ``[B, L]`` bool.
        chunk_size: See `completion_logprobs`.
        temperature: See `completion_logprobs`.

    Returns:
        One value for each True of ``completion_mask``.
    """
    states = predicting_states(model, input_ids, attention_mask, completion_mask)
    return CompletionLogprobs(
        logprobs=states.logprobs(model, chunk_size=chunk_size, temperature=temperature), row=states.row
    )
