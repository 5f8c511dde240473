"""A reward model on a backbone: the tail, padding and batches, saving and loading, and neighbours left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import END_OF_TURN_ID, make_tiny_model

from pipeline.artifacts.base_model import BaseModel, resolve_base
from pipeline.config.shared import DType, LoRAConfig, ModelConfig, ModelSource, RuntimeConfig
from pipeline.errors import ModelError
from pipeline.models.loading import add_lora, load_adapter, load_base, save_adapter
from pipeline.models.reward import (
    RewardFacts,
    ScoreHead,
    last_scores,
    load_reward,
    member_folders,
    raw_scores,
    reward_digest,
    save_head,
    with_tail,
)

ROWS = [[5, 6, 7, 300, 12, 2], [8, 9, 2], [40, 41, 42, 43, 44, 45, 46, 47, 48, 2]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")
    return ModelConfig(source=ModelSource.hub, id=str(folder))


@pytest.fixture(scope="module")
def base(config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return resolve_base(config, tmp_path_factory.mktemp("cache"))


def load(base: BaseModel, config: ModelConfig) -> Any:
    return load_base(base, config, RuntimeConfig(), DType.float32)


def member(base: BaseModel, config: ModelConfig, seed: int) -> tuple[PeftModel, ScoreHead]:
    """An adapter and a head that are not zero."""
    model = add_lora(load(base, config), LoRAConfig(rank=4), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    head = ScoreHead(64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=generator)
        head.linear.weight.normal_(generator=generator)
        head.linear.bias.fill_(0.25)
    return model.eval(), head


@pytest.fixture(scope="module")
def sealed(base: BaseModel, config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two."""
    folder = tmp_path_factory.mktemp("reward")
    for seed, where in enumerate(member_folders(folder, 2)):
        model, head = member(base, config, seed)
        save_adapter(model, where / "adapter")
        save_head(head, where)
    facts = RewardFacts(
        tail_ids=(2,), stop_ids=(2, 0), means=(0.5, -1.0), stds=(2.0, 4.0), temperature=0.8, folds=(0, 1)
    )
    facts.write(folder)
    return folder


def test_the_tail_replaces_what_the_policy_stopped_with() -> None:
    assert with_tail([7, 8], stop_ids=(2, 0), tail_ids=(2,)) == [7, 8, 2]  # cut off by the length
    assert with_tail([7, 8, 2], stop_ids=(2, 0), tail_ids=(2,)) == [7, 8, 2]
    assert with_tail([7, 8, 0], stop_ids=(2, 0), tail_ids=(2,)) == [7, 8, 2]  # stopped with eos
    assert with_tail([7, 2, 8], stop_ids=(2, 0), tail_ids=(2,)) == [7, 2, 8, 2]  # one in the middle is the prompt's
    # A tail of a space and a token, of which the policy has written both, or the token alone.
    assert with_tail([7, 9, 2], stop_ids=(2,), tail_ids=(9, 2)) == [7, 9, 2]
    assert with_tail([7, 2], stop_ids=(2,), tail_ids=(9, 2)) == [7, 9, 2]
    assert with_tail([7, 9], stop_ids=(2,), tail_ids=(9, 2)) == [7, 9, 9, 2]  # cut off: the 9 is the policy's text


def test_a_score_is_the_head_on_the_last_state_of_the_whole_model(base: BaseModel, config: ModelConfig) -> None:
    """By transformers' own forward pass, one row at a time and without padding."""
    model, head = member(base, config, 3)
    scores = raw_scores(model, head, ROWS, batch_size=2)
    for row, score in zip(ROWS, scores.tolist(), strict=True):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[-1]
        expected = states[0, -1] @ head.linear.weight[0] + head.linear.bias[0]
        assert score == pytest.approx(expected.item(), abs=1e-5)
    assert scores.std() > 0.1, "all scores are alike, so nothing is shown"


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_score(base: BaseModel, config: ModelConfig, side: str) -> None:
    model, head = member(base, config, 3)
    length, padded = 13, []
    for row in ROWS:
        filler = [END_OF_TURN_ID] * (length - len(row))  # even of the token that a row ends with
        padded.append([*filler, *row] if side == "left" else [*row, *filler])
    real = [[True] * len(row) for row in ROWS]
    none = [[False] * (length - len(row)) for row in ROWS]
    mask = torch.tensor([n + r if side == "left" else r + n for r, n in zip(real, none, strict=True)])
    last = torch.tensor([length - 1 if side == "left" else len(row) - 1 for row in ROWS])
    with torch.no_grad():
        scores = last_scores(model, head, torch.tensor(padded), mask, last)
        wrong = last_scores(model, head, torch.tensor(padded), mask, last - 1)
    expected = raw_scores(model, head, ROWS, batch_size=1)
    assert scores.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert wrong.tolist() != pytest.approx(expected.tolist(), abs=1e-2), "the index is not looked at"


def test_an_ensemble_scores_in_units_of_each_member(base: BaseModel, config: ModelConfig, sealed: Path) -> None:
    reward = load_reward(load(base, config), sealed)
    scores = reward.score([row[:-1] for row in ROWS])
    raw = [raw_scores(*member(base, config, seed), ROWS, 4) for seed in (0, 1)]
    expected = torch.stack([(raw[0] - 0.5) / 2.0, (raw[1] + 1.0) / 4.0])
    assert torch.allclose(scores.members, expected, atol=1e-5)
    assert torch.allclose(scores.mean, (expected[0] + expected[1]) / 2, atol=1e-5)
    assert torch.allclose(scores.spread, (expected[0] - expected[1]).abs() / 2, atol=1e-5)
    assert scores.spread.max() > 0.01


def test_it_lives_beside_a_policy_and_a_second_reward_model(base: BaseModel, config: ModelConfig, sealed: Path) -> None:
    policy, _ = member(base, config, 9)
    policy.train()
    before = {name: value.requires_grad for name, value in policy.named_parameters()}
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = policy(input_ids=ids).logits
    reward = load_reward(policy, sealed)
    gold = load_reward(policy, sealed, name="gold")
    assert reward.adapters == ["reward_0", "reward_1"]
    assert gold.adapters == ["gold_0", "gold_1"]
    assert torch.equal(reward.score(ROWS).members, gold.score(ROWS).members)
    after = {name: value.requires_grad for name, value in policy.named_parameters() if name in before}
    assert after == before
    assert not any(value.requires_grad for name, value in policy.named_parameters() if name not in before)
    assert policy.active_adapter == "default"
    with torch.no_grad():
        assert torch.equal(policy(input_ids=ids).logits, logits)


def test_an_adapter_of_another_base_is_refused(
    base: BaseModel, config: ModelConfig, sealed: Path, tmp_path: Path
) -> None:
    folder = member_folders(sealed, 2)[0] / "adapter"
    tensors = load_file(folder / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    stray = {name.replace("layers.1.", "layers.7."): value for name, value in tensors.items()}
    save_file(stray, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"of its tensors have no place"):
        load_adapter(load(base, config), tmp_path)


def test_facts_are_read_strictly(sealed: Path, tmp_path: Path) -> None:
    facts = RewardFacts.read(sealed)
    assert (facts.tail_ids, facts.num_members, facts.temperature) == ((2,), 2, 0.8)
    values = json.loads((sealed / "reward.json").read_text())
    (tmp_path / "reward.json").write_text(json.dumps({**values, "sigma": 1}))
    with pytest.raises(ModelError, match="does not describe a reward model"):
        RewardFacts.read(tmp_path)


def test_the_digest_sees_a_head_that_differs(
    base: BaseModel, config: ModelConfig, sealed: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(sealed, tmp_path / "same")
    assert reward_digest(tmp_path / "same") == reward_digest(sealed)
    head = ScoreHead(64)
    save_head(head, member_folders(tmp_path / "same", 2)[1])
    assert reward_digest(tmp_path / "same") != reward_digest(sealed)
