from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from architectures import make_architecture
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import make_tiny_model

from pipeline.artifacts.base_model import BaseModel, resolve_base
from pipeline.config.shared import (
    Attention,
    DType,
    LoRAConfig,
    ModelConfig,
    ModelSource,
    Quantization,
    RuntimeConfig,
)
from pipeline.errors import ModelError
from pipeline.models.loading import (
    adapter_digest,
    add_lora,
    linear_module_names,
    load_base,
    load_policy,
    quantization_problem,
    save_adapter,
)

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
RUNTIME = RuntimeConfig()


@pytest.fixture(scope="module")
def model_config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")
    return ModelConfig(source=ModelSource.hub, id=str(folder))


@pytest.fixture(scope="module")
def base(model_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return resolve_base(model_config, tmp_path_factory.mktemp("cache"))


def load(base: BaseModel, config: ModelConfig, dtype: DType = DType.float32) -> torch.nn.Module:
    return load_base(base, config, RUNTIME, dtype)


def trained(base: BaseModel, config: ModelConfig, **shape: object) -> PeftModel:
    policy = add_lora(load(base, config), LoRAConfig(rank=4, **shape), seed=3)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    return policy.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 300, 12]])).logits


def adapter_tensors(policy: PeftModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in policy.named_parameters() if "lora_" in name}


def test_a_base_is_frozen_and_brings_no_sampling_defaults(base: BaseModel, model_config: ModelConfig) -> None:
    model = load(base, model_config)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    assert model.generation_config.top_k is None


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
def test_a_new_adapter_is_the_identity_trains_in_float32_and_leaves_the_base_frozen(
    base: BaseModel, model_config: ModelConfig, dtype: DType
) -> None:
    before = logits(load(base, model_config, dtype))
    policy = add_lora(load(base, model_config, dtype), LoRAConfig(rank=4), seed=3)
    trainable = {name: value for name, value in policy.named_parameters() if value.requires_grad}
    assert {value.dtype for value in trainable.values()} == {torch.float32}
    assert all("lora_" in name for name in trainable)
    assert len(trainable) == 2 * 7 * 2
    assert not any("lm_head" in name or "embed_tokens" in name for name in trainable)
    torch.testing.assert_close(logits(policy), before, rtol=0, atol=0)


def test_the_seed_alone_decides_how_an_adapter_begins(base: BaseModel, model_config: ModelConfig) -> None:
    def draw(seed: int) -> dict[str, torch.Tensor]:
        return adapter_tensors(add_lora(load(base, model_config), LoRAConfig(rank=4), seed))

    torch.manual_seed(1)
    first, state = draw(3), torch.random.get_rng_state()
    torch.manual_seed(2)
    second, other = draw(3), draw(4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state()), "the state outside must not move"


def test_targets_are_named_and_checked(base: BaseModel, model_config: ModelConfig) -> None:
    model = load(base, model_config)
    assert linear_module_names(model) == LINEAR
    policy = add_lora(model, LoRAConfig(rank=2, targets=["q_proj", "v_proj"]), seed=0)
    assert len(adapter_tensors(policy)) == 2 * 2 * 2
    for wrong in ("lm_head", "embed_tokens", "query"):
        with pytest.raises(ModelError, match=rf"{wrong} is no linear module.*down_proj, gate_proj"):
            add_lora(load(base, model_config), LoRAConfig(targets=["q_proj", wrong]), seed=0)


# Plain peft 0.21 reads an attribute of transformers under its former name; our own loader keeps quiet about it.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("shape", [{}, {"rslora": True}, {"dora": True}, {"alpha": 3.0}])
def test_a_saved_adapter_loads_in_plain_peft(
    base: BaseModel, model_config: ModelConfig, shape: dict[str, object], tmp_path: Path
) -> None:
    policy = trained(base, model_config, **shape)
    save_adapter(policy, tmp_path / "adapter")
    expected = logits(policy)
    plain = PeftModel.from_pretrained(load(base, model_config), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=0)
    assert (logits(load(base, model_config)) - expected).abs().max() > 0.01, "the adapter does nothing"
    ours = load_policy(load(base, model_config), SimpleNamespace(path=tmp_path), trainable=True)  # type: ignore[arg-type]
    torch.testing.assert_close(logits(ours.eval()), expected, rtol=0, atol=0)
    assert any(parameter.requires_grad for parameter in ours.parameters())


def test_a_saved_adapter_has_the_same_bytes_each_time_and_no_path(
    base: BaseModel, model_config: ModelConfig, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        save_adapter(trained(base, model_config), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    text = (tmp_path / "first" / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "tiny-llama"
    assert str(base.folder.parent) not in text


def test_the_digest_sees_every_tensor_and_the_scaling_and_nothing_else(
    base: BaseModel, model_config: ModelConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    save_adapter(trained(base, model_config), folder)
    digest = adapter_digest(folder)
    config = json.loads((folder / "adapter_config.json").read_text())

    def with_config(**changes: object) -> str:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        return adapter_digest(folder)

    assert with_config(base_model_name_or_path="elsewhere", peft_version="1") == digest
    assert with_config(lora_alpha=7) != digest
    assert with_config(use_rslora=True) != digest
    assert with_config() == digest
    tensors = load_file(folder / "adapter_model.safetensors")
    last = sorted(tensors)[-1]
    tensors[last].view(-1)[-1] += 1e-6
    save_file(tensors, folder / "adapter_model.safetensors")
    assert adapter_digest(folder) != digest


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "broken", tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = ModelConfig(source=ModelSource.hub, id=str(folder))
    base = resolve_base(config, tmp_path / "cache")
    with pytest.raises(ModelError, match=r"missing_keys.*lm_head\.weight"):
        load(base, config)


def test_an_architecture_without_the_chosen_attention_names_the_one_that_it_has(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny-gemma2")
    make_architecture("gemma2").save_pretrained(folder)
    for attention in (Attention.sdpa, Attention.eager):
        config = ModelConfig(source=ModelSource.hub, id=str(folder), attention=attention)
        base = resolve_base(config, tmp_path / "cache")
        if attention is Attention.eager:
            assert load(base, config).config._attn_implementation == "eager"
        else:
            with pytest.raises(ModelError, match=r"tiny-gemma2 .*model\.attention=sdpa.* Try model\.attention=eager"):
                load(base, config)


def test_quantization_is_refused_where_it_cannot_run(base: BaseModel, model_config: ModelConfig) -> None:
    config = ModelConfig(source=ModelSource.hub, id=model_config.id, quantization=Quantization.nf4)
    problem = quantization_problem(config, "cpu")
    assert problem is not None
    assert "needs a CUDA device" in problem
    assert quantization_problem(model_config, "cpu") is None
    with pytest.raises(ModelError, match="CUDA"):
        load_base(base, config, RUNTIME, DType.float32)
