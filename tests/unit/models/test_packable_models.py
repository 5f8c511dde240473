"""Which models may have both sides of a pair in one row, and that the others are scored as row by row."""

from __future__ import annotations

import pytest
import torch
from architectures import make_architecture
from made_rows import comparison
from tiny import make_tiny_model
from transformers import PreTrainedModel

from pipeline.config.reward import TieModel
from pipeline.config.shared import ModelConfig
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.models.packing import can_pack
from pipeline.models.reward import raw_scores
from pipeline.stages import reward_trainer
from pipeline.stages.reward_trainer import RewardHead, pair_scores

FULL = ["llama", "qwen2", "qwen3", "gpt2"]
WINDOWS = ["mistral", "gemma2", "gemma3_text", "gpt_neo"]
STATES = ["lfm2", "qwen3_next", "falcon_h1", "granitemoehybrid"]
DISTANCES = ["bloom", "falcon", "mpt"]  # by the place in the row, whatever `position_ids` say (ALiBi)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    rows = [
        comparison("Look at the settings page.", "So it does, and so it will.", id="a"),
        comparison("Yes, it does. It does so every day.", "No.", prompt="Is it?", id="b"),
    ]
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    return encode_pairs(rows, load_chat(folder, ModelConfig(id="tiny")), max_length=256).pairs


def differences(model: PreTrainedModel, pairs: list[Pair]) -> list[float]:
    """How far the scores of a batch of pairs are from those of each row by itself."""
    model.reward_head = RewardHead(32, TieModel.half)
    model.reward_head.score.linear.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    together = pair_scores(model, pairs, batch_size=2, lower=None)
    rows = [pair.chosen.input_ids for pair in pairs] + [pair.rejected.input_ids for pair in pairs]
    alone = raw_scores(model, model.reward_head.score, rows, batch_size=1).view(2, -1)
    return ((together - alone).abs() / alone.std()).flatten().tolist()


@pytest.mark.parametrize("kind", [*FULL, *WINDOWS, *STATES, *DISTANCES])
def test_only_full_attention_at_given_positions_is_packed(
    kind: str, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_architecture(kind)
    assert can_pack(model) is (kind in FULL)
    assert max(differences(model, pairs)) < 1e-4
    if kind in FULL:
        return
    monkeypatch.setattr(reward_trainer, "can_pack", lambda model: True)  # the control: what packing would have done
    try:
        packed = differences(model, pairs)
    except ValueError:
        assert kind in {"bloom", "falcon"}, "they take no mask of four dimensions at all"
    else:
        assert max(packed) > 1e-2


def test_what_is_switched_off_does_not_count() -> None:
    assert can_pack(make_architecture("qwen2", use_sliding_window=False, sliding_window=4))
    assert not can_pack(make_architecture("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1))
    assert can_pack(make_architecture("mistral", sliding_window=None))
    assert can_pack(make_architecture("falcon", alibi=False))
