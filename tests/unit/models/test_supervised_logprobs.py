from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from pipeline.config.shared import LoRAConfig
from pipeline.errors import ModelError
from pipeline.models.head import check_head, output_head, underlying_model
from pipeline.models.loading import add_lora
from pipeline.models.logprobs import compute_context, recompute_as_computed, supervised_logprobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model.requires_grad_(False)
    return model.eval()


def with_adapter(model: PreTrainedModel, **options: Any) -> nn.Module:
    """An adapter that changes the output: a fresh one is the identity."""
    policy = add_lora(model, LoRAConfig(rank=4, **options), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    return policy


ROWS = [
    ([7, 300, 41, 9, 110, 2, 77], [0, 0, 0, 1, 1, 1, 0]),
    ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1]),
    ([99, 98], [0, 1]),
]


def batch(
    rows: list[tuple[list[int], list[int]]], side: str = "right", extra: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows) + extra
    columns: list[list[list[int]]] = [[], [], []]
    for ids, mask in rows:
        padding = longest - len(ids)
        for column, values, filler in ((0, ids, 3), (1, [1] * len(ids), 0), (2, mask, 0)):
            columns[column].append([filler] * padding + values if side == "left" else values + [filler] * padding)
    ids, attention, completion = (torch.tensor(column) for column in columns)
    return ids, attention.bool(), completion.bool()


def row_by_row(model: nn.Module, rows: list[tuple[list[int], list[int]]]) -> Tensor:
    """The definition: the whole model's logits for one unpadded row at a time."""
    values = []
    for ids, mask in rows:
        logits = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(dim=-1)
        values += [logits[place - 1, ids[place]] for place in range(len(ids)) if mask[place]]
    return torch.stack(values)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(("side", "extra"), [("right", 0), ("left", 0), ("right", 5), ("left", 5)])
def test_equals_the_logits_of_the_whole_model_wherever_the_padding_is(
    folder: Path, side: str, extra: int, adapted: bool
) -> None:
    model: nn.Module = load(folder)
    if adapted:
        model = with_adapter(load(folder))
    with torch.no_grad():
        ours = supervised_logprobs(model, *batch(ROWS, side, extra))
        expected = row_by_row(model, ROWS)
    torch.testing.assert_close(ours.logprobs, expected, rtol=0, atol=1e-5)
    assert ours.row.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2]
    shifted = [(ids, [mask[-1], *mask[:-1]]) for ids, mask in ROWS[:2]]  # control: a mask that is off by one
    with torch.no_grad():
        assert (row_by_row(model, shifted)[:3] - expected[:3]).abs().max() > 0.1


def test_an_adapter_that_is_not_the_identity_changes_the_result(folder: Path) -> None:
    plain, adapted = load(folder), with_adapter(load(folder))
    with torch.no_grad():
        difference = (
            supervised_logprobs(plain, *batch(ROWS)).logprobs - supervised_logprobs(adapted, *batch(ROWS)).logprobs
        )
    assert difference.abs().max() > 1e-2


def test_gradients_of_the_adapter_are_those_of_the_plain_cross_entropy(folder: Path) -> None:
    gradients = []
    for function in (
        lambda model: supervised_logprobs(model, *batch(ROWS)).logprobs,
        lambda model: row_by_row(model, ROWS),
    ):
        model = with_adapter(load(folder))
        function(model).mean().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    assert len(gradients[0]) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)
        assert gradient is not None
        assert gradient.abs().max() > 0


def dropped_gradients(folder: Path, *, checkpointing: bool, seed: int = 5) -> dict[str, Tensor]:
    """Gradients of an adapter with dropout above a bfloat16 base."""
    model = with_adapter(load(folder, torch.bfloat16), dropout=0.1).train()
    if checkpointing:
        underlying_model(model).activation_checkpointing_enable()
        recompute_as_computed(model)
    torch.manual_seed(seed)
    supervised_logprobs(model, *batch(ROWS)).logprobs.mean().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_what_is_computed_again_drops_what_was_dropped(folder: Path) -> None:
    plain, again = (dropped_gradients(folder, checkpointing=checkpointing) for checkpointing in (False, True))
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=0)
    other = dropped_gradients(folder, checkpointing=True, seed=6)
    assert any((other[name] - gradient).abs().max() > 0.1 * gradient.abs().max() for name, gradient in plain.items())


@pytest.mark.parametrize("options", [{}, {"dora": True}])
def test_a_bfloat16_base_keeps_its_activations_and_trains_a_float32_adapter(
    folder: Path, options: dict[str, Any]
) -> None:
    seen: list[torch.dtype] = []
    model = with_adapter(load(folder, torch.bfloat16), **options)
    layer = next(module for name, module in model.named_modules() if name.endswith("q_proj.lora_A.default"))
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    ours = supervised_logprobs(model, *batch(ROWS))
    ours.logprobs.mean().backward()
    if not options:
        assert set(seen) == {torch.bfloat16}
    assert {value.grad.dtype for value in model.parameters() if value.grad is not None} == {torch.float32}
    with torch.no_grad():
        expected = supervised_logprobs(with_adapter(load(folder), **options), *batch(ROWS)).logprobs
    torch.testing.assert_close(ours.logprobs.detach(), expected, rtol=0, atol=0.15)
    with compute_context(load(folder)):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda ids, attention, completion: completion.__setitem__((0, 0), True),  # nothing predicts the first token
        lambda ids, attention, completion: completion.__setitem__((2, 5), True),  # padding
        lambda ids, attention, completion: attention.__setitem__((1, 0), False),  # the token before is padding
    ],
)
def test_a_mask_that_supervises_what_cannot_be_predicted_is_refused(
    folder: Path, spoil: Callable[[Tensor, Tensor, Tensor], None]
) -> None:
    tensors = batch(ROWS)
    spoil(*tensors)
    with pytest.raises(ValueError, match="padding"):
        supervised_logprobs(load(folder), *tensors)


def test_a_wrapper_with_hooks_of_its_own_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="Sequential"):
        supervised_logprobs(nn.Sequential(load(folder)), *batch(ROWS))


def variant(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False).eval()


def variants() -> dict[str, Callable[[], PretrainedConfig]]:
    from transformers import CohereConfig, Gemma2Config, GPT2Config, GraniteConfig, PhiConfig

    shared: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return {
        "soft cap": lambda: Gemma2Config(**shared, head_dim=8, final_logit_softcapping=2.0, query_pre_attn_scalar=8),
        "logits divided": lambda: GraniteConfig(**shared, logits_scaling=7.0),
        "logits multiplied": lambda: CohereConfig(**shared, logit_scale=0.3),
        "bias of the head": lambda: PhiConfig(**{**shared, "num_key_value_heads": 2}),
        "absolute positions": lambda: GPT2Config(
            vocab_size=64, n_embd=16, n_layer=1, n_head=2, pad_token_id=0, bos_token_id=1, eos_token_id=2
        ),
    }


@pytest.mark.parametrize("name", list(variants()))
def test_architectures_that_treat_their_logits_differently(name: str) -> None:
    model = variant(variants()[name]())
    check_head(model)
    rows = [([index % 64 for index in ids], mask) for ids, mask in ROWS]
    with torch.no_grad():
        if output_head(model).bias is not None:
            output_head(model).bias.copy_(torch.linspace(-1, 1, 64))  # type: ignore[union-attr]
        expected = row_by_row(model, rows)
        for side in ("left", "right"):
            ours = supervised_logprobs(model, *batch(rows, side)).logprobs
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_an_unknown_treatment_of_the_logits_is_noticed(folder: Path) -> None:
    model = load(folder)
    check_head(model)
    forward = model.forward

    def doubled(*arguments: Any, **options: Any) -> Any:
        output = forward(*arguments, **options)
        output.logits = 2 * output.logits
        return output

    model.forward = doubled
    with pytest.raises(ModelError, match="LlamaForCausalLM does something to its logits"):
        check_head(model)
