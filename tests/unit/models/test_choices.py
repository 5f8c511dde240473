"""Next-token log-probabilities of a few choices, against the whole model's own logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from pipeline.config.shared import ModelConfig
from pipeline.data.chat import Chat, load_chat
from pipeline.errors import ModelError
from pipeline.models.choices import choice_ids, choice_logprobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    return load_chat(folder, ModelConfig(id="tiny"))


def test_choices_are_what_a_softmax_of_the_last_logits_gives(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [[5, 9, 30], [7], [40, 41, 42, 43, 44, 45, 46], [12, 13]]
    choices = [33, 34, 35]
    found = choice_logprobs(model, prompts, choices, batch_size=3)
    for prompt, values in zip(prompts, found, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)[choices]
        torch.testing.assert_close(torch.tensor(values), expected, rtol=0, atol=2e-5)
    turned = choice_logprobs(model, prompts, choices[::-1], batch_size=1)
    assert turned[0] == pytest.approx(found[0][::-1], abs=2e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-3)  # prompts matter, so equal values above were no accident


def test_a_choice_is_one_token_of_its_own(chat: Chat) -> None:
    ids = choice_ids(chat, ("A", "B", "C"))
    assert [chat.tokenizer.decode([token]) for token in ids] == ["A", "B", "C"]
    with pytest.raises(ModelError, match="no token of its own for each of A, Bzq"):
        choice_ids(chat, ("A", "Bzq"))
    with pytest.raises(ModelError, match="no token of its own"):
        choice_ids(chat, ("A", "A"))
