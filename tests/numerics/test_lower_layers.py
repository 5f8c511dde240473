"""A model run in two parts is the whole one: scores, gradients above, none below, and nothing computed twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_rows import comparison
from peft import PeftModel
from tiny import PAD_ID, make_tiny_model

from pipeline.artifacts.base_model import resolve_base
from pipeline.config.shared import DType, LoRAConfig, ModelConfig, ModelSource, RuntimeConfig
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.errors import ModelError
from pipeline.models.head import backbone
from pipeline.models.loading import add_lora, load_base
from pipeline.models.lower_layers import LowerLayers
from pipeline.models.reward import ScoreHead
from pipeline.stages.pairs import PackedCollator
from pipeline.stages.reward_trainer import batch_scores

NUM_LAYERS = 4
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, -1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), num_layers=NUM_LAYERS)


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[Pair]:
    rows = [
        comparison("Yes, it does.", "Yes, and no, and yes.", id="a"),
        comparison("Look at the settings page. " * 3, "So.", prompt="A much longer question than the others? " * 4),
        comparison("Yes.", "Yes. Yes.", id="c"),
    ]
    return encode_pairs(rows, load_chat(folder, ModelConfig(id="tiny")), max_length=256).pairs


def batch_of(pairs: list[Pair], numbers: list[int]) -> dict[str, Any]:
    return PackedCollator(pairs, PAD_ID)([{"row": number} for number in numbers])


def make_model(folder: Path, cache: Path) -> tuple[PeftModel, ScoreHead]:
    """An adapter that says something in every layer."""
    config = ModelConfig(source=ModelSource.hub, id=str(folder))
    model = add_lora(load_base(resolve_base(config, cache), config, RuntimeConfig(), DType.float32), LoRAConfig(), 1)
    generator, head = torch.Generator().manual_seed(2), ScoreHead(64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=generator)
        head.linear.weight.normal_(generator=generator)
    return model, head


def layer_of(name: str) -> int:
    return int(name.split(".layers.")[1].split(".")[0])


@pytest.mark.parametrize("num_upper", [1, 3])
def test_scores_and_gradients_are_those_of_the_whole_model(
    folder: Path, pairs: list[Pair], tmp_path: Path, num_upper: int
) -> None:
    whole, head = make_model(folder, tmp_path)
    expected = batch_scores(whole, head, batch_of(pairs, [0, 1, 2]))
    (expected * WEIGHTS).sum().backward()
    gradients = {name: parameter.grad for name, parameter in whole.named_parameters() if parameter.grad is not None}
    parted, head = make_model(folder, tmp_path)
    lower = LowerLayers(num_upper)
    lower.freeze(parted)
    batch_scores(parted, head, batch_of(pairs, [2, 0]), lower)  # some rows are known before, from another batch
    scores = batch_scores(parted, head, batch_of(pairs, [0, 1, 2]), lower)
    (scores * WEIGHTS).sum().backward()
    assert scores.tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert expected.std() > 0.5
    found = {name: parameter.grad for name, parameter in parted.named_parameters() if parameter.grad is not None}
    assert {layer_of(name) for name in found} == set(range(NUM_LAYERS - num_upper, NUM_LAYERS))
    for name, found_one in found.items():
        largest = float(gradients[name].abs().max())
        assert torch.allclose(found_one, gradients[name], rtol=1e-3, atol=1e-4 * largest), name


def test_known_rows_are_not_computed_again(folder: Path, pairs: list[Pair], tmp_path: Path) -> None:
    model, head = make_model(folder, tmp_path)
    lower, calls = LowerLayers(1), list[int]()
    lower.freeze(model)
    first = backbone(model).layers[0]
    first.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        batch_scores(model, head, batch_of(pairs, [0, 1]), lower)
    assert len(calls) == 2  # once to know them, once to compare with the whole model
    batch_scores(model, head, batch_of(pairs, [0, 2]), lower)
    assert len(calls) == 3
    again, head = make_model(folder, tmp_path)  # another model with the same lower layers knows what this one does
    lower.freeze(again)
    backbone(again).layers[0].register_forward_hook(lambda *_: calls.append(1))
    batch_scores(again, head, batch_of(pairs, [0, 1, 2]), lower)
    assert len(calls) == 3


def test_a_row_is_known_by_its_tokens_and_its_parts(folder: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """The control: the same tokens divided in another way are another row."""
    model, head = make_model(folder, tmp_path)
    lower = LowerLayers(1)
    lower.freeze(model)
    batch = batch_of(pairs, [0, 1, 2])
    apart = batch_scores(model, head, batch, lower)
    leaking = {**batch, "segments": batch["segments"].clamp(max=0) + 3 * (batch["segments"] == 3)}  # all is shared
    seen = batch_scores(model, head, leaking, lower)
    assert seen.tolist() == pytest.approx(batch_scores(model, head, leaking).tolist(), abs=2e-5)
    assert (seen[3:] - apart[3:]).abs().min() > 1e-3


def test_a_model_that_cannot_be_parted_is_refused(folder: Path, pairs: list[Pair], tmp_path: Path) -> None:
    model, head = make_model(folder, tmp_path)
    with pytest.raises(ModelError, match=r"upper_layers=4 leaves nothing below.*4 layers"):
        LowerLayers(4).freeze(model)
    lower = LowerLayers(1)
    backbone(model).layers[2].register_forward_hook(lambda *_: None)
    backbone(model).embed_tokens.register_forward_hook(lambda module, given, output: output * 2)
    lower.freeze(model)
    # What comes between the embeddings and the first layer is a part of the lower ones, so this is no difference.
    batch_scores(model, head, batch_of(pairs, [0]), lower)
    other = LowerLayers(1)
    # Whatever else is done to what enters the layers is done twice: here to the states of the layers below.
    backbone(model).register_forward_pre_hook(
        lambda module, given, named: (
            (given, {**named, "inputs_embeds": named["inputs_embeds"] * 2}) if "inputs_embeds" in named else None
        ),
        with_kwargs=True,
    )
    with pytest.raises(ModelError, match="in two parts, differs from the whole"):
        batch_scores(model, head, batch_of(pairs, [0]), other)
