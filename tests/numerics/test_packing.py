"""Two sides in one row are what they are in two rows: scores and every gradient, under either attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_rows import comparison
from tiny import PAD_ID, make_tiny_model

from pipeline.artifacts.base_model import resolve_base
from pipeline.config.shared import Attention, DType, LoRAConfig, ModelConfig, ModelSource, RuntimeConfig
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.models.loading import add_lora, load_base
from pipeline.models.packing import CHOSEN, PADDING, REJECTED, SHARED
from pipeline.models.reward import ScoreHead
from pipeline.stages.pairs import PackedCollator, PairCollator
from pipeline.stages.reward_trainer import batch_scores

ENTRIES = [{"row": 0}, {"row": 1}, {"row": 2}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[Pair]:
    rows = [
        comparison("Yes, it does.", "Yes, and no, and yes.", id="a"),  # they share the first words as well
        comparison("Look at the settings page. " * 3, "So.", prompt="A much longer question than the others? " * 4),
        comparison("Yes.", "Yes. Yes.", id="c"),  # one begins as the other ends
    ]
    return encode_pairs(rows, load_chat(folder, ModelConfig(id="tiny")), max_length=256).pairs


def scores_and_gradients(
    folder: Path, cache: Path, attention: Attention, batch: dict[str, Any]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    config = ModelConfig(source=ModelSource.hub, id=str(folder), attention=attention)
    model = add_lora(load_base(resolve_base(config, cache), config, RuntimeConfig(), DType.float32), LoRAConfig(), 1)
    generator, head = torch.Generator().manual_seed(2), ScoreHead(64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=generator)
        head.linear.weight.normal_(generator=generator)
    scores = batch_scores(model, head, batch)
    (scores * torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, -1.0])).sum().backward()
    trained = [parameter for parameter in [*model.parameters(), *head.parameters()] if parameter.requires_grad]
    return scores.detach(), [parameter.grad for parameter in trained]


@pytest.mark.parametrize("attention", [Attention.sdpa, Attention.eager])
def test_packed_rows_give_the_same_scores_and_gradients(
    folder: Path, pairs: list[Pair], tmp_path: Path, attention: Attention
) -> None:
    plain = scores_and_gradients(folder, tmp_path, attention, PairCollator(pairs, PAD_ID)(ENTRIES))
    packed = scores_and_gradients(folder, tmp_path, attention, PackedCollator(pairs, PAD_ID)(ENTRIES))
    assert packed[0].tolist() == pytest.approx(plain[0].tolist(), abs=2e-5)
    assert plain[0].std() > 0.5
    for ours, theirs in zip(packed[1], plain[1], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_side_that_saw_the_other_would_be_noticed(folder: Path, pairs: list[Pair], tmp_path: Path) -> None:
    batch = PackedCollator(pairs, PAD_ID)(ENTRIES)
    apart = scores_and_gradients(folder, tmp_path, Attention.sdpa, batch)[0]
    leaking = {**batch, "segments": batch["segments"].masked_fill(batch["segments"] == CHOSEN, SHARED)}
    seen = scores_and_gradients(folder, tmp_path, Attention.sdpa, leaking)[0]
    assert seen[:3].tolist() == pytest.approx(apart[:3].tolist(), abs=2e-5)  # chosen comes first and sees no difference
    assert (seen[3:] - apart[3:]).abs().min() > 1e-3


def test_the_layout_of_a_row(pairs: list[Pair]) -> None:
    batch = PackedCollator(pairs, PAD_ID)(ENTRIES)
    for number, pair in enumerate(pairs):
        row, segments = batch["input_ids"][number], batch["segments"][number]
        assert row[(segments == SHARED) | (segments == CHOSEN)].tolist() == pair.chosen.input_ids
        assert row[(segments == SHARED) | (segments == REJECTED)].tolist() == pair.rejected.input_ids
        assert int((segments != PADDING).sum()) == pair.num_packed < pair.num_tokens
        for side, last in ((pair.chosen, number), (pair.rejected, number + len(pairs))):
            place = batch["last_index"][last]
            assert row[place] == side.input_ids[-1]
            assert batch["position_ids"][number, place] == len(side.input_ids) - 1
