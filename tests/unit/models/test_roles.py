"""Roles on one backbone: what acts, what learns, and that nothing else moves."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny import make_tiny_model

from pipeline.artifacts.base_model import BaseModel, resolve_base
from pipeline.config.shared import DType, LoRAConfig, ModelConfig, ModelSource, RuntimeConfig
from pipeline.errors import ModelError
from pipeline.models.loading import ADAPTER_FOLDER, add_lora, load_base, save_adapter
from pipeline.models.roles import (
    POLICY,
    REFERENCE,
    VALUE,
    add_role,
    copy_role,
    enter_role,
    load_role,
    role_parameters,
    switch_dropout_off,
)

IDS = torch.tensor([[5, 6, 7, 300, 12, 9, 40, 41]])
ROLES = [POLICY, REFERENCE, VALUE]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelConfig, BaseModel]:
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    config = ModelConfig(source=ModelSource.hub, id=str(folder), dtype=DType.float32)
    return config, resolve_base(config, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def model(where: tuple[ModelConfig, BaseModel], tmp_path: Path) -> PeftModel:
    """A policy that differs from the base, its frozen copy, and a value adapter with weights of its own."""
    config, base = where
    policy = add_lora(load_base(base, config, RuntimeConfig(), DType.float32), LoRAConfig(rank=4, dropout=0.3), seed=3)
    stir(policy, POLICY, seed=1)
    save_adapter(policy, tmp_path / ADAPTER_FOLDER)
    load_role(policy, REFERENCE, tmp_path / ADAPTER_FOLDER)
    add_role(policy, VALUE, like=POLICY, seed=4)
    stir(policy, VALUE, seed=2)
    switch_dropout_off(policy)
    return policy


def stir(model: PeftModel, adapter: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in role_parameters(model, adapter).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def logits(model: PeftModel, adapter: str | None) -> torch.Tensor:
    with enter_role(model, adapter), torch.no_grad():
        return model(input_ids=IDS).logits


def loss(model: PeftModel) -> torch.Tensor:
    return model(input_ids=IDS).logits.logsumexp(-1).mean()


def gradients(model: PeftModel, adapter: str) -> dict[str, torch.Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in role_parameters(model, adapter).items()}


def alone(model: PeftModel, adapter: str) -> dict[str, torch.Tensor | None]:
    """The gradients of one role when no other does anything."""
    model.zero_grad()
    with enter_role(model, adapter, train=True):
        loss(model).backward()
    found = gradients(model, adapter)
    model.zero_grad()
    return found


def require_equal(ours: dict[str, torch.Tensor | None], wanted: dict[str, torch.Tensor | None]) -> None:
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        assert ours[name] is not None, name
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=0)


def state(model: PeftModel) -> tuple[list[str], list[bool]]:
    return list(model.base_model.active_adapters), [p.requires_grad for p in model.parameters()]


def base_digest(model: PeftModel) -> str:
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def test_each_role_has_its_own_output_and_the_reference_is_the_policy_it_was_copied_from(model: PeftModel) -> None:
    torch.testing.assert_close(logits(model, REFERENCE), logits(model, POLICY), rtol=0, atol=0)
    outputs = [logits(model, adapter) for adapter in (POLICY, VALUE, None)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[first] - outputs[second]).abs().max() > 1e-3


@pytest.mark.parametrize("adapter", [*ROLES, None])
def test_everything_is_put_back_also_after_an_error(model: PeftModel, adapter: str | None) -> None:
    before = state(model)
    assert any(before[1])
    with enter_role(model, adapter):
        assert not any(p.requires_grad for p in model.parameters())
    assert state(model) == before
    with pytest.raises(KeyError):
        fail_inside(model, adapter)
    assert state(model) == before
    if adapter is not None:
        with enter_role(model, adapter, train=True):
            pass


def fail_inside(model: PeftModel, adapter: str | None) -> None:
    with enter_role(model, adapter, train=adapter is not None):
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained == (set() if adapter is None else set(role_parameters(model, adapter)))
        raise KeyError


def test_a_role_inside_the_bare_base_comes_back_to_the_bare_base(model: PeftModel) -> None:
    bare = logits(model, None)
    with enter_role(model, None):
        logits(model, VALUE)
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=IDS).logits, bare, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_two_roles_are_those_of_each_alone(model: PeftModel, checkpointing: bool) -> None:
    if checkpointing:
        model.get_base_model().activation_checkpointing_enable()
        model.enable_input_require_grads()
        model.train()
    policy, value = alone(model, POLICY), alone(model, VALUE)
    with enter_role(model, POLICY, train=True):
        loss(model).backward()
        logits_of_the_reference = logits(model, REFERENCE)
    with enter_role(model, VALUE, train=True):
        loss(model).backward()
    require_equal(gradients(model, POLICY), policy)
    require_equal(gradients(model, VALUE), value)
    assert torch.isfinite(logits_of_the_reference).all()
    assert all(gradient is None for gradient in gradients(model, REFERENCE).values())


def test_one_backward_over_two_roles_loses_gradients(model: PeftModel) -> None:
    """The control: what the context prevents. The policy's graph is alive while the value adapter becomes active."""
    policy = alone(model, POLICY)
    with enter_role(model, POLICY, train=True):
        first = loss(model)
    with enter_role(model, VALUE, train=True):
        (first + loss(model)).backward()
    ours = gradients(model, POLICY)
    assert any(
        gradient is None or not torch.equal(gradient, torch.as_tensor(policy[name])) for name, gradient in ours.items()
    )


def test_two_roles_are_never_trained_at_once(model: PeftModel) -> None:
    with (
        enter_role(model, POLICY, train=True),
        pytest.raises(ModelError, match="default' is being trained"),
        enter_role(model, VALUE, train=True),
    ):
        pass
    with pytest.raises(ModelError, match="frozen"), enter_role(model, None, train=True):
        pass
    with pytest.raises(ModelError, match="no adapter 'critic'"), enter_role(model, "critic"):
        pass


def test_a_merged_adapter_is_refused(model: PeftModel) -> None:
    model.merge_adapter()
    with pytest.raises(ModelError, match="merged"), enter_role(model, VALUE):
        pass


def test_training_one_role_moves_nothing_else(model: PeftModel) -> None:
    digest, outputs = base_digest(model), {adapter: logits(model, adapter) for adapter in [*ROLES, None]}
    for trained in (POLICY, VALUE):
        optimizer = torch.optim.AdamW(role_parameters(model, trained).values(), lr=1e-2)
        for _ in range(3):
            with enter_role(model, trained, train=True):
                loss(model).backward()
            optimizer.step()
            optimizer.zero_grad()
        now = {adapter: logits(model, adapter) for adapter in outputs}
        assert (now[trained] - outputs[trained]).abs().max() > 1e-3
        for adapter in outputs.keys() - {trained}:
            assert torch.equal(now[adapter], outputs[adapter]), f"training {trained} moved {adapter}"
        outputs = now
    assert base_digest(model) == digest


def test_roles_share_no_parameter_and_the_base_belongs_to_none(model: PeftModel) -> None:
    found = [set(role_parameters(model, adapter)) for adapter in ROLES]
    assert len(set().union(*found)) == sum(len(names) for names in found) > 0
    assert not any("lora_" not in name for names in found for name in names)


def test_no_dropout_is_left(model: PeftModel) -> None:
    model.train()
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    assert torch.equal(logits(model, POLICY), logits(model, POLICY))


def test_the_policy_loads_in_plain_peft(model: PeftModel, where: tuple[ModelConfig, BaseModel], tmp_path: Path) -> None:
    stir(model, POLICY, seed=9)
    save_adapter(model, tmp_path / "saved")
    base = load_base(where[1], where[0], RuntimeConfig(), DType.float32)
    plain = PeftModel.from_pretrained(base, str(tmp_path / "saved")).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=IDS).logits, logits(model, POLICY), rtol=0, atol=0)


def test_a_role_takes_over_the_weights_of_another(model: PeftModel) -> None:
    copy_role(model, POLICY, VALUE)
    torch.testing.assert_close(logits(model, VALUE), logits(model, POLICY), rtol=0, atol=0)
    stir(model, VALUE, seed=5)
    assert not torch.equal(logits(model, VALUE), logits(model, POLICY))


@pytest.mark.parametrize("change", [{"lora_alpha": 99}, {"use_rslora": True}])
def test_weights_that_another_scaling_would_multiply_are_not_taken_over(
    model: PeftModel, change: dict[str, object]
) -> None:
    config = copy.deepcopy(model.peft_config[POLICY])
    for key, value in change.items():
        setattr(config, key, value)
    model.add_adapter("other", config)
    before = logits(model, "other")
    with pytest.raises(ModelError, match=r"differ in what their weights are multiplied by \(alpha or rsLoRA\)"):
        copy_role(model, POLICY, "other")
    torch.testing.assert_close(logits(model, "other"), before, rtol=0, atol=0)
