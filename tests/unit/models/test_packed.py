from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny import make_tiny_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.config.shared import LoRAConfig
from pipeline.models import packed
from pipeline.models.loading import add_lora
from pipeline.models.logprobs import compute_context
from pipeline.models.packed import packed_linears
from pipeline.models.roles import add_role, enter_role

IDS = (torch.arange(24) * 37 % 500).view(3, 8)
CAN_PACK = torch._C._has_mkldnn and "AVX" in torch.backends.cpu.get_cpu_capability()
packs = pytest.mark.skipif(not CAN_PACK, reason="needs oneDNN on a CPU with AVX")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), tie_word_embeddings=False)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False).eval()


def adapted(folder: Path, dtype: torch.dtype = torch.float32, **lora: bool) -> PeftModel:
    policy = add_lora(load(folder, dtype), LoRAConfig(rank=4, alpha=12, **lora), seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view(parameter.shape))
    return policy.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad(), compute_context(model):
        return model(input_ids=IDS).logits.float()


def replaced(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@packs
@pytest.mark.parametrize("rows", [1, 16, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_model_computes_the_same(folder: Path, dtype: torch.dtype, rows: int) -> None:
    model = load(folder, dtype)
    expected = logits(model)
    with packed_linears(model, rows):
        assert len(replaced(model)) == 2 * 5 + 1, "q, o, gate, up and down of two layers, and the head"
        tolerance = 1e-5 if dtype is torch.float32 else 2e-2
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=tolerance)
    assert not replaced(model)
    assert torch.equal(logits(model), expected), "left as it was"


@packs
def test_the_copy_is_what_is_multiplied_with(folder: Path) -> None:
    model = load(folder)
    expected = logits(model)
    with packed_linears(model, 4):
        model.lm_head.weight.zero_()
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert not logits(model).any(), "without the copy the zeroed head is used"


@packs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_applied_beside_the_copy(folder: Path, dtype: torch.dtype) -> None:
    policy, tolerance = adapted(folder, dtype), 1e-5 if dtype is torch.float32 else 8e-2
    expected = logits(policy)
    with packed_linears(policy, 8):
        assert sum(name.endswith("_proj") for name in replaced(policy)) == 2 * 5, "all that stand on a copy"
        torch.testing.assert_close(logits(policy), expected, rtol=0, atol=tolerance)
    assert (expected - logits(load(folder, dtype))).abs().max() > 3 * tolerance, "the adapter must matter"


@packs
def test_the_adapter_that_acts_is_the_one_of_the_role(folder: Path) -> None:
    policy = adapted(folder)
    add_role(policy, "reference", "default", seed=1)  # the identity
    base = logits(load(folder))
    for role in ("reference", None):
        with enter_role(policy, role), packed_linears(policy, 8):
            torch.testing.assert_close(logits(policy), base, rtol=0, atol=1e-5)


@packs
@pytest.mark.parametrize("way", ["dora", "two"])
def test_what_is_no_plain_adapter_is_left_to_peft(folder: Path, way: str) -> None:
    policy = adapted(folder, dora=way == "dora")
    if way == "two":
        add_role(policy, "other", "default", seed=1)
        policy.base_model.set_adapter(["default", "other"], inference_mode=True)
    expected = logits(policy)
    with packed_linears(policy, 8):
        names = replaced(policy)
        assert not any(name.endswith("_proj") for name in names)
        assert any(name.endswith("base_layer") for name in names)
        torch.testing.assert_close(logits(policy), expected, rtol=0, atol=1e-5)


@packs
def test_layers_are_put_back_after_an_error(folder: Path) -> None:
    model, left = load(folder), ExitStack()
    left.enter_context(packed_linears(model, 8))
    assert replaced(model)
    assert not left.__exit__(KeyError, KeyError(), None)
    assert not replaced(model)


def test_a_model_of_which_a_copy_is_too_much_stays_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_BYTES", 1000)
    model = load(folder)
    with packed_linears(model, 8):
        assert not replaced(model)
