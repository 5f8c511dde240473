from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import make_tiny_model

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Provenance, Store
from pipeline.config.ppo import PPOConfig, ValueModel
from pipeline.config.reward import RewardConfig
from pipeline.config.shared import Attention, DType, LoRAConfig, ModelConfig
from pipeline.config.stages import SFTConfig
from pipeline.errors import ModelError
from pipeline.graph.estimates import (
    activation_values,
    adapter_parameters,
    ppo_memory,
    remembered_rate,
    training_memory,
    weight_shapes,
)

# The tiny model: hidden 64, feed-forward 128, keys and values 32, two layers, vocabulary 512.
PER_LAYER = 64 * 64 + 32 * 64 + 32 * 64 + 64 * 64 + 3 * 64 * 128 + 2 * 64
PARAMETERS = 512 * 64 + 2 * PER_LAYER + 64
INS_AND_OUTS = (64 + 64) + (64 + 32) + (64 + 32) + (64 + 64) + 3 * (64 + 128)  # q, k, v, o, then the feed-forward


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_shapes_come_from_the_header(model: Path) -> None:
    shapes = weight_shapes(model)
    assert shapes["model.layers.1.mlp.down_proj.weight"] == [64, 128]
    memory = training_memory(model, SFTConfig(), ModelConfig(dtype=DType.float32), 100)
    assert memory.base_parameters == PARAMETERS == 106_816
    assert memory.base == 4 * PARAMETERS


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="not a safetensors file"):
        weight_shapes(tmp_path)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["all-linear"], 4 * 2 * INS_AND_OUTS),
        (["q_proj"], 4 * 2 * 128),
        (["q_proj", "down_proj"], 4 * 2 * (128 + 192)),
        (["proj"], 0),  # whole names only
    ],
)
def test_adapter_parameters(model: Path, targets: list[str], expected: int) -> None:
    assert adapter_parameters(weight_shapes(model), LoRAConfig(rank=4, targets=targets)) == expected


def test_activations_grow_with_layers_and_shrink_with_checkpointing() -> None:
    config = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    one_layer = 16 * 64 + 4 * 128
    assert activation_values(config, 10, Attention.sdpa, checkpointing=False) == 2 * one_layer
    assert activation_values(config, 10, Attention.sdpa, checkpointing=True) == one_layer + 2 * 64
    with_scores = one_layer + 3 * 4 * 10
    assert activation_values(config, 10, Attention.eager, checkpointing=False) == 2 * with_scores


def test_ppo_holds_frozen_adapters_and_samples_when_it_does_not_train(model: Path) -> None:
    """Two layers of 2 key-value heads of 16: 128 values per token, in fp32 512 bytes; the vocabulary has 512 rows."""
    ppo = PPOConfig(microbatch_size=1, rollout_size=64, generation_batch_size=32, max_new_tokens=20)
    adapter = 2 * INS_AND_OUTS * 16
    memory = ppo_memory(model, ppo, ModelConfig(dtype=DType.float32), 30, num_frozen=3)
    assert memory.adapter == 16 * adapter + 3 * 4 * adapter
    values = 2 * (16 * 64 + 4 * 128)
    assert memory.activations == max(50 * values * 4, 32 * 50 * 512) == 32 * 50 * 512
    assert memory.head == max(128 * 512 * 8, 32 * 512 * 20) == 128 * 512 * 8
    own = replace(ppo, value_model=ValueModel.adapter, microbatch_size=16)
    other = ppo_memory(model, own, ModelConfig(dtype=DType.float32), 30, num_frozen=0)
    assert (other.adapter, other.activations) == (2 * 16 * adapter, 16 * 50 * values * 4)


def test_memory_follows_its_parts(model: Path) -> None:
    sft = SFTConfig(microbatch_size=8)
    wide = training_memory(model, sft, ModelConfig(), 100)
    narrow = training_memory(model, sft, ModelConfig(dtype=DType.bfloat16), 100)
    assert (narrow.base, narrow.activations) == (wide.base // 2, wide.activations // 2)
    assert narrow.adapter == wide.adapter == 16 * 2 * INS_AND_OUTS * 16
    half = training_memory(model, replace(sft, microbatch_size=4), ModelConfig(dtype=DType.bfloat16), 100)
    assert half.activations == narrow.activations // 2
    assert half.total < narrow.total


def test_where_only_upper_layers_learn_the_others_cost_their_states_and_no_gradient(model: Path) -> None:
    """One of two layers of a reward model: half of the adapter is frozen, and 1,000 tokens keep 64 fp32 values each."""
    config, dtype = RewardConfig(microbatch_size=4), ModelConfig(dtype=DType.float32)
    whole = training_memory(model, config, dtype, 100, sides=2, num_tokens=1000)
    upper = training_memory(model, config, dtype, 100, sides=2, upper_layers=1, num_tokens=1000)
    assert (whole.kept, upper.kept) == (0, 1000 * 64 * 4)
    assert upper.activations == whole.activations // 2
    assert whole.adapter == 2 * INS_AND_OUTS * 16 * 16
    assert upper.adapter == INS_AND_OUTS * 16 * (16 + 4)
    assert upper.adapter_parameters == whole.adapter_parameters == 2 * INS_AND_OUTS * 16
    assert upper.total == whole.total - whole.activations // 2 - INS_AND_OUTS * 16 * 12 + 256_000
    assert training_memory(model, config, dtype, 100, sides=2, upper_layers=9, num_tokens=1000) == whole


def test_a_rate_is_remembered_for_the_same_machine_and_base(tmp_path: Path) -> None:
    store = Store(tmp_path)
    machine = {"cpu": "this one", "cpu_count": 2}
    for digit, tokens, environment, base in (
        ("a", 1000, machine, "base"),
        ("b", 9000, {**machine, "cpu_count": 64}, "base"),
        ("c", 7000, machine, "other base"),
    ):
        work = store.work("sft", digit * 64)
        (work.staging / "x").write_text(digit)
        store.seal(
            work, kind=ArtifactKind.policy, stage="sft", version=1, fingerprint=digit * 64, parents=[], config={},
            outcome=StageOutcome(parts={}, metrics={"processed_tokens": tokens}),
            provenance=Provenance(base={"digest": base}, environment=environment, wall_seconds=10.0),
        )  # fmt: skip
    found = remembered_rate(store, "sft", "processed_tokens", machine, "base", {})
    assert found is not None
    assert found[0] == 100.0
    assert json.loads((found[1].path / "manifest.json").read_text())["fingerprint"] == "a" * 64
    assert remembered_rate(store, "dpo", "processed_tokens", machine, "base", {}) is None
    assert remembered_rate(store, "sft", "items", machine, "base", {}) is None
    assert remembered_rate(store, "sft", "processed_tokens", machine, "base", {"suite": "x"}) is None
