from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_tiny_model
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pipeline.artifacts.base_model import resolve_base
from pipeline.config.shared import Attention, Device, DType, LoRAConfig, ModelConfig, ModelSource, RuntimeConfig
from pipeline.models import attention
from pipeline.models.attention import MATRIX_ATTENTION, matrix_attention
from pipeline.models.loading import add_lora, load_base
from pipeline.models.logprobs import supervised_logprobs


def drawn(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two rows of 5 positions, 4 query heads over 2 heads of keys; the second row has padding on its left."""
    generator = torch.Generator().manual_seed(3)
    query, key, value = (
        torch.randn((2, 5, heads, 8), generator=generator, dtype=torch.float64).to(dtype).transpose(1, 2)
        for heads in (4, 2, 2)
    )
    mask = torch.ones((2, 1, 5, 5), dtype=torch.bool).tril()
    mask[1, :, :, :2] = False
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_(), mask


def results(function: str, dtype: torch.dtype, mask: Tensor | None, scaling: float | None = None) -> list[Tensor]:
    """Return the output at positions that see something, and the gradients of a weighted sum of them."""
    query, key, value, _ = drawn(dtype)
    if function == "ours":
        output = matrix_attention(nn.Module(), query, key, value, mask, scaling=scaling)[0].transpose(1, 2)
    else:
        key_of, value_of = (states.repeat_interleave(2, dim=1) for states in (key, value))
        output = scaled_dot_product_attention(
            query, key_of, value_of, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
    seen = torch.ones(2, 5, dtype=torch.bool) if mask is None else mask.any(dim=-1).squeeze(1)
    kept = output.transpose(1, 2)[seen]
    (kept * torch.linspace(-1, 1, kept.numel(), dtype=dtype).view(kept.shape)).sum().backward()
    return [kept.detach(), query.grad, key.grad, value.grad]


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("masked", [True, False])
def test_value_and_gradients_are_those_of_torch(masked: bool, scaling: float | None) -> None:
    mask = drawn()[3] if masked else None
    for ours, theirs in zip(
        results("ours", torch.float64, mask, scaling), results("torch", torch.float64, mask, scaling), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    other = results("ours", torch.float64, mask, 1.1 * (scaling or 8**-0.5))
    assert (other[0] - results("torch", torch.float64, mask, scaling)[0]).abs().max() > 1e-3


def test_gradients_are_those_of_finite_differences() -> None:
    query, key, value, mask = drawn()
    seen = mask.any(dim=-1).squeeze(1)  # what a row that sees nothing comes to is not defined
    assert torch.autograd.gradcheck(
        lambda *states: matrix_attention(nn.Module(), *states, mask)[0][seen], (query, key, value)
    )


def test_in_bfloat16_it_is_as_exact_as_torch() -> None:
    mask = drawn()[3]
    exact = results("torch", torch.float64, mask)
    for ours, theirs, true in zip(
        results("ours", torch.bfloat16, mask), results("torch", torch.bfloat16, mask), exact, strict=True
    ):
        error, known = (ours.double() - true).norm(), (theirs.double() - true).norm()
        assert error < 2 * known + 1e-3 * true.norm()


@pytest.mark.parametrize("why", ["no gradient", "dropout", "a float mask", "too long"])
def test_the_rest_is_left_to_sdpa(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, mask = drawn()
    asked: list[str] = []

    def noted(*args: object, **kwargs: object) -> tuple[Tensor, None]:
        asked.append(why)
        return torch.zeros(()), None

    monkeypatch.setattr(attention, "sdpa_attention_forward", noted)
    if why == "too long":
        monkeypatch.setattr(attention, "MOST_POSITIONS", 4)
    given = mask.double() if why == "a float mask" else mask
    with torch.set_grad_enabled(why != "no gradient"):
        matrix_attention(nn.Module(), query, key, value, given, dropout=0.1 if why == "dropout" else 0.0)
    assert asked == [why]


@pytest.mark.parametrize(("dtype", "chosen"), [(DType.bfloat16, MATRIX_ATTENTION), (DType.float32, "sdpa")])
def test_a_base_in_bfloat16_trains_with_it(tmp_path: Path, dtype: DType, chosen: str) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    config = ModelConfig(source=ModelSource.hub, id=str(folder), dtype=dtype)
    runtime = RuntimeConfig(cache=str(tmp_path / "cache"), device=Device.cpu)
    model = load_base(resolve_base(config, tmp_path / "cache"), config, runtime, dtype)
    assert model.config._attn_implementation == chosen
    policy = add_lora(model, LoRAConfig(rank=4), seed=0)
    gradients = {}
    for implementation in (chosen, Attention.eager.value):
        model.set_attn_implementation(implementation)
        policy.zero_grad()
        ids = (torch.arange(20) * 37 % 500).view(2, 10)
        seen = torch.ones(2, 10, dtype=torch.bool)
        seen[1, 7:] = False
        asked = seen.clone()
        asked[:, 0] = False
        supervised_logprobs(policy, ids, seen, asked).logprobs.sum().backward()
        named = policy.named_parameters()
        gradients[implementation] = torch.cat([p.grad.flatten() for name, p in named if p.grad is not None])
    ours, eager = gradients.values()
    assert torch.nn.functional.cosine_similarity(ours, eager, dim=0) > 0.999
    assert ours.norm() > 0
